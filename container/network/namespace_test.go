package network

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"crucible/container/testenv"

	"golang.org/x/sys/unix"
)

// The main thread cannot be ended: a namespace made there would never die.
func TestNeverOnMainThread(t *testing.T) {
	for range 5000 {
		onThread(func() (bool, error) {
			if unix.Gettid() == unix.Getpid() {
				t.Error("on the main thread")
			}
			return true, nil
		})
		runtime.Gosched()
	}
}

func TestDo(t *testing.T) {
	ns := newNS(t)
	inside := func() (found bool) {
		links, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			found = found || l.Name == "cru3mark"
		}
		return found
	}
	err := Do(ns, func() error {
		s, err := dial(0)
		if err != nil {
			return err
		}
		defer s.Close()
		return s.do(newLink("bridge", "cru3mark", 0, 0, MAC{}))
	})
	if err != nil {
		t.Fatal(err)
	}
	var there, here bool
	Do(ns, func() error { there = inside(); return nil })
	// From a thread that is elsewhere, as the monitor's main thread is.
	var host *os.File
	Do(nil, func() (err error) { host, err = openOwn(); return err })
	defer host.Close()
	Do(ns, func() error {
		return Do(host, func() error { here = inside(); return Do(nil, func() error { here = here || inside(); return nil }) })
	})
	if !there || here {
		t.Errorf("in the namespace: %v, on the host: %v", there, here)
	}
	for range 200 {
		Do(ns, func() error { return nil })
		if inside() {
			t.Fatal("a thread was left in the namespace")
		}
	}
}

// awaitUp waits for a carrier that comes later, by a notification.
func TestAwaitUp(t *testing.T) {
	testenv.Root(t)
	h := hostSocket(t)
	if err := h.do(newVeth(vethEnd{Name: "cru3a"}, vethEnd{Name: "cru3b"})); err != nil {
		t.Fatal(err)
	}
	defer h.do(deleteLink("cru3a"))
	a, _, _ := h.link("cru3a")
	b, _, _ := h.link("cru3b")
	if err := h.do(setLinkUp(a.Index)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		s, err := dialIn(nil, 0)
		if err == nil {
			defer s.Close()
			err = awaitUp(nil, s, "cru3a")
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("up without a carrier: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	if err := h.do(setLinkUp(b.Index)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Errorf("not up after %s", patience)
	}
	if err := awaitUp(nil, h, "cru3c"); err == nil {
		t.Error("a link that is not there is up")
	}
}

func TestNetlinkErrorsSpeak(t *testing.T) {
	testenv.Root(t)
	h := hostSocket(t)
	err := h.do(newLink("nosuchkind", "cru3x", 0, 0, MAC{}))
	if err == nil || err.Error() == unix.EOPNOTSUPP.Error() {
		t.Errorf("the kernel's own words are missing: %v", err)
	}
	// One failure among several: the others are carried out.
	results, err := h.try(deleteLink("cru3none"), newLink("bridge", "cru3x", 0, 0, MAC{}), deleteLink("cru3x"))
	if err != nil || results[0] == nil || results[1] != nil || results[2] != nil {
		t.Errorf("%v, %v", results, err)
	}
}

func BenchmarkNewNamespace(b *testing.B) {
	testenv.Root(b)
	for b.Loop() {
		ns, err := NewNamespace()
		if err != nil {
			b.Fatal(err)
		}
		ns.Close()
	}
}
