package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A lease says who has an address: the file <root>/network/<bridge>/<address>.
//
// It is alive as long as one of its links is: the kernel takes a veth away with
// the container's namespace, whoever crashed. A dead lease is not in the way of
// anybody who asks for its address; Sweep deletes it.
type lease struct {
	Name    string `json:"name"`
	Link    string `json:"link"`              // the host end
	StandIn string `json:"standIn,omitempty"` // the port that keeps frames meanwhile
	Publish []Port `json:"publish,omitempty"`

	Bridge  string     `json:"-"`
	Address netip.Addr `json:"-"`
}

// leases is the directory of all leases of a state root, locked.
type leases struct {
	dir  string
	lock *os.File
}

// lockLeases takes the lock of <root>/network. A command that dies lets go of it.
func lockLeases(ctx context.Context, root string) (*leases, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, "network")
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make lease directory: %w", err)
		}
		f, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("open lease lock: %w", err)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return &leases{dir, f}, nil
	}
	locked := make(chan error, 1)
	go func() {
		for {
			err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
			if err != unix.EINTR {
				locked <- err
				return
			}
		}
	}()
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock leases: %w", err)
		}
		return &leases{dir, f}, nil
	case <-ctx.Done():
		go func() { <-locked; f.Close() }()
		return nil, fmt.Errorf("lock leases: %w", ctx.Err())
	}
}

func (l *leases) unlock() { l.lock.Close() }

func (l *leases) path(bridge string, a netip.Addr) string {
	return filepath.Join(l.dir, bridge, a.String())
}

// get returns fs.ErrNotExist where nobody has the address.
func (l *leases) get(bridge string, a netip.Addr) (lease, error) {
	b, err := os.ReadFile(l.path(bridge, a))
	if err != nil {
		return lease{}, err
	}
	return parseLease(b, bridge, a), nil
}

// parseLease reads a lease; what cannot be read is one without links: dead.
func parseLease(b []byte, bridge string, a netip.Addr) lease {
	var e lease
	if json.Unmarshal(b, &e) != nil {
		e = lease{Name: "?"}
	}
	e.Bridge, e.Address = bridge, a
	return e
}

// put writes a lease. It is not written aside and renamed: we hold the lock, and
// of a command that dies in between a file remains that cannot be read, which
// counts as a dead lease. (A rename would cost as much again.)
func (l *leases) put(e lease) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := l.path(e.Bridge, e.Address)
	err = os.WriteFile(path, b, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make lease directory: %w", err)
		}
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write lease of %s: %w", e.Address, err)
	}
	return nil
}

func (l *leases) remove(e lease) error {
	err := os.Remove(l.path(e.Bridge, e.Address))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove lease of %s: %w", e.Address, err)
	}
	return nil
}

// all returns the leases of one bridge, or with "" of every bridge.
func (l *leases) all(bridge string) ([]lease, error) {
	bridges := []string{bridge}
	if bridge == "" {
		entries, err := os.ReadDir(l.dir)
		if err != nil {
			return nil, fmt.Errorf("list leases: %w", err)
		}
		bridges = nil
		for _, e := range entries {
			if e.IsDir() {
				bridges = append(bridges, e.Name())
			}
		}
	}
	var found []lease
	for _, b := range bridges {
		entries, err := os.ReadDir(filepath.Join(l.dir, b))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list leases: %w", err)
		}
		for _, f := range entries {
			a, err := netip.ParseAddr(f.Name())
			if err != nil {
				continue
			}
			e, err := l.get(b, a)
			if err != nil {
				return nil, err
			}
			found = append(found, e)
		}
	}
	return found, nil
}

// take makes e the lease of its address. A container may take over its own: a
// restore begins while the kernel still buries the killed original's link.
func (l *leases) take(e lease, alive func(lease) bool) error {
	old, err := l.get(e.Bridge, e.Address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case old.Name != e.Name && alive(old):
		return &AddressInUse{Address: e.Address, By: old.Name}
	case old.Name == e.Name:
		e.StandIn = old.StandIn
	}
	return l.put(e)
}

// choose finds a free address for e and takes it. It starts after the address
// that was chosen last, so that an address is not used again at once: peers of
// the old container may still be talking to it. Dead leases come last.
func (l *leases) choose(e lease, gateway netip.Prefix, alive func(lease) bool) (lease, error) {
	subnet := gateway.Masked()
	last := l.cursor(subnet)
	for _, reclaim := range []bool{false, true} {
		a := last
		for {
			if a = a.Next(); !subnet.Contains(a) {
				a = subnet.Addr()
			}
			if usable(a, gateway) == nil {
				old, err := l.get(e.Bridge, a)
				free := errors.Is(err, fs.ErrNotExist)
				if err != nil && !free {
					return e, err
				}
				if free || reclaim && !alive(old) {
					e.Address = a
					if err := l.put(e); err != nil {
						return e, err
					}
					return e, l.setCursor(subnet, a)
				}
			}
			if a == last {
				break
			}
		}
	}
	return e, &NoFreeAddress{Subnet: subnet}
}

// usable refuses the addresses of a subnet that no container can have.
func usable(a netip.Addr, gateway netip.Prefix) error {
	subnet := gateway.Masked()
	reserved := subnet.Bits() < 31 && (a == subnet.Addr() || a == lastOf(subnet))
	if !subnet.Contains(a) || a == gateway.Addr() || reserved {
		return &AddressOutside{Address: a, Subnet: subnet}
	}
	return nil
}

// cursor is the address chosen last in the subnet; the lock file holds a line for
// each. Anything else there, and a subnet's first address is where we start.
func (l *leases) cursor(subnet netip.Prefix) netip.Addr {
	for _, a := range l.cursors() {
		if subnet.Contains(a) {
			return a
		}
	}
	return subnet.Addr()
}

// maxCursors bounds the lock file. Of subnets that are left out it is forgotten
// where to go on, which does no harm.
const maxCursors = 64

func (l *leases) cursors() (all []netip.Addr) {
	var b [16 * maxCursors]byte
	n, _ := l.lock.ReadAt(b[:], 0)
	for line := range strings.Lines(string(b[:n])) {
		if a, err := netip.ParseAddr(strings.TrimSpace(line)); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// setCursor puts the address in front, in the place of its subnet's last. Lines
// are of one length: what a shorter text leaves behind it are lines, too.
func (l *leases) setCursor(subnet netip.Prefix, a netip.Addr) error {
	text := fmt.Sprintf("%-15s\n", a)
	for i, other := range l.cursors() {
		if i < maxCursors-1 && !subnet.Contains(other) {
			text += fmt.Sprintf("%-15s\n", other)
		}
	}
	if _, err := l.lock.WriteAt([]byte(text), 0); err != nil {
		return fmt.Errorf("remember last address: %w", err)
	}
	return nil
}
