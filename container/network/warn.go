package network

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// warn notes what is in the namespace and is not carried.
func (s *Saved) warn(c *socket) error {
	tables, err := nftTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		s.Warnings = append(s.Warnings, Warning{"nftables", t, "the container's own packet filter is not carried"})
	}
	if names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names"); err == nil {
		for _, t := range strings.Fields(string(names)) {
			s.Warnings = append(s.Warnings, Warning{"iptables", t, "the container's own packet filter is not carried"})
		}
	}
	qdiscs, err := c.list(dump(unix.RTM_GETQDISC, sizeofTcMsg))
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // a kernel without CONFIG_NET_SCHED has none
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	for _, r := range qdiscs {
		// struct tcmsg: family, pad, ifindex, handle, parent, info. What the
		// kernel attaches by itself has handle 0.
		if len(r.data) < sizeofTcMsg || nativeU32(r.data[8:]) == 0 {
			continue
		}
		kind := "?"
		eachAttr(r.data[sizeofTcMsg:], func(k uint16, v []byte) {
			if k == nl.TCA_KIND {
				kind = cString(v)
			}
		})
		s.Warnings = append(s.Warnings, Warning{"qdisc", fmt.Sprintf("%s on link %d", kind, nativeU32(r.data[4:])), "not carried"})
	}
	return nil
}

const sizeofTcMsg = 20

// nftTables lists the nftables tables of the calling thread's namespace.
func nftTables() ([]string, error) {
	c, err := dial(unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil // a kernel without netfilter has no tables
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	replies, err := c.list(dump(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, sizeofNfGenMsg))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // no nf_tables: nfnetlink knows no such subsystem
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	var names []string
	for _, r := range replies {
		if len(r.data) < sizeofNfGenMsg {
			continue
		}
		name := "?"
		eachAttr(r.data[sizeofNfGenMsg:], func(k uint16, v []byte) {
			if k == unix.NFTA_TABLE_NAME {
				name = cString(v)
			}
		})
		names = append(names, name)
	}
	return names, nil
}

const sizeofNfGenMsg = 4
