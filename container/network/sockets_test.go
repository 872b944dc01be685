package network

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// in opens something in a namespace and keeps it open for the test.
func in[T interface{ Close() error }](t *testing.T, ns *os.File, open func() (T, error)) (x T) {
	t.Helper()
	err := Do(ns, func() (err error) {
		x, err = open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func rawFD(family, kind, protocol int) func() (*os.File, error) {
	return func() (*os.File, error) {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		return os.NewFile(uintptr(fd), "socket"), err
	}
}

func TestSockets(t *testing.T) {
	ns := newNS(t)
	if all, err := Sockets(ns); err != nil || len(all) != 0 {
		t.Fatalf("a fresh namespace has %v, %v", all, err)
	}
	listen := func(mptcp bool, network, addr string) func() (net.Listener, error) {
		return func() (net.Listener, error) {
			lc := net.ListenConfig{}
			lc.SetMultipathTCP(mptcp)
			return lc.Listen(ctx, network, addr)
		}
	}
	l := in(t, ns, listen(false, "tcp4", "127.0.0.1:80"))
	in(t, ns, listen(false, "tcp6", "[::1]:81"))
	in(t, ns, listen(true, "tcp", ":82"))
	if found, err := HasEstablishedTCP(ns); err != nil || found {
		t.Errorf("listeners count as connections: %v, %v", found, err)
	}
	dial := func() (net.Conn, error) {
		d := net.Dialer{}
		d.SetMultipathTCP(false)
		return d.Dial("tcp4", "127.0.0.1:80")
	}
	client := in(t, ns, dial)
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	in(t, ns, dial) // stays in the accept queue
	fmt.Fprint(client, "five!")
	in(t, ns, func() (net.PacketConn, error) { return net.ListenPacket("udp4", "127.0.0.1:53") })
	in(t, ns, func() (net.PacketConn, error) { return net.ListenPacket("udp6", "[::1]:54") })
	in(t, ns, rawFD(unix.AF_INET, unix.SOCK_RAW, 200))
	in(t, ns, rawFD(unix.AF_INET6, unix.SOCK_RAW, 201))
	in(t, ns, rawFD(unix.AF_PACKET, unix.SOCK_DGRAM, 0))
	in(t, ns, func() (*os.File, error) {
		f, err := rawFD(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)()
		if err == nil {
			err = unix.Bind(int(f.Fd()), &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		}
		return f, err
	})
	path := filepath.Join(t.TempDir(), "s")
	in(t, ns, func() (net.Listener, error) { return net.Listen("unix", path) })
	in(t, ns, func() (net.PacketConn, error) { return net.ListenPacket("unixgram", "@cru3") })
	var pair [2]int
	err = Do(ns, func() (err error) {
		pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])

	all, err := Sockets(ns)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"tcp listen 127.0.0.1:80 r=1", // one is waiting to be accepted
		"tcp6 listen [::1]:81 r=0",
		"mptcp listen [::]:82 r=0",
		"tcp established 127.0.0.1:80 -> " + client.LocalAddr().String() + " r=5",
		"tcp established " + client.LocalAddr().String() + " -> 127.0.0.1:80 r=0",
		"udp close 127.0.0.1:53 r=0",
		"udp6 close [::1]:54 r=0",
		"raw close", "raw6 close", "packet close", "netlink close",
		"unix stream listen " + path,
		"unix dgram close @cru3",
		"unix seqpacket established ",
	}
	text := ""
	byInode := map[uint32]Socket{}
	for _, s := range all {
		line := fmt.Sprintf("%s r=%d", s, s.RQueue)
		text += fmt.Sprintf("%s inode=%d peer=%d uid=%d\n", line, s.Inode, s.Peer, s.UID)
		byInode[s.Inode] = s
	}
	for _, w := range want {
		if !strings.Contains("\n"+text, "\n"+w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
	inode := func(fd int) uint32 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return uint32(st.Ino)
	}
	if s := byInode[inode(pair[0])]; s.Peer != inode(pair[1]) {
		t.Errorf("peer of %d is %d, want %d", s.Inode, s.Peer, inode(pair[1]))
	}
	if found, err := HasEstablishedTCP(ns); err != nil || !found {
		t.Errorf("connections not found: %v, %v", found, err)
	}
	// Without sock_diag modules.
	f := in(t, ns, func() (*os.File, error) { return os.Open("/proc/thread-self/net/tcp") })
	fromProc, err := parseProcNet("tcp", f)
	if err != nil || len(fromProc) < 4 {
		t.Errorf("/proc/net/tcp: %v, %v", fromProc, err)
	}
	for _, s := range fromProc {
		if d, ok := byInode[s.Inode]; ok && s.Inode != 0 && (d.Local != s.Local || d.Remote != s.Remote || d.State != s.State || d.RQueue != s.RQueue && s.State != "listen") {
			t.Errorf("sock_diag %+v, /proc %+v", d, s)
		}
	}
}

const procRaw = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  200: 0100007F:00C8 0200007F:0001 07 00000000:00000300 00:00000000 00000000  1000        0 12345 2 0000000000000000 0
`

func TestParseProcNet(t *testing.T) {
	all, err := parseProcNet("raw", strings.NewReader(procRaw))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	want := Socket{Protocol: "raw", State: "close", Local: all[0].Local, Remote: all[0].Remote, Inode: 12345, UID: 1000, RQueue: 0x300}
	if all[0] != want || all[0].Local.String() != "127.0.0.1:200" || all[0].Remote.String() != "127.0.0.2:1" {
		t.Errorf("%+v", all[0])
	}
	for _, bad := range []string{"head\n1 2 3\n", "head\n" + strings.Replace(procRaw, "0100007F", "01007F", 1)} {
		if _, err := parseProcNet("raw", strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzParseProcNet(f *testing.F) {
	f.Add([]byte(procRaw))
	f.Fuzz(func(t *testing.T, b []byte) { parseProcNet("raw", strings.NewReader(string(b))) })
}

func BenchmarkSockets(b *testing.B) {
	ns := newNS(b)
	listenIn(b, ns, "tcp4", ":80")
	for b.Loop() {
		if _, err := Sockets(ns); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHasEstablishedTCP(b *testing.B) {
	ns := newNS(b)
	for b.Loop() {
		if _, err := HasEstablishedTCP(ns); err != nil {
			b.Fatal(err)
		}
	}
}
