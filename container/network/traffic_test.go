package network

import (
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// listenIn serves one-line echoes in a namespace.
func listenIn(t testing.TB, ns *os.File, network, address string) net.Listener {
	t.Helper()
	var l net.Listener
	err := Do(ns, func() (err error) {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(ctx, network, address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return l
}

func dialFrom(ns *os.File, address string) (net.Conn, error) {
	return dialWithin(patience, ns, address)
}

func dialWithin(limit time.Duration, ns *os.File, address string) (c net.Conn, err error) {
	err = Do(ns, func() (err error) {
		d := net.Dialer{Timeout: limit}
		d.SetMultipathTCP(false)
		c, err = d.Dial("tcp4", address)
		return err
	})
	return c, err
}

// mustEcho connects from ns and expects an echo.
func mustEcho(t testing.TB, ns *os.File, address string) {
	t.Helper()
	c, err := dialFrom(ns, address)
	if err != nil {
		t.Fatalf("connect to %s: %v", address, err)
	}
	defer c.Close()
	c.SetDeadline(deadline())
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("echo from %s: %q, %v", address, b, err)
	}
}
