package workload

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// inetCases have both ends of a connection in the container, on its loopback.
func inetCases() []Case {
	return []Case{
		{Name: "tcp-listen", Question: "Does a listening TCP socket keep its address and options, and accept?", Needs: []string{"sockets/tcp"}, program: tcpListen},
		{Name: "tcp-established", Question: "Does an established TCP connection keep what is queued, both ways?", Needs: []string{"network/tcp repair", "sockets/tcp"}, program: tcpEstablished(unix.AF_INET)},
		{Name: "tcp6-established", Question: "Does one over IPv6?", Needs: []string{"network/tcp repair", "sockets/tcp6"}, program: tcpEstablished(unix.AF_INET6)},
		{Name: "tcp-unsent", Question: "Does a TCP connection inside the container survive whose receiver takes no more?", Needs: []string{"network/tcp repair", "sockets/tcp"}, program: tcpUnsent,
			Known: &Known{StepRestore, "CRIU writes what had not been sent yet to a socket whose other end is not restored yet, and meets a broken pipe; its own network lock changes nothing"}},
		{Name: "tcp-options", Question: "Do the options of a TCP connection survive?", Needs: []string{"network/tcp repair", "sockets/tcp"}, program: tcpOptions},
		{Name: "udp", Question: "Do UDP sockets, bound and connected, keep their addresses and still talk?", Needs: []string{"sockets/udp"}, program: udp},
		{Name: "udp-queue", Question: "Do datagrams that were not read yet survive?", Needs: []string{"sockets/udp"}, program: udpQueue,
			Known: &Known{StepCheck, "CRIU drops the queue of a UDP socket (criu/sk-inet.c: \"Read queue is dropped\")"}},
	}
}

func loopback(family, port int) unix.Sockaddr {
	if family == unix.AF_INET6 {
		return &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}
	}
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

func socket(family, kind int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		what := "IPv4"
		if family == unix.AF_INET6 {
			what = "IPv6"
		}
		return 0, lacks(what, err, unix.EAFNOSUPPORT)
	}
	return fd, nil
}

func listen(family, port int) (int, error) {
	fd, err := socket(family, unix.SOCK_STREAM)
	if err != nil {
		return 0, err
	}
	// An address without IPv6 on the loopback cannot be had.
	if err := unix.Bind(fd, loopback(family, port)); err != nil {
		return 0, lacks("IPv6 on the loopback", err, unix.EADDRNOTAVAIL)
	}
	if err := unix.Listen(fd, 5); err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	return fd, nil
}

// tcpPair is a connection of two sockets with buffers of a size, or the usual ones.
func tcpPair(family, buffer int) (client, server int, err error) {
	l, err := listen(family, 7000)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(l)
	if client, err = socket(family, unix.SOCK_STREAM); err != nil {
		return 0, 0, err
	}
	if buffer > 0 {
		err = first(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer), unix.SetsockoptInt(client, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer))
	}
	if err := first(err, unix.Connect(client, loopback(family, 7000)), readable(l)); err != nil {
		return 0, 0, fmt.Errorf("connect: %w", err)
	}
	server, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
	return client, server, err
}

func tcpListen() (func() error, error) {
	fd, err := listen(unix.AF_INET, 7000)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, err
	}
	look, err := unchanged(func() (string, error) {
		address, err := unix.Getsockname(fd)
		reuse, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
		listens, err3 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		return fmt.Sprint(address.(*unix.SockaddrInet4).Addr, address.(*unix.SockaddrInet4).Port, reuse, listens), first(err, err2, err3)
	})
	return func() error {
		if err := look(); err != nil {
			return err
		}
		client, err := socket(unix.AF_INET, unix.SOCK_STREAM)
		if err := first(err, unix.Connect(client, loopback(unix.AF_INET, 7000)), readable(fd)); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		server, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		return first(err, send(server, []byte("hello")), mustReceive("through the new connection", client, []byte("hello")))
	}, err
}

func tcpEstablished(family int) program {
	return func() (func() error, error) {
		client, server, err := tcpPair(family, 0)
		if err != nil {
			return nil, err
		}
		there, back := pattern(20000, 1), pattern(3000, 2)
		if err := first(send(client, there), send(server, back), awaitUnsent(client), awaitUnsent(server)); err != nil {
			return nil, err
		}
		return func() error {
			return first(mustReceive("one way", server, there), mustReceive("the other way", client, back),
				send(client, back), mustReceive("one way, sent afterwards", server, back), send(server, there), mustReceive("the other way, sent afterwards", client, there))
		}, nil
	}
}

