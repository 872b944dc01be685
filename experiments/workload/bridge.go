package workload

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint"
	"crucible/container/network"
	"crucible/restore"
)

// bridgeCases have a peer outside, at the other end of a link of the engine's.
func bridgeCases() []Case {
	needs := []string{"network/veth", "network/bridge"}
	onBridge := func(d *definition) { d.net = network.ModeBridge }
	return []Case{
		{Name: "bridge-address", Question: "Does a container on a bridge get its address, its link's address and its routes back?", Needs: needs,
			define: onBridge, program: bridgeAddress},
		{Name: "tcp-bridge", Question: "Does a TCP connection to a peer outside go on after the restore?", Needs: append(needs, "network/tcp repair"),
			define: onBridge, program: echoServer, meet: connectOutside, plot: talkMeanwhile},
		{Name: "parked-packets", Question: "Do datagrams arrive that a peer sends while there is no container?", Needs: append(needs, "network/packet sockets"),
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

// echoServer takes one connection, and answers after the restore with what came
// until then and since.
func echoServer() (func() error, error) {
	l, err := socket(unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	if err := first(unix.Bind(l, &unix.SockaddrInet4{Port: serverPort}), unix.Listen(l, 5)); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	fmt.Println(saysListens)
	if err := readable(l); err != nil {
		return nil, err
	}
	conn, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return func() error {
		got, err := receive(conn, len(beforehand+meanwhile))
		return first(err, send(conn, got))
	}, readable(conn)
}

const saysListens = "listens"

func (s *stage) address() (string, error) {
	if s.box.State.Attachment == nil {
		return "", fmt.Errorf("the container has no address")
	}
	return fmt.Sprintf("%s:%d", s.box.State.Attachment.Address.Addr(), serverPort), nil
}

func (s *stage) dial(ctx context.Context, kind string) error {
	address, err := s.address()
	if err != nil {
		return err
	}
	var d net.Dialer
	d.SetMultipathTCP(false)
	if s.peer, err = d.DialContext(ctx, kind, address); err != nil {
		return err
	}
	return s.peer.SetDeadline(deadline(ctx))
}

func deadline(ctx context.Context) time.Time {
	t, _ := ctx.Deadline() // zero for none
	return t
}

func connectOutside(ctx context.Context, s *stage) error {
	if err := s.await(ctx, saysListens); err != nil {
		return err
	}
	if err := s.dial(ctx, "tcp4"); err != nil {
		return err
	}
	_, err := io.WriteString(s.peer, beforehand)
	return err
}

func talkMeanwhile(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if _, err := io.WriteString(s.peer, meanwhile); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	if err := s.tell(ctx); err != nil {
		return err
	}
	echo := make([]byte, len(beforehand+meanwhile))
	if _, err := io.ReadFull(s.peer, echo); err != nil {
		return fmt.Errorf("read the echo: %w", err)
	}
	return first(same("echo", string(echo), beforehand+meanwhile), s.end(ctx))
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

func greetOutside(ctx context.Context, s *stage) error {
	if err := s.await(ctx, saysListens); err != nil {
		return err
	}
	if err := s.dial(ctx, "udp4"); err != nil {
		return err
	}
	_, err := s.peer.Write([]byte{greeting})
	return err
}

func sendMeanwhile(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	for n := range byte(datagrams) {
		if _, err := s.peer.Write([]byte{n}); err != nil {
			return err
		}
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	return s.goOn(ctx)
}
