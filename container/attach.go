package container

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// attach is the monitor's side of an attached terminal.
func (c *control) attach(m *Monitor, conn *net.UnixConn, r *bufio.Reader, q request) {
	var mu sync.Mutex
	send := func(kind byte, data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		// A client that does not read must not hold the container up.
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		return writeFrame(conn, kind, data)
	}
	say(conn, nil)
	m.resize(q.Rows, q.Columns)
	t := &tap{write: func(stream int, data []byte) error { return send(byte(stream), data) }}
	m.stdio.addTap(t)
	defer m.stdio.removeTap(t)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			kind, data, err := readFrame(r)
			if err != nil {
				return
			}
			m.fromClient(kind, data)
		}
	}()
	select {
	case <-gone:
	case <-c.exit:
		_ = send(frameExit, []byte(strconv.Itoa(c.code)))
		conn.Close()
		<-gone
	}
}

func (m *Monitor) fromClient(kind byte, data []byte) {
	switch kind {
	case frameInput:
		if w, err := m.stdio.writer(); err == nil {
			_, _ = w.Write(data)
		}
	case frameEnd:
		m.stdio.closeInput()
	case frameResize:
		var rows, columns uint16
		if _, err := fmt.Sscanf(string(data), "%d %d", &rows, &columns); err == nil {
			m.resize(rows, columns)
		}
	}
}

func (m *Monitor) resize(rows, columns uint16) { setSize(m.stdio.master, rows, columns) }

// setSize sets the size of a terminal by its master.
func setSize(master *os.File, rows, columns uint16) {
	if master == nil || rows == 0 || columns == 0 {
		return
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
}

// Streams are a client's ends of an attached container.
type Streams struct {
	Input          io.Reader // nil: nothing is sent
	Stdout, Stderr io.Writer
	Rows, Columns  uint16
	Resized        <-chan [2]uint16 // rows, columns; may be nil
	Detach         <-chan struct{}  // closed when the user wants to leave; may be nil
}

// Detached is returned by Attach when the client left and the container runs on.
const Detached = -1

// Attach connects to the container's standard streams until it ends, and
// returns its exit status, or Detached. It does not outlast ctx.
func (c *Container) Attach(ctx context.Context, s Streams) (int, error) {
	conn, r, err := c.dial(request{Op: opAttach, Rows: s.Rows, Columns: s.Columns})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := hearReply(r); err != nil {
		return 0, err
	}
	var mu sync.Mutex
	send := func(kind byte, data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		return writeFrame(conn, kind, data)
	}
	if s.Input != nil {
		go forwardInput(s.Input, send)
	}
	type end struct {
		code int
		err  error
	}
	ends := make(chan end, 1)
	go func() {
		code, err := copyFrames(r, s)
		ends <- end{code, err}
	}()
	for {
		select {
		case e := <-ends:
			return e.code, e.err
		case size := <-s.Resized:
			_ = send(frameResize, fmt.Appendf(nil, "%d %d", size[0], size[1]))
		case <-s.Detach:
			return Detached, nil
		case <-ctx.Done():
			return Detached, fmt.Errorf("attach to container %s: %w", c.Name, ctx.Err())
		}
	}
}

func forwardInput(in io.Reader, send func(byte, []byte) error) {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		if n > 0 && send(frameInput, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = send(frameEnd, nil)
			return
		}
	}
}

func copyFrames(r io.Reader, s Streams) (int, error) {
	for {
		kind, data, err := readFrame(r)
		if err != nil {
			return Detached, fmt.Errorf("hear from the monitor: %w", err)
		}
		switch kind {
		case frameStdout:
			_, err = s.Stdout.Write(data)
		case frameStderr:
			_, err = s.Stderr.Write(data)
		case frameExit:
			return strconv.Atoi(string(data))
		}
		if err != nil {
			return Detached, err
		}
	}
}

// Input gives bytes to the standard input of a container in the foreground.
func (m *Monitor) Input(data []byte) { m.fromClient(frameInput, data) }

// CloseInput ends the standard input of a container in the foreground.
func (m *Monitor) CloseInput() { m.fromClient(frameEnd, nil) }

// Resize tells the container's terminal its size.
func (m *Monitor) Resize(rows, columns uint16) { m.resize(rows, columns) }

// Signal sends a signal to the init of a container in the foreground, as long
// as there is one.
func (m *Monitor) Signal(sig unix.Signal) {
	if m.init == nil {
		return
	}
	raw, err := m.init.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
}
