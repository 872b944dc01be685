package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// request is the first line on a connection to the monitor's socket; the
// monitor answers with a reply, and what follows depends on Op.
type request struct {
	Op string `json:"op"`
	// Rows, Columns is the client's terminal (attach).
	Rows    uint16 `json:"rows,omitempty"`
	Columns uint16 `json:"columns,omitempty"`
	Frozen  bool   `json:"frozen,omitempty"` // the user has frozen the container (guard)
}

// What a monitor can be asked for.
const (
	opStart  = "start"  // let a created container's program start
	opAttach = "attach" // frames follow, both ways
	opGuard  = "guard"  // the client may freeze the container: see Guard
	opTake   = "take"   // hand over the parked frames: see TakeParked
	opWait   = "wait"   // the answer comes when the exit status is recorded
)

type reply struct {
	Error string     `json:"error,omitempty"`
	Init  *InitError `json:"init,omitempty"`
}

// control is the monitor's socket.
type control struct {
	listener *net.UnixListener
	mu       sync.Mutex
	guard    *guard     // the checkpoint that is under way
	idle     *sync.Cond // signalled when guard ends
	park     *parked    // frames that wait for a restore
	exit     chan struct{}
	code     int
	clients  sync.WaitGroup
}

// socketPath is a name for the monitor's socket that is short enough whatever
// the root: sun_path holds 108 bytes (unix(7)). dir stays open meanwhile.
func (c *Container) socketPath() (path string, dir *os.File, err error) {
	dir, err = os.OpenFile(c.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/monitor.sock", dir, nil
}

// Listen opens the monitor's socket, in place of one that a killed monitor left.
func (m *Monitor) Listen() error {
	path, dir, err := m.c.socketPath()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := ignoreMissing(os.Remove(path)); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("open the monitor's socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // the name is gone with this descriptor's directory
	m.control = newControl(l)
	return nil
}

func newControl(l *net.UnixListener) *control {
	c := &control{listener: l, exit: make(chan struct{})}
	c.idle = sync.NewCond(&c.mu)
	return c
}

// dial connects to the monitor, or says that there is none.
func (c *Container) dial(r request) (*net.UnixConn, *bufio.Reader, error) {
	path, dir, err := c.socketPath()
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, &MonitorError{Name: c.Name, Err: err}
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		conn.Close()
		return nil, nil, &MonitorError{Name: c.Name, Err: err}
	}
	return conn, bufio.NewReader(conn), nil
}

// MonitorError says that a container's monitor is gone, or does not answer.
type MonitorError struct {
	Name string
	Err  error
}

func (e *MonitorError) Error() string {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, unix.EPIPE, unix.ECONNRESET, unix.ECONNREFUSED} {
		if errors.Is(e.Err, end) {
			return fmt.Sprintf("talk to the monitor of container %s: it is gone", e.Name)
		}
	}
	return fmt.Sprintf("talk to the monitor of container %s: %v", e.Name, e.Err)
}

// Hint says what to do about it.
func (e *MonitorError) Hint() string {
	return "it was killed, or has failed; `crucible list` shows what has become of the container"
}

func (e *MonitorError) Unwrap() error { return e.Err }

func hearReply(r *bufio.Reader) (reply, error) {
	var answer reply
	line, err := r.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &answer)
	}
	if err != nil {
		return answer, fmt.Errorf("hear from the monitor: %w", err)
	}
	if answer.Init != nil {
		return answer, answer.Init
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

func say(conn *net.UnixConn, err error) {
	var answer reply
	if err != nil {
		answer.Error = err.Error()
		errors.As(err, &answer.Init)
	}
	_ = json.NewEncoder(conn).Encode(answer)
}

func (c *control) serve(m *Monitor) {
	for {
		conn, err := c.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		c.clients.Add(1)
		go func() {
			defer c.clients.Done()
			defer conn.Close()
			c.client(m, conn)
		}()
	}
}

func (c *control) client(m *Monitor, conn *net.UnixConn) {
	r := bufio.NewReader(conn)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return
	}
	var q request
	if err := json.Unmarshal(line, &q); err != nil {
		say(conn, fmt.Errorf("not understood: %w", err))
		return
	}
	switch q.Op {
	case opStart:
		err := m.Go()
		if err != nil { // the next command is to see that it has ended
			_ = m.group.Kill(context.Background())
			<-c.exit
		}
		say(conn, err)
	case opAttach:
		c.attach(m, conn, r, q)
	case opGuard:
		c.serveGuard(m, conn, q)
	case opTake:
		c.serveTake(conn)
	case opWait:
		c.serveWait(conn, r)
	default:
		say(conn, fmt.Errorf("unknown request %q", q.Op))
	}
}

// serveWait answers when the container has ended, unless the client goes before.
func (c *control) serveWait(conn *net.UnixConn, r *bufio.Reader) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = r.ReadByte()
	}()
	select {
	case <-c.exit:
		say(conn, nil)
		conn.Close()
		<-gone
	case <-gone:
	}
}

// ended tells the clients that the container is gone.
func (c *control) ended(code int) {
	if c == nil {
		return
	}
	c.code = code
	close(c.exit)
}

func (c *control) close() {
	if c == nil {
		return
	}
	c.listener.Close()
	c.clients.Wait()
}

// Frames carry an attached terminal: a kind, a length, and that many bytes.
const (
	frameInput  = 0 // client: bytes for the container
	frameStdout = 1 // monitor
	frameStderr = 2 // monitor
	frameExit   = 3 // monitor: the exit status in decimal; the last frame
	frameResize = 4 // client: "ROWS COLUMNS"
	frameEnd    = 5 // client: end of input
)

func writeFrame(w io.Writer, kind byte, data []byte) error {
	head := []byte{kind, byte(len(data) >> 24), byte(len(data) >> 16), byte(len(data) >> 8), byte(len(data))}
	_, err := w.Write(append(head, data...))
	return err
}

func readFrame(r io.Reader) (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(head[1])<<24 | int(head[2])<<16 | int(head[3])<<8 | int(head[4])
	if n < 0 || n > 1<<20 {
		return 0, nil, fmt.Errorf("frame of %d bytes is too large", n)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(r, data)
	return head[0], data, err
}
