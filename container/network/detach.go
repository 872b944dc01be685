package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Activate lets frames pass a quiet host end, or one that a parking has muted. ~40 us.
func (a *Attachment) Activate(ctx context.Context) error {
	if a == nil || a.Mode != ModeBridge {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.do(setPortState(a.HostIndex, portForwarding)); err != nil {
		return fmt.Errorf("activate link %s: %w", a.HostLink, err)
	}
	// The bridge has a carrier while one of its ports forwards. If this is
	// the first, what the host sends now would be swallowed.
	return awaitUp(nil, h, a.Bridge)
}

// Detach gives back what Attach took: the address and the published ports. It
// may be called again, by another process, and after a crash. ~0.2 ms.
//
// The veth itself is only muted. It goes when the kernel buries the container's
// namespace, in the background; deleting it here would cost 10 to 30 ms
// (unregister_netdevice waits for several RCU grace periods). A bridge of ours
// stays too: Sweep takes it down when nobody is on it.
func (a *Attachment) Detach(ctx context.Context) error {
	if a == nil || a.Mode != ModeBridge {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	h, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	all, err := lockLeases(ctx, a.Root)
	if err != nil {
		return fmt.Errorf("detach network of %s: %w", a.Name, err)
	}
	defer all.unlock()
	if l, found, err := h.link(a.HostLink); err == nil && found {
		h.do(setPortState(l.Index, portListening)) // it may be half gone by now
	}
	e, err := all.get(a.Bridge, a.Address.Addr())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("detach network of %s: %w", a.Name, err)
	case e.Name != a.Name || e.Link != a.HostLink:
		return nil // it is somebody else's by now, perhaps our own restored self's
	case h.linkExists(e.StandIn):
		return nil // frames are being kept for it: it is coming back
	}
	if err := all.remove(e); err != nil {
		return fmt.Errorf("detach network of %s: %w", a.Name, err)
	}
	if len(e.Publish) > 0 {
		if err := publishAll(h, all, a.Bridge); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach network of %s: %w", a.Name, err)
		}
	}
	return nil
}

// Forget gives back what a container has that is not coming back: Detach
// leaves it the lease while frames are being kept for it, and Sweep while its
// link is there, which the kernel buries in its own time.
func Forget(ctx context.Context, root, name string) error {
	h, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	all, err := lockLeases(ctx, root)
	if err != nil {
		return fmt.Errorf("forget network of %s: %w", name, err)
	}
	defer all.unlock()
	leases, err := all.all("")
	if err != nil {
		return fmt.Errorf("forget network of %s: %w", name, err)
	}
	for _, e := range leases {
		if e.Name != name {
			continue
		}
		err := all.remove(e)
		if err == nil && len(e.Publish) > 0 {
			err = publishAll(h, all, e.Bridge)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget network of %s: %w", name, err)
		}
	}
	return nil
}

// Swept is what Sweep found to do.
type Swept struct {
	Leases  []string `json:"leases,omitempty"`  // containers whose leases were dead
	Links   []string `json:"links,omitempty"`   // host ends that nobody owned
	Bridges []string `json:"bridges,omitempty"` // bridges that were taken down
}

// Sweep reclaims the leases of dead containers and takes each bridge of ours, its
// nftables table and ip_forward back when no container is left. It costs about
// 60 ms when there is a bridge to delete (RCU grace periods again), and nothing to speak of otherwise:
// call it where nobody waits, for example when a monitor ends.
func Sweep(ctx context.Context, root string) (Swept, error) {
	var s Swept
	h, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return s, err
	}
	defer h.Close()
	all, err := lockLeases(ctx, root)
	if err != nil {
		return s, fmt.Errorf("sweep networks: %w", err)
	}
	defer all.unlock()
	if err := s.sweep(root, h, all); err != nil {
		return s, fmt.Errorf("sweep networks: %w", err)
	}
	return s, nil
}

func (s *Swept) sweep(root string, h *socket, all *leases) error {
	leases, err := all.all("")
	if err != nil {
		return err
	}
	found, err := h.allLinks()
	if err != nil {
		return err
	}
	links := map[string]linkInfo{}
	for _, l := range found {
		links[l.Name] = l
	}
	owned, busy, stale := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, e := range leases {
		_, linked := links[e.Link]
		_, parked := links[e.StandIn]
		if linked || parked {
			owned[e.Link], owned[e.StandIn], busy[e.Bridge] = true, true, true
			continue
		}
		if err := all.remove(e); err != nil {
			return err
		}
		s.Leases = append(s.Leases, e.Name)
		stale[e.Bridge] = stale[e.Bridge] || len(e.Publish) > 0
	}
	for name, l := range links {
		mark, ok := parseAlias(l.Alias)
		if !ok || mark.Root != rootKey(root) {
			continue
		}
		if busy[name] {
			if stale[name] {
				if err := publishAll(h, all, name); err != nil {
					return err
				}
			}
			continue
		}
		// Read again: of a bridge that went before it may have inherited ip_forward.
		now, _, err := h.link(name)
		if err != nil {
			return err
		}
		if mark, ok = parseAlias(now.Alias); !ok {
			continue
		}
		if err := removeBridge(h, name, mark); err != nil {
			return err
		}
		s.Bridges = append(s.Bridges, name)
	}
	return s.sweepLinks(root, h, links, owned)
}

// sweepLinks deletes the host ends that no lease knows, all at once: those of
// containers that were detached, or that died, while something still holds
// their namespace.
func (s *Swept) sweepLinks(root string, h *socket, links map[string]linkInfo, owned map[string]bool) error {
	for name, l := range links {
		if owned[name] || !portOf(l, root) {
			continue
		}
		if err := h.do(deleteLink(name)); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete link %s: %w", name, err)
		}
		s.Links = append(s.Links, name)
	}
	return nil
}
