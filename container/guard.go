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
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/network"
)

// parkLimit is how long frames are kept for a restore that does not come. A
// TCP peer gives up later than that, but what it sent is sent again anyway.
const parkLimit = 60 * time.Second

// guardNote is what a checkpoint tells the monitor on a guard connection.
type guardNote struct {
	Parking *network.Parking `json:"parking,omitempty"` // its descriptors come along
	Done    bool             `json:"done,omitempty"`
	Stopped bool             `json:"stopped,omitempty"` // with Done: the tasks are gone, keep the frames
}

// Guard is a checkpoint's hold on a container. As long as it is open the
// container may be frozen and its packets may be parked; if it is closed
// without Done, because the command failed or was killed, the monitor thaws
// the container and gives it its packets.
type Guard struct {
	name string
	conn *net.UnixConn
	r    *bufio.Reader
}

// Guard opens one. There can be one at a time: a second checkpoint is refused.
// A container that was frozen before stays so whatever happens.
func (c *Container) Guard(frozen bool) (*Guard, error) {
	conn, r, err := c.dial(request{Op: opGuard, Frozen: frozen})
	if err != nil {
		return nil, err
	}
	if _, err := hearReply(r); err != nil {
		conn.Close()
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	return &Guard{c.Name, conn, r}, nil
}

func (g *Guard) tell(n guardNote, files []*os.File) error {
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := g.conn.WriteMsgUnix(append(line, '\n'), oob, nil); err != nil {
		return &MonitorError{Name: g.name, Err: err}
	}
	if _, err = hearReply(g.r); errors.Is(err, io.EOF) {
		return &MonitorError{Name: g.name, Err: err}
	}
	return err
}

// Park gives the monitor a share in the parked frames.
func (g *Guard) Park(p *network.Parking) error {
	return g.tell(guardNote{Parking: p}, p.Files())
}

// Done ends the guard in good order. With stopped the monitor keeps the parked
// frames for a restore; else the caller has delivered them itself.
func (g *Guard) Done(stopped bool) error {
	err := g.tell(guardNote{Done: true, Stopped: stopped}, nil)
	return errors.Join(err, g.conn.Close())
}

// File is a second descriptor of the guard's connection. Whoever holds one
// keeps the guard open: CRIU does, because the tasks must not be thawed under
// its hands when only the command was killed.
func (g *Guard) File() (*os.File, error) { return g.conn.File() }

// Close drops the guard: unless it was Done, the monitor undoes.
func (g *Guard) Close() error { return ignoreClosed(g.conn.Close()) }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// guard is the monitor's side of a Guard.
type guard struct {
	parking *network.Parking
	frozen  bool    // by the user, before
	command Process // who opened it; CRIU may hold it for longer
}

// serveGuard follows one checkpoint to its end.
func (c *control) serveGuard(m *Monitor, conn *net.UnixConn, q request) {
	g := &guard{frozen: q.Frozen, command: peer(conn)}
	if !c.takeGuard(g) {
		say(conn, errors.New("another checkpoint of it is under way"))
		return
	}
	say(conn, nil)
	stopped, done := g.follow(m, conn)
	if !done {
		m.undoCheckpoint(g)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guard = nil
	c.idle.Broadcast()
	if done && stopped && g.parking != nil {
		c.park = &parked{parking: g.parking, taken: make(chan struct{})}
	} else if g.parking != nil {
		g.parking.Close()
	}
	if done {
		say(conn, nil)
	}
}

// orphanLimit is how long a checkpoint may live on whose command was killed.
const orphanLimit = 10 * time.Second

// takeGuard makes g the one guard. One whose command was killed is on its way
// out, and waited for.
func (c *control) takeGuard(g *guard) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	late := false
	defer time.AfterFunc(orphanLimit, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		late = true
		c.idle.Broadcast()
	}).Stop()
	for c.guard != nil {
		if late || c.guard.command.Alive() {
			return false
		}
		c.idle.Wait()
	}
	c.guard = g
	return true
}

