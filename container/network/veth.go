package network

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// wires are the two ends from which a pair is made.
type wires struct {
	hostNS       *os.File
	host, inside *socket
}

func openWires(ns *os.File) (w wires, err error) {
	if w.hostNS, err = openOwn(); err == nil {
		w.host, err = dial(unix.NETLINK_ROUTE)
	}
	if err == nil {
		w.inside, err = dialIn(ns, unix.NETLINK_ROUTE)
	}
	if err != nil {
		w.close()
	}
	return w, err
}

func (w wires) close() {
	if w.hostNS != nil {
		w.hostNS.Close()
	}
	if w.host != nil {
		w.host.Close()
	}
	if w.inside != nil {
		w.inside.Close()
	}
}

// makeLink makes the pair from inside the container: only there can the kernel
// be asked for an index. The host end cannot be up from the start (veth_open
// returns ENOTCONN until the pair is complete).
func (a *Attachment) makeLink(o Options, w wires, b bridge) error {
	h, c := w.host, w.inside
	mtu := a.MTU
	if mtu == 1500 {
		mtu = 0
	}
	err := c.do(newVeth(
		vethEnd{Name: a.Link, Index: a.Index, MAC: a.MAC, MTU: mtu, Up: true},
		vethEnd{Name: a.HostLink, MTU: mtu, NS: w.hostNS}))
	if err != nil {
		if taken := indexTaken(c, a.Link, a.Index); taken != nil {
			return taken
		}
		return fmt.Errorf("make link %s: %w", a.HostLink, err)
	}
	if a.HostIndex, err = h.joinBridge(a.HostLink, b, portAlias(o.Root, a.Name)); err != nil {
		return err
	}
	if o.Quiet {
		if err := h.do(setPortState(a.HostIndex, portListening)); err != nil {
			return fmt.Errorf("keep link %s quiet: %w", a.HostLink, err)
		}
	} else if b.Idle {
		if err := awaitUp(nil, h, b.Name); err != nil {
			return err
		}
	}
	if err := awaitUp(o.NS, c, a.Link); err != nil {
		return err
	}
	if o.Like != nil {
		return nil
	}
	return a.address(c)
}

// joinBridge makes a fresh veth end on the host a port, up and with a carrier.
func (s *socket) joinBridge(name string, b bridge, alias string) (index int, err error) {
	var end linkInfo
	results, err := s.exchange([]*nl.NetlinkRequest{noIPv6(name), joinBridge(name, b.Index, alias), getLink(name)}, func(r reply) {
		if r.kind == unix.RTM_NEWLINK {
			end, _ = parseLink(r.data)
		}
	})
	if err != nil {
		return 0, err
	}
	if errors.Is(results[0], unix.EAFNOSUPPORT) { // a kernel without IPv6 needs none turned off
		results[0] = nil
	}
	if err := cmp.Or(results...); err != nil {
		return 0, fmt.Errorf("join bridge %s: %w", b.Name, err)
	}
	if !end.Operating {
		err = awaitUp(nil, s, name)
	}
	return end.Index, err
}

// indexTaken explains an EEXIST.
func indexTaken(c *socket, name string, index int) error {
	links, _ := c.allLinks()
	for _, l := range links {
		if l.Index == index {
			return &IndexTaken{Link: name, Index: index, By: l.Name}
		}
	}
	return nil
}

// awaitUp waits until the kernel has noticed that the link has a carrier. Until
// then its queue is "noop" and swallows what is sent.
//
// From Linux 6.8 on it never waits: RTM_GETLINK itself makes the kernel notice
// (facd15dfd691, "net: core: synchronize link-watch when carrier is queried").
// Before, the work queue does it, and says so in a notification.
func awaitUp(ns *os.File, s *socket, name string) error {
	const patience = 2 * time.Second
	if l, _, err := s.link(name); err != nil || l.Operating {
		return err
	}
	news, err := dialIn(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer news.Close()
	if err := unix.Bind(news.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		return fmt.Errorf("listen for link changes: %w", err)
	}
	deadline := time.Now().Add(patience)
	for {
		l, found, err := s.link(name)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("link %s: gone", name)
		}
		if l.Operating {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("link %s: no carrier after %s", name, patience)
		}
		fds := []unix.PollFd{{Fd: int32(news.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(left.Milliseconds())+1); n > 0 && err == nil {
			if _, err := news.receive(); err != nil {
				return err
			}
		}
	}
}
