package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Delivered says what became of the parked frames.
type Delivered struct {
	Frames int `json:"frames"`
	Bytes  int `json:"bytes"`
	Lost   int `json:"lost,omitempty"` // did not fit, or could not be sent
}

// Deliver ends the parking in favour of an attachment with the same MAC: the
// restored container's, or the original's when it runs on. The processes run
// (or are about to), their sockets exist. It takes 0.3 ms, 2 us per frame, and
// a millisecond at its end during which everything flows already; what is slow
// about the end is left to Close.
//
// With CRIU the moment is its network-unlock notification: sockets exist, and
// are about to leave repair mode, at which the kernel sends a window probe for
// each. Later is right too, but costs those probes.
//
// First the host end is activated, so that answers get out while new frames
// still go to the stand-in; then the parked ones are sent into the host end and
// so come out of eth0; then the bridge is told where the MAC is now; then what
// came in between. Frames arrive in the order in which they were sent, except
// for a few microseconds at the switch.
func (p *Parking) Deliver(ctx context.Context, to *Attachment) (Delivered, error) {
	var d Delivered
	if p == nil {
		return d, to.Activate(ctx)
	}
	if !p.For(to) {
		return d, fmt.Errorf("deliver parked frames of %s: %s on %s is not the same container's end", p.Attachment.Name, to.MAC, to.Bridge)
	}
	if err := to.Activate(ctx); err != nil || p.over {
		return d, err
	}
	var err error
	if p.out, err = packetSocket(to.HostIndex, 0, nil); err != nil {
		return d, errors.Join(fmt.Errorf("deliver parked frames: %w", err), p.turnTo(to))
	}
	buf := make([]byte, 256<<10)
	d.move(p.sock, p.out, to.HostIndex, buf)
	if err := p.turnTo(to); err != nil {
		return d, err
	}
	d.move(p.sock, p.out, to.HostIndex, buf)
	// A frame may have been on its way to the stand-in, on another CPU, when the
	// entry was switched. Nothing announces that it was the last.
	p.awaitFrame(time.Millisecond)
	d.move(p.sock, p.out, to.HostIndex, buf)
	if st, err := unix.GetsockoptTpacketStats(int(p.sock.Fd()), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		d.Lost += int(st.Drops)
	}
	return d, p.forget(ctx)
}

// For tells whether the frames are meant for this attachment: a container that
// comes back with another address has none that are.
func (p *Parking) For(to *Attachment) bool {
	return to.MAC == p.Attachment.MAC && to.Bridge == p.Attachment.Bridge
}

// turnTo makes the bridge forward to the attachment again. The entry is an
// ordinary one, as if the bridge had learned it.
func (p *Parking) turnTo(to *Attachment) error {
	if err := p.host.do(fdbEntry(to.HostIndex, to.MAC, false), setPortState(p.Index, portListening)); err != nil {
		return fmt.Errorf("turn %s back to link %s: %w", to.MAC, to.HostLink, err)
	}
	return nil
}

// Stop ends the parking and forgets the frames: for a container that does not
// come back. One that goes on running wants Deliver.
func (p *Parking) Stop(ctx context.Context) error {
	if p == nil || p.host == nil || p.over {
		return nil
	}
	err := p.host.do(deleteFDBEntry(p.Index, p.Attachment.MAC), setPortState(p.Index, portListening))
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("stop parking for %s: %w", p.Attachment.Name, err)
	}
	return p.forget(ctx)
}

// forget takes the stand-in out of the lease: from now on it is only the
// container's own link that keeps it alive.
func (p *Parking) forget(ctx context.Context) error {
	p.over = true
	all, err := lockLeases(context.WithoutCancel(ctx), p.Attachment.Root)
	if err != nil {
		return err
	}
	defer all.unlock()
	return p.inLease(all, "")
}

func (p *Parking) awaitFrame(patience time.Duration) {
	fds := []unix.PollFd{{Fd: int32(p.sock.Fd()), Events: unix.POLLIN}}
	unix.Poll(fds, int(patience.Milliseconds()))
}

const vnetHeader = 10 // struct virtio_net_hdr

// move sends every frame that is in one packet socket by the other.
func (d *Delivered) move(from, to *os.File, index int, buf []byte) {
	in, out := int(from.Fd()), int(to.Fd())
	for {
		n, _, err := unix.Recvfrom(in, buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return // EAGAIN: that was all
		}
		if n < vnetHeader+14 || n > len(buf) {
			d.Lost++
			continue
		}
		kind := binary.NativeEndian.Uint16(buf[vnetHeader+12:]) // as it is on the wire
		if unix.Sendto(out, buf[:n], 0, &unix.SockaddrLinklayer{Protocol: kind, Ifindex: index}) != nil {
			d.Lost++
			continue
		}
		d.Frames++
		d.Bytes += n - vnetHeader
	}
}