// awaitUnsent waits until all that was sent has been acknowledged.
func awaitUnsent(fd int) error {
	for range int(patience.Milliseconds()) {
		n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil || n == 0 {
			return err
		}
		_, _ = unix.Poll(nil, 1) // there is no event for an empty queue
	}
	return fmt.Errorf("what was sent is not acknowledged after %v", patience)
}

func tcpUnsent() (func() error, error) {
	client, server, err := tcpPair(unix.AF_INET, 16<<10)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(client, true); err != nil {
		return nil, err
	}
	all := pattern(1<<20, 1)
	sent, err := fill(client, all)
	return func() error { return mustReceive("data", server, all[:sent]) }, err
}

// fill writes as much as a socket takes, of which something cannot be sent.
func fill(fd int, all []byte) (sent int, err error) {
	for sent < len(all) {
		n, err := unix.Write(fd, all[sent:min(sent+4096, len(all))])
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return sent, fmt.Errorf("write: %w", err)
		}
		sent += n
	}
	waiting, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err == nil && waiting == 0 {
		err = fmt.Errorf("%d bytes went through, and nothing waits", sent)
	}
	return sent, err
}

func tcpOptions() (func() error, error) {
	client, server, err := tcpPair(unix.AF_INET, 0)
	if err != nil {
		return nil, err
	}
	options := []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 7}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3}, {unix.SOL_SOCKET, unix.SO_SNDBUF, 40000},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, 50000}, {unix.SOL_SOCKET, unix.SO_PRIORITY, 3}, {unix.SOL_SOCKET, unix.SO_RCVLOWAT, 2}, {unix.IPPROTO_IP, unix.IP_TOS, 0x10},
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(client, o.level, o.name, o.value); err != nil {
			return nil, fmt.Errorf("option %d of level %d: %w", o.name, o.level, err)
		}
	}
	look, err := unchanged(func() (string, error) {
		out := ""
		for _, o := range options {
			value, err := unix.GetsockoptInt(client, o.level, o.name)
			if err != nil {
				return "", fmt.Errorf("option %d of level %d: %w", o.name, o.level, err)
			}
			out += fmt.Sprintf("option %d of level %d: %d\n", o.name, o.level, value)
		}
		return out, nil
	})
	return func() error {
		return first(look(), send(server, []byte("hello")), mustReceive("data", client, []byte("hello")))
	}, err
}

func udpPair() (bound, connected int, err error) {
	if bound, err = socket(unix.AF_INET, unix.SOCK_DGRAM); err != nil {
		return 0, 0, err
	}
	if connected, err = socket(unix.AF_INET, unix.SOCK_DGRAM); err != nil {
		return 0, 0, err
	}
	return bound, connected, first(unix.Bind(bound, loopback(unix.AF_INET, 7001)), unix.Bind(connected, loopback(unix.AF_INET, 7002)),
		unix.Connect(connected, loopback(unix.AF_INET, 7001)))
}

func udp() (func() error, error) {
	bound, connected, err := udpPair()
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := first(send(connected, []byte("hello")), readable(bound)); err != nil {
			return err
		}
		b := make([]byte, 100)
		n, from, err := unix.Recvfrom(bound, b, 0)
		if err := first(err, same("datagram", string(b[:max(n, 0)]), "hello")); err != nil {
			return err
		}
		if address, ok := from.(*unix.SockaddrInet4); !ok || address.Port != 7002 {
			return fmt.Errorf("the datagram came from %+v", from)
		}
		return first(unix.Sendto(bound, []byte("answer"), 0, from), mustReceive("answer", connected, []byte("answer")))
	}, nil
}

func udpQueue() (func() error, error) {
	bound, connected, err := udpPair()
	if err != nil {
		return nil, err
	}
	return func() error {
		b := make([]byte, 100)
		n, _, err := unix.Recvfrom(bound, b, unix.MSG_DONTWAIT)
		return first(err, same("datagram", string(b[:max(n, 0)]), "queued"))
	}, first(send(connected, []byte("queued")), readable(bound))
}