// peer is the process at the other end of a connection.
func peer(conn *net.UnixConn) (p Process) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p, _ = ProcessOf(int(cred.Pid))
		}
	})
	return p
}

// follow hears what the checkpoint has to say, until Done or the end.
func (g *guard) follow(m *Monitor, conn *net.UnixConn) (stopped, done bool) {
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*8))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return false, false
		}
		files, _ := rights(oob[:oobn])
		var note guardNote
		if err := json.Unmarshal(buf[:n], &note); err != nil {
			return false, false
		}
		if note.Done {
			return note.Stopped, true
		}
		if note.Parking != nil {
			g.parking, err = m.openParking(files, note.Parking)
		}
		say(conn, err)
	}
}

// undoCheckpoint lets the container go on as if nothing had happened.
func (m *Monitor) undoCheckpoint(g *guard) {
	p := g.parking
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Before the tasks run, as far as they stand still.
	_ = m.OnHost(m.c.ReleaseConnections)
	if m.group != nil && !g.frozen {
		_ = m.group.Thaw(ctx)
	}
	_ = m.OnHost(func() error {
		if err := m.c.Reload(); err == nil && m.c.State.Attachment != nil {
			_, _ = p.Deliver(ctx, m.c.State.Attachment)
		}
		return p.Stop(ctx)
	})
}

// OnHost runs a function in the host's network namespace; a monitor stands in
// the container's.
func (m *Monitor) OnHost(f func() error) error { return network.Do(m.hostNet, f) }

// openParking takes a share in a parking that another process prepared.
func (m *Monitor) openParking(files []*os.File, p *network.Parking) (out *network.Parking, err error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	err = m.OnHost(func() error { out, err = network.OpenParking(files, data); return err })
	return out, err
}

// parked are frames that a stopped container's monitor keeps for its restore.
type parked struct {
	parking *network.Parking
	taken   chan struct{}
}

// parked returns what is kept once the container has ended. A checkpoint that
// stopped it may still have to say so: that is waited for.
func (c *control) parked() *parked {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.guard != nil {
		c.idle.Wait()
	}
	return c.park
}

// wait keeps the frames until they are taken or too old.
func (p *parked) wait(m *Monitor) {
	select {
	case <-p.taken:
		p.parking.Close()
	case <-time.After(parkLimit):
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = m.OnHost(func() error { return p.parking.Stop(ctx) })
	}
}

// serveTake hands the parked frames to a restore.
func (c *control) serveTake(conn *net.UnixConn) {
	p := c.parked()
	if p == nil {
		say(conn, errors.New("no frames are parked"))
		return
	}
	line, err := json.Marshal(p.parking)
	if err != nil {
		say(conn, err)
		return
	}
	var fds []int
	for _, f := range p.parking.Files() {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := conn.WriteMsgUnix(append(line, '\n'), unix.UnixRights(fds...), nil); err == nil {
		close(p.taken)
	}
}

// TakeParked fetches the frames that were parked when the container was
// checkpointed; nil when there are none. The monitor that kept them ends upon
// it. That is not waited for: it takes a while, and somebody is waiting.
func (c *Container) TakeParked() (*network.Parking, error) {
	if c.State.Recorded != Stopped || !c.State.Monitor.Alive() {
		return nil, nil
	}
	conn, _, err := c.dial(request{Op: opTake})
	if err != nil {
		return nil, nil // it ended just now
	}
	defer conn.Close()
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil
	}
	files, err := rights(oob[:oobn])
	if err != nil || len(files) == 0 {
		return nil, nil
	}
	p, err := network.OpenParking(files, buf[:n])
	if err != nil {
		return nil, fmt.Errorf("take the parked frames of container %s: %w", c.Name, err)
	}
	return p, nil
}

// TakeParked fetches what the container's former monitor keeps for it.
func (m *Monitor) TakeParked() (p *network.Parking, err error) {
	former := *m.c
	former.State.Monitor = m.former
	err = m.OnHost(func() error { p, err = former.TakeParked(); return err })
	return p, err
}
