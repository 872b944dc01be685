package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Release gives processes back the TCP connections that a killed CRIU left in
// its hands. While it saves a connection it has the socket in repair mode
// (tcp_repair in net/ipv4/tcp.c), in which nothing is sent and a recv says
// EPERM; that is a state of the socket and outlives who set it. A process that
// is in a recv at the moment at which CRIU dies sees the EPERM all the same.
//
// With locked CRIU had its own network lock, which is a table of packet filter
// rules in the caller's network namespace. It is removed, too; those of other
// CRIUs stay.
func Release(pids []int, locked bool) error {
	var errs []error
	var conns []connection
	seen := map[string]bool{}
	for _, pid := range pids {
		some, err := releaseProcess(pid, seen)
		conns, errs = append(conns, some...), append(errs, err)
	}
	if locked && len(conns) > 0 {
		errs = append(errs, unlock(conns))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release TCP connections: %w", err)
	}
	return nil
}

// connection is the two ends of one.
type connection struct{ local, remote netip.AddrPort }

// releaseProcess looks through one process's descriptors; those in seen are
// done.
func releaseProcess(pid int, seen map[string]bool) (conns []connection, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	names, err := readNames(dir)
	if err != nil {
		return nil, gone(err)
	}
	handle, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, gone(os.NewSyscallError("pidfd_open", err))
	}
	defer unix.Close(handle)
	for _, name := range names {
		link, err := os.Readlink(dir + "/" + name)
		if err != nil || !strings.HasPrefix(link, "socket:[") || seen[link] {
			continue
		}
		seen[link] = true
		number, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		fd, err := unix.PidfdGetfd(handle, number, 0)
		if err != nil {
			if err := gone(os.NewSyscallError("pidfd_getfd", err)); err != nil {
				return conns, err
			}
			continue
		}
		c, ok, err := releaseSocket(fd)
		unix.Close(fd)
		if err != nil {
			return conns, fmt.Errorf("process %d, descriptor %d: %w", pid, number, err)
		}
		if ok {
			conns = append(conns, c)
		}
	}
	return conns, nil
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// gone lets pass that a process has ended, or closed a descriptor, and a kernel
// before Linux 5.6, on which nothing can be done.
func gone(err error) error {
	for _, e := range []error{unix.ESRCH, unix.EBADF, os.ErrNotExist, unix.ENOSYS} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// releaseSocket ends a socket's repair mode. It is not ok where there is no
// connection.
func releaseSocket(fd int) (c connection, ok bool, err error) {
	repair, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
	if err != nil {
		return c, false, nil // not of TCP
	}
	if repair != 0 {
		// Off, without probing the peer's window: it may have sent meanwhile.
		err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
		if err == unix.EINVAL { // before Linux 4.19
			err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF)
		}
		if err != nil {
			return c, false, os.NewSyscallError("setsockopt TCP_REPAIR", err)
		}
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return c, false, nil
	}
	remote, err := unix.Getpeername(fd)
	if err != nil {
		return c, false, nil // it listens
	}
	return connection{endOf(local), endOf(remote)}, true, nil
}

func endOf(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// unlock removes the tables in which CRIU has locked any of the connections
// (criu/netfilter.c):
//
//	table inet CRIU-ID { set conns4 { ipv4_addr . inet_service . ipv4_addr . inet_service } ... }
func unlock(conns []connection) error {
	keys := map[string]bool{}
	for _, c := range conns {
		keys[lockKey(c.local, c.remote)] = true
	}
	n, err := nftables.New()
	if err != nil {
		return nil // then CRIU could lock nothing
	}
	tables, err := n.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil
	}
	for _, t := range tables {
		if !strings.HasPrefix(t.Name, "CRIU-") || !locks(n, t, keys) {
			continue
		}
		n.DelTable(t)
		if err := n.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete nftables table %s: %w", t.Name, err)
		}
	}
	return nil
}

func locks(n *nftables.Conn, t *nftables.Table, keys map[string]bool) bool {
	sets, err := n.GetSets(t)
	if err != nil {
		return false
	}
	for _, s := range sets {
		elements, err := n.GetSetElements(s)
		if err != nil {
			continue
		}
		for _, e := range elements {
			if keys[string(e.Key)] {
				return true
			}
		}
	}
	return false
}

// lockKey is a connection as an element of such a set: each field is padded to
// four bytes. To CRIU an IPv4 connection of an IPv6 socket is one of IPv4.
func lockKey(a, b netip.AddrPort) string {
	var key []byte
	for _, end := range []netip.AddrPort{a, b} {
		key = append(key, end.Addr().Unmap().AsSlice()...)
		key = append(binary.BigEndian.AppendUint16(key, end.Port()), 0, 0)
	}
	return string(key)
}
