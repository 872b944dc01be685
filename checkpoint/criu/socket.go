package criu

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	// A request is one packet, and a packet must fit the send buffer: a
	// container with some thousand external mounts needs more than the
	// default of 208 KiB (unix(7)).
	sendBuffer = 4 << 20
	// The kernel's SCM_MAX_FD: no packet carries more descriptors.
	maxFiles = 253
)

// socketPair makes the connection to one CRIU. It must be made by the
// process that asks: CRIU resolves the descriptors named in a request by
// SO_PEERCRED, as /proc/<peer>/fd/<n> (criu/cr-service.c:
// resolve_images_dir_path), and the peer is who called socketpair(2).
func socketPair() (ours, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("socketpair: %w", err)
	}
	// FORCE passes the host's limit, and needs CAP_NET_ADMIN. Without it a
	// request of an ordinary size still fits.
	if unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	return pair[0], pair[1], nil
}

func sendMessage(sock int, m proto.Message) error {
	packet, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	for {
		_, err = unix.SendmsgN(sock, packet, nil, nil, unix.MSG_NOSIGNAL)
		switch err {
		case unix.EINTR:
			continue
		case nil:
			return nil
		}
		return fmt.Errorf("send %d bytes to CRIU: %w", len(packet), err)
	}
}

// recvMessage reads one packet and the descriptors that came with it. It
// returns io.EOF if CRIU has closed its end.
func recvMessage(sock int, m proto.Message) ([]*os.File, error) {
	// A first look, without taking it, tells the packet's whole length
	// (MSG_TRUNC, recv(2)): no size that we guess can be too small.
	size, _, err := retry(func() (int, int, error) {
		n, _, err := unix.Recvfrom(sock, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		return n, 0, err
	})
	if err != nil {
		return nil, fmt.Errorf("receive from CRIU: %w", err)
	}
	packet := make([]byte, size)
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	var flags int
	n, oobn, err := retry(func() (int, int, error) {
		n, oobn, f, _, err := unix.Recvmsg(sock, packet, oob, unix.MSG_CMSG_CLOEXEC)
		flags = f
		return n, oobn, err
	})
	if err != nil {
		return nil, fmt.Errorf("receive from CRIU: %w", err)
	}
	files, err := parseFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	switch {
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		closeFiles(files)
		return nil, fmt.Errorf("receive from CRIU: a packet of more than %d bytes was cut", len(packet))
	case n == 0:
		closeFiles(files)
		return nil, io.EOF
	}
	if err := proto.Unmarshal(packet[:n], m); err != nil {
		closeFiles(files)
		return nil, fmt.Errorf("decode CRIU's answer: %w", err)
	}
	return files, nil
}

func retry(call func() (int, int, error)) (int, int, error) {
	for {
		a, b, err := call()
		if !errors.Is(err, unix.EINTR) {
			return a, b, err
		}
	}
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors from CRIU: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, not descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "from CRIU"))
		}
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
