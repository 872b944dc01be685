package workload

import (
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/network"
)

// bridgeCases have a peer outside, at the other end of a link of the engine's.
func bridgeCases() []Case {
	needs := []string{"network/veth", "network/bridge"}
	onBridge := func(d *definition) { d.net = network.ModeBridge }
	return []Case{
		{Name: "bridge-address", Question: "Does a container on a bridge get its address, its link's address and its routes back?", Needs: needs,
			define: onBridge, program: bridgeAddress},
		{Name: "tcp-bridge", Question: "Does a TCP connection to a peer outside go on after the restore?", Needs: append(needs, "network/tcp repair", "sockets/tcp"),
			define: onBridge, program: echoServer, meet: connectOutside, plot: talkMeanwhile},
		{Name: "tcp-full-window", Question: "Does a TCP connection survive whose peer takes no more, with what could not be sent yet?", Needs: append(needs, "network/tcp repair", "sockets/tcp"),
			define: onBridge, program: fullWindow, meet: connectOutside, plot: readAfterwards},
		{Name: "tcp-close-wait", Question: "Does a TCP connection whose peer has closed its side still carry an answer?", Needs: append(needs, "network/tcp repair", "sockets/tcp", "criu/tcp_half_closed"),
			define: onBridge, program: closeWait, meet: closeOutside, plot: hearTheEnd},
		{Name: "tcp-fin-wait", Question: "Does a TCP connection whose container has closed its side still receive?", Needs: append(needs, "network/tcp repair", "sockets/tcp", "criu/tcp_half_closed"),
			define: onBridge, program: finWait, meet: connectOutside, plot: sendAfterTheEnd},
		{Name: "parked-packets", Question: "Do datagrams arrive that a peer sends while there is no container?", Needs: append(needs, "network/packet sockets", "sockets/udp"),
			define: onBridge, program: datagramServer, meet: greetOutside, plot: sendMeanwhile},
	}
}

func bridgeAddress() (func() error, error) {
	return unchanged(func() (string, error) {
		all, err := net.Interfaces()
		if err != nil {
			return "", err
		}
		out := ""
		for _, i := range all {
			addresses, err := i.Addrs()
			if err != nil {
				return "", err
			}
			// The kernel makes the link-local address after a while.
			var v4 []net.Addr
			for _, a := range addresses {
				if !strings.HasPrefix(a.String(), "fe80:") {
					v4 = append(v4, a)
				}
			}
			out += fmt.Sprintln(i.Name, i.HardwareAddr, i.MTU, v4)
		}
		if !strings.Contains(out, "eth0") {
			return "", fmt.Errorf("there is no eth0: %q", out)
		}
		routes, err := os.ReadFile("/proc/net/route")
		return out + string(routes), err
	})
}

const (
	serverPort = 7000
	beforehand = "sent before the checkpoint "
	meanwhile  = "sent while it was away"
)

// acceptOne takes one connection from outside, with a send buffer of a size or
// the usual one.
func acceptOne(buffer int) (conn int, err error) {
	l, err := socket(unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		return 0, err
	}
	if buffer > 0 {
		err = unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
	}
	if err := first(err, unix.Bind(l, &unix.SockaddrInet4{Port: serverPort}), unix.Listen(l, 5)); err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	fmt.Println(saysListens)
	if err := readable(l); err != nil {
		return 0, err
	}
	if conn, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
		return 0, fmt.Errorf("accept: %w", err)
	}
	return conn, unix.Close(l)
}

// echoServer answers after the restore with what came until then and since.
func echoServer() (func() error, error) {
	conn, err := acceptOne(0)
	if err != nil {
		return nil, err
	}
	return func() error {
		got, err := receive(conn, len(beforehand+meanwhile))
		return first(err, send(conn, got))
	}, readable(conn)
}

const saysListens = "listens"

// unsent is more than both ends' buffers take.
const unsent = 512 << 10

func fullWindow() (func() error, error) {
	conn, err := acceptOne(16 << 10)
	if err != nil {
		return nil, err
	}
	all := pattern(unsent, 1)
	if err := unix.SetNonblock(conn, true); err != nil {
		return nil, err
	}
	sent, err := fill(conn, all)
	return func() error {
		if err := unix.SetNonblock(conn, false); err != nil {
			return err
		}
		return first(send(conn, all[sent:]), awaitUnsent(conn))
	}, err
}

// restored goes as far as the go-ahead.
func closeWait() (func() error, error) {
	conn, err := acceptOne(0)
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := mustReceive("what came before the end", conn, []byte(beforehand)); err != nil {
			return err
		}
		n, err := unix.Read(conn, make([]byte, 1))
		return first(err, same("bytes after the end", n, 0), send(conn, []byte("answer")), awaitUnsent(conn), unix.Shutdown(conn, unix.SHUT_WR), awaitUnsent(conn))
	}, await(conn, unix.POLLRDHUP)
}

func finWait() (func() error, error) {
	conn, err := acceptOne(0)
	if err != nil {
		return nil, err
	}
	// The end has been heard when it is acknowledged.
	return func() error { return mustReceive("data", conn, []byte(beforehand+meanwhile)) }, first(unix.Shutdown(conn, unix.SHUT_WR), awaitUnsent(conn))
}

const datagrams = 5

// greeting is a datagram by which peer and container get to know each other's
// links before.
const greeting = 255

// datagramServer wants a number of datagrams, each once and in their order.
func datagramServer() (func() error, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: serverPort}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	fmt.Println(saysListens)
	return func() error {
		for n := range byte(datagrams) {
			if err := mustReceive(fmt.Sprintf("datagram %d", n+1), fd, []byte{n}); err != nil {
				return err
			}
		}
		return nil
	}, mustReceive("greeting", fd, []byte{greeting})
}
