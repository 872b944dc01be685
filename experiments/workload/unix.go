package workload

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func unixCases() []Case {
	needs := []string{"sockets/unix"}
	return []Case{
		{Name: "unix-stream", Question: "Does a unix stream pair keep what is queued, both ways?", Needs: needs, program: unixStream},
		{Name: "unix-listen", Question: "Does a listening unix socket still accept, by its path and by an abstract name?", Needs: needs, program: unixListen},
		{Name: "unix-dgram", Question: "Do queued unix datagrams keep their bounds and their sender?", Needs: needs, program: unixDatagrams},
		{Name: "unix-seqpacket", Question: "Do queued unix packets keep their bounds?", Needs: needs, program: unixPackets},
		{Name: "scm-rights", Question: "Does a descriptor survive that is under way in a unix socket?", Needs: needs, program: descriptorInFlight},
	}
}

func unixPair(kind int) (p [2]int, err error) {
	p, err = unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		err = lacks("unix sockets", err, unix.EAFNOSUPPORT)
	}
	return p, err
}

func unixStream() (func() error, error) {
	p, err := unixPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	there, back := pattern(30000, 1), pattern(100, 2)
	if err := first(send(p[0], there), send(p[1], back), unix.Shutdown(p[1], unix.SHUT_WR)); err != nil {
		return nil, err
	}
	return func() error {
		if err := first(mustReceive("one way", p[1], there), mustReceive("the other way", p[0], back)); err != nil {
			return err
		}
		n, err := unix.Read(p[0], make([]byte, 1))
		return first(err, same("bytes after the end", n, 0), send(p[0], []byte("more")), mustReceive("more", p[1], []byte("more")))
	}, nil
}

func unixSocket(kind int, address string) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, lacks("unix sockets", err, unix.EAFNOSUPPORT)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return 0, fmt.Errorf("bind %s: %w", address, err)
	}
	return fd, nil
}

func unixListen() (func() error, error) {
	var fds []int
	addresses := []string{"/run/listen", "@crucible-listen"}
	for _, a := range addresses {
		fd, err := unixSocket(unix.SOCK_STREAM, a)
		if err != nil {
			return nil, err
		}
		if err := unix.Listen(fd, 5); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		fds = append(fds, fd)
	}
	return func() error {
		for i, a := range addresses {
			client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err := unix.Connect(client, &unix.SockaddrUnix{Name: a}); err != nil {
				return fmt.Errorf("connect to %s: %w", a, err)
			}
			if err := readable(fds[i]); err != nil {
				return err
			}
			server, _, err := unix.Accept(fds[i])
			if err := first(err, send(client, []byte("hello")), mustReceive(a, server, []byte("hello"))); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func unixDatagrams() (func() error, error) {
	to, err := unixSocket(unix.SOCK_DGRAM, "/run/to")
	if err != nil {
		return nil, err
	}
	from, err := unixSocket(unix.SOCK_DGRAM, "/run/from")
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(from, &unix.SockaddrUnix{Name: "/run/to"}); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if err := first(send(from, []byte("one")), send(from, []byte("other"))); err != nil {
		return nil, err
	}
	return func() error {
		for _, want := range []string{"one", "other", "after"} {
			if want == "after" {
				if err := send(from, []byte(want)); err != nil {
					return err
				}
			}
			if err := readable(to); err != nil {
				return err
			}
			b := make([]byte, 100)
			n, sender, err := unix.Recvfrom(to, b, 0)
			if err := first(err, same("datagram", string(b[:max(n, 0)]), want)); err != nil {
				return err
			}
			address, ok := sender.(*unix.SockaddrUnix)
			// CRIU sends what was queued from a socket of its own.
			if want == "after" && (!ok || address.Name != "/run/from") {
				return fmt.Errorf("the sender is %+v", sender)
			}
		}
		return nil
	}, nil
}

func unixPackets() (func() error, error) {
	p, err := unixPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	packets := [][]byte{[]byte("one"), pattern(5000, 1), []byte("third")}
	for _, b := range packets {
		if err := send(p[0], b); err != nil {
			return nil, err
		}
	}
	return func() error {
		for _, want := range packets {
			if err := readable(p[1]); err != nil {
				return err
			}
			b := make([]byte, 10000)
			n, err := unix.Read(p[1], b)
			if err := first(err, same("packet", b[:max(n, 0)], want)); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func descriptorInFlight() (func() error, error) {
	p, err := unixPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	f, err := os.Create("/srv/passed")
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString("passed"); err != nil {
		return nil, err
	}
	if err := unix.Sendmsg(p[0], []byte("x"), unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		return nil, fmt.Errorf("sendmsg: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return func() error {
		if err := readable(p[1]); err != nil {
			return err
		}
		b, control := make([]byte, 10), make([]byte, 100)
		n, rest, _, _, err := unix.Recvmsg(p[1], b, control, 0)
		if err := first(err, same("byte", string(b[:max(n, 0)]), "x")); err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(control[:rest])
		if err != nil || len(messages) != 1 {
			return fmt.Errorf("%d control messages: %w", len(messages), err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return fmt.Errorf("%d descriptors: %w", len(fds), err)
		}
		position, err := at(fds[0])
		n, err2 := unix.Pread(fds[0], b, 0)
		return first(err, err2, same("contents", string(b[:max(n, 0)]), "passed"), same("position", position, int64(6)))
	}, nil
}
