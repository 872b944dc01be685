package preflight

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

func bigEndian() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }

// judgeUnix judges unix sockets by whom they are connected to, as
// criu/sk-unix.c does (dump_one_unix_fd, dump_external_sockets).
func (l *look) judgeUnix(d *diagnosis) error {
	all := map[uint64]unixSocket{}
	err := d.list(unixRequest(), func(b []byte) error {
		s, err := parseUnix(b)
		all[s.ino] = s
		return err
	})
	if err != nil {
		return err
	}
	// A socket may be on its way from one process to another, in a message
	// (SCM_RIGHTS), and then no process shows it. CRIU finds it there.
	underway := false
	for ino := range l.sockets.unix {
		if s := all[ino]; s.state != stateListen && s.received > 0 {
			underway = true
		}
	}
	waiting := map[uint64]bool{} // in the queue of a listener of ours
	for ino := range l.sockets.unix {
		for _, client := range all[ino].pending {
			waiting[client] = true
		}
	}
	for ino, h := range l.sockets.unix {
		s, known := all[ino]
		if !known {
			l.add(h.p, h.d, Finding{Kind: "unix-outside", Blocks: true, What: "the unix socket was made in another network namespace", Remedy: closeFirst})
			continue
		}
		f := l.judgePeer(s, all, underway)
		if f == nil && !underway && !waiting[ino] {
			f = l.judgeDangling(s, all)
		}
		if f == nil {
			f = judgeQueue(s, waiting[ino])
		}
		if f != nil {
			l.add(h.p, h.d, *f)
		}
	}
	return nil
}

// judgePeer judges the other side of a connection.
func (l *look) judgePeer(s unixSocket, all map[uint64]unixSocket, underway bool) *Finding {
	if s.peer == 0 {
		return nil
	}
	if _, ours := l.sockets.unix[s.peer]; ours {
		return nil
	}
	peer, known := all[s.peer]
	f := &Finding{Kind: "unix-external", Blocks: true, Path: peer.shown(), What: "the unix socket is connected to one outside of the container", Remedy: "end the connection first"}
	switch {
	case !known:
		// In another network namespace. CRIU never learns of it, whatever the
		// options: "Unix socket without peer".
		f.What += "'s network namespace"
	case underway:
		return nil
	case s.kind == unix.SOCK_DGRAM && peer.name != "":
		if l.s.Given.ExtUnixSockets {
			return nil
		}
		f.Remedy = "allow it with --ext-unix-sk: it is connected to the same name again after the restore"
	}
	return f
}

// judgeDangling finds the client of a listener outside that has not accepted
// it: established, and with a peer that is no socket of anybody's yet. One whose
// peer has hung up looks the same, but is shut down both ways.
func (l *look) judgeDangling(s unixSocket, all map[uint64]unixSocket) *Finding {
	const bothWays = 3 // RCV_SHUTDOWN | SEND_SHUTDOWN, include/net/sock.h
	if s.peer != 0 || s.state != stateEstablished || s.kind == unix.SOCK_DGRAM || s.shut == bothWays {
		return nil
	}
	return &Finding{Kind: "unix-dangling", Blocks: true, Path: l.listenerOf(s.ino, all),
		What:   "the unix socket is connected to a listener outside of the container, which has not accepted it yet",
		Remedy: "end the connection first"}
}

// listenerOf is the name of the socket that a client waits for: of the same
// network namespace or, by way of a volume, of the host's.
func (l *look) listenerOf(client uint64, all map[uint64]unixSocket) string {
	for _, s := range all {
		if slices.Contains(s.pending, client) {
			return s.shown()
		}
	}
	if l.s.NetNS == nil {
		return ""
	}
	d, err := diagnose(nil)
	if err != nil {
		return ""
	}
	defer d.Close()
	name := ""
	_ = d.list(unixRequest(), func(b []byte) error { // it can be done without
		s, err := parseUnix(b)
		if err == nil && slices.Contains(s.pending, client) {
			name = s.shown()
		}
		return err
	})
	return name
}

// judgeQueue judges connections that nobody has accepted yet.
func judgeQueue(s unixSocket, waiting bool) *Finding {
	f := &Finding{Kind: "unix-in-flight", Blocks: true, Path: s.shown(), Remedy: "let the program accept it first"}
	if waiting && s.peer == 0 && s.sent != 0 {
		f.What = "CRIU cannot save a unix connection that has data in it before it is accepted"
		return f
	}
	if s.state != stateListen {
		return nil
	}
	for _, client := range s.pending {
		if client == 0 {
			f.What = "CRIU cannot save a unix connection that was closed before it was accepted"
			return f
		}
	}
	return nil
}
