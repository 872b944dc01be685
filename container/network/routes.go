package network

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routes sends all routes, and those that were refused once more as long as
// that helps: a route by a gateway needs the one that leads to the gateway.
func (r *rebuild) routes() error {
	var reqs []*nl.NetlinkRequest
	var texts []string
	for _, saved := range r.saved.Routes {
		p, err := parse(saved.Raw, routeHeader)
		if err != nil {
			return err
		}
		if r.link != nil && !r.moveRoute(&p) {
			r.warn("route", saved.Text, "left out: it leads to the old subnet")
			continue
		}
		clearNexthopState(&p)
		reqs, texts = append(reqs, request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, p)), append(texts, saved.Text)
	}
	for len(reqs) > 0 {
		results, err := r.c.try(reqs...)
		if err != nil {
			return err
		}
		var left []*nl.NetlinkRequest
		var leftTexts []string
		var first error
		for i, err := range results {
			if err == nil || errors.Is(err, unix.EEXIST) {
				continue
			}
			if first == nil {
				first = fmt.Errorf("route %s: %w", texts[i], err)
			}
			left, leftTexts = append(left, reqs[i]), append(leftTexts, texts[i])
		}
		if len(left) == len(reqs) {
			return first
		}
		reqs, texts = left, leftTexts
	}
	return nil
}

// moveRoute turns a route of the attached link to the new address and gateway.
func (r *rebuild) moveRoute(p *parsed) bool {
	a := r.o.Attachment
	if p.u32(unix.RTA_OIF) != r.link.Index {
		return p.get(unix.RTA_MULTIPATH) == nil || !r.moved()
	}
	if r.moved() && p.addr(unix.RTA_PREFSRC) == r.old.Addr() {
		p.set(unix.RTA_PREFSRC, r.now.Addr().AsSlice())
	}
	gateway := p.addr(unix.RTA_GATEWAY)
	if !gateway.Is4() {
		return true
	}
	if gateway == r.saved.Gateway && a.Gateway.IsValid() {
		p.set(unix.RTA_GATEWAY, a.Gateway.AsSlice())
		return true
	}
	return !r.moved() || r.now.Contains(gateway)
}

// clearNexthopState removes what the kernel reports and does not accept: that a
// next hop is dead or its link down (fib_create_info: "can not contain
// DEAD/LINKDOWN"), and offload marks.
func clearNexthopState(p *parsed) {
	const state = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN | unix.RTNH_F_OFFLOAD | unix.RTNH_F_UNRESOLVED
	binary.NativeEndian.PutUint32(p.header[8:], nativeU32(p.header[8:])&^state)
	hops := append([]byte(nil), p.get(unix.RTA_MULTIPATH)...)
	for b := hops; len(b) >= unix.SizeofRtNexthop; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		b[2] &^= state & 0xff
		b = b[min(len(b), (n+3)&^3):]
	}
	if len(hops) > 0 {
		p.set(unix.RTA_MULTIPATH, hops)
	}
}
