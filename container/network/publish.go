package network

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// portsFree checks the wanted ports against the other containers' and against
// the host's own programs: a listener whose port we take would go deaf.
func portsFree(name string, want []Port, all *leases, alive func(lease) bool) error {
	others, err := all.all("")
	if err != nil {
		return err
	}
	for _, e := range others {
		for _, q := range e.Publish {
			for _, p := range want {
				if e.Name != name && p.overlaps(q) && alive(e) {
					return &PortInUse{Port: p, By: "container " + e.Name}
				}
			}
		}
	}
	for _, p := range want {
		if err := tryBind(p); errors.Is(err, unix.EADDRINUSE) {
			return &PortInUse{Port: p, By: "a program on the host"}
		} else if err != nil {
			return fmt.Errorf("publish %s: %w", p, err)
		}
	}
	return nil
}

func tryBind(p Port) error {
	kind := unix.SOCK_STREAM
	if p.Protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if kind == unix.SOCK_STREAM {
		// A listener still refuses us; connections in TIME_WAIT do not.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	to := &unix.SockaddrInet4{Port: int(p.HostPort)}
	if p.HostIP.IsValid() {
		to.Addr = p.HostIP.As4()
	}
	return unix.Bind(fd, to)
}

// publishAll makes the host lead exactly the ports of the living leases.
func publishAll(h *socket, all *leases, bridge string) error {
	leases, err := all.all(bridge)
	if err != nil {
		return err
	}
	living := leases[:0]
	for _, e := range leases {
		if len(e.Publish) > 0 && e.alive(h) {
			living = append(living, e)
		}
	}
	n := nat{Table: tableName(bridge), Bridge: bridge}
	return n.publish(living)
}
