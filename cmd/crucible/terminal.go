package main

import (
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"crucible/container"
)

// forwarded are the signals that a command in the foreground hands on to the
// container's init.
func forwarded() []os.Signal {
	return []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGWINCH}
}

// connect ties our terminal, input and signals to a container in the
// foreground, for the rest of our life. The function that it returns gives the
// terminal back.
func (a *app) connect(m *container.Monitor, o *runOptions) (restore func()) {
	restore = func() {}
	if o.Terminal && a.interactive() {
		if o.interactive { // else the keys are ours, and Ctrl-C a signal
			restore = a.makeRaw()
		}
		m.Resize(a.terminalSize())
	}
	if o.interactive {
		go copyInput(a.stdin, m)
	}
	// Not here: this goroutine is locked to the monitor's thread, which makes
	// each of the many times that os/signal yields cost two thread switches.
	go func() {
		// From now on the container decides what a signal means.
		for s := range a.interrupts.take(forwarded()...) {
			a.forward(m, s.(unix.Signal), o.Terminal)
		}
	}()
	return restore
}

func (a *app) forward(m *container.Monitor, sig unix.Signal, terminal bool) {
	if sig == unix.SIGWINCH {
		if terminal {
			m.Resize(a.terminalSize())
		}
		return
	}
	c := m.Container()
	// A program that is process 1 and does not handle Ctrl-C would not even
	// see it: for the user it is a way to end the container.
	if (sig == unix.SIGINT || sig == unix.SIGTERM) && !c.Handles(sig) {
		sig = unix.SIGKILL
	}
	m.Signal(sig)
}

func copyInput(in *os.File, m *container.Monitor) {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			m.Input(buf[:n])
		}
		if err != nil {
			m.CloseInput()
			return
		}
	}
}

// makeRaw puts our terminal in raw mode, so that the container's own terminal
// does the echoing and line editing.
func (a *app) makeRaw() (restore func()) {
	old, err := term.MakeRaw(int(a.stdin.Fd()))
	if err != nil {
		return func() {}
	}
	return func() { _ = term.Restore(int(a.stdin.Fd()), old) }
}

func (a *app) terminalSize() (rows, columns uint16) {
	w, h, err := term.GetSize(int(a.stdin.Fd()))
	if err != nil {
		return 0, 0
	}
	return uint16(h), uint16(w)
}

// sizes reports changes of our terminal's size until stop is called.
func (a *app) sizes() (changes <-chan [2]uint16, stop func()) {
	signals, out, done := make(chan os.Signal, 1), make(chan [2]uint16), make(chan struct{})
	signal.Notify(signals, unix.SIGWINCH)
	go func() {
		for {
			select {
			case <-signals:
				rows, columns := a.terminalSize()
				select {
				case out <- [2]uint16{rows, columns}:
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return out, func() { signal.Stop(signals); close(done) }
}

// detachReader passes input on until the keys Ctrl-P Ctrl-Q, as in podman and
// docker. A Ctrl-P is held back until the next key tells what it is.
type detachReader struct {
	in     *os.File
	detach chan struct{}
	held   bool
}

const ctrlP, ctrlQ = 0x10, 0x11

// Read needs room for two bytes.
func (r *detachReader) Read(p []byte) (int, error) {
	for {
		n, err := r.in.Read(p[1:]) // the first place is for what was held back
		out := p[:0]
		for _, b := range p[1 : 1+max(n, 0)] {
			switch {
			case r.held && b == ctrlQ:
				close(r.detach)
				return len(out), errors.New("detached")
			case r.held:
				out = append(out, ctrlP)
			}
			if r.held = b == ctrlP; !r.held {
				out = append(out, b)
			}
		}
		if err != nil && r.held {
			r.held, out = false, append(out, ctrlP)
		}
		if len(out) > 0 || err != nil {
			return len(out), err
		}
	}
}
