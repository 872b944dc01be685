package network

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Detail is one thing that the kernel shows of a namespace: an attribute of a
// link, an address, a route, a rule, a neighbour or a queueing discipline.
type Detail struct{ Key, Value string }

// Show lists all that the kernel tells about a namespace by rtnetlink, attribute
// by attribute, also those that are not known here: they have a number for a
// name and their bytes for a value. It is for comparing, where [Save] is for
// building again; packet filters appear with their names only.
func Show(ns *os.File) ([]Detail, error) {
	var all details
	err := Do(ns, func() error {
		c, err := dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer c.Close()
		links, _ := linkMessage(unix.RTM_GETLINK, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0)
		links.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
		for _, k := range []struct {
			what   string
			dump   *nl.NetlinkRequest
			header int
			show   func(*details, parsed)
		}{
			{"links", links, unix.SizeofIfInfomsg, (*details).link},
			{"addresses", dump(unix.RTM_GETADDR, addressHeader), addressHeader, (*details).address},
			{"routes", dump(unix.RTM_GETROUTE, routeHeader), routeHeader, (*details).route},
			{"rules", dump(unix.RTM_GETRULE, ruleHeader), ruleHeader, (*details).rule},
			{"neighbours", dump(unix.RTM_GETNEIGH, neighbourHeaderSize), neighbourHeaderSize, (*details).neighbour},
			{"queueing disciplines", dump(unix.RTM_GETQDISC, sizeofTcMsg), sizeofTcMsg, (*details).qdisc},
		} {
			replies, err := c.list(k.dump)
			if errors.Is(err, unix.EOPNOTSUPP) {
				continue
			}
			if err != nil {
				return fmt.Errorf("list %s: %w", k.what, err)
			}
			for _, r := range replies {
				p, err := parse(r.data, k.header)
				if err != nil {
					return fmt.Errorf("list %s: %w", k.what, err)
				}
				k.show(&all, p)
			}
		}
		tables, err := nftTables()
		for _, t := range tables {
			all.add("nftables["+t+"]", "there")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("show network: %w", err)
	}
	return all, nil
}

type details []Detail

func (d *details) add(key, value string) { *d = append(*d, Detail{key, value}) }

// attributes adds all of them. Some hold others, down to a depth.
func (d *details) attributes(prefix string, attrs []attribute, name func(uint16) string, depth func(uint16) int) {
	for _, a := range attrs {
		kind := a.kind & 0x3fff
		key := name(kind)
		if key == "" {
			key = number(kind)
		}
		key = prefix + "/" + key
		if below := depth(kind); below > 0 {
			if inner, err := parse(a.value, 0); err == nil {
				d.attributes(key, inner.attrs, number, func(uint16) int { return below - 1 })
				continue
			}
		}
		d.add(key, attributeText(a.value))
	}
}

// addressed is attributes for messages of which some attributes are addresses.
func (d *details) addressed(prefix string, attrs []attribute, name func(uint16) string, addresses ...uint16) {
	var rest []attribute
	for _, a := range attrs {
		kind := a.kind & 0x3fff
		address, ok := netip.AddrFromSlice(a.value)
		if !ok || !slices.Contains(addresses, kind) {
			rest = append(rest, a)
			continue
		}
		key := name(kind)
		if key == "" {
			key = number(kind)
		}
		d.add(prefix+"/"+key, address.String())
	}
	d.attributes(prefix, rest, name, flat)
}

func flat(uint16) int { return 0 }

func number(kind uint16) string { return strconv.Itoa(int(kind)) }

// attributeText is a number for what has the size of one, text for what is that.
func attributeText(b []byte) string {
	if n := len(b); n > 1 && b[n-1] == 0 && printableText(b[:n-1]) {
		return string(b[:n-1])
	}
	if len(b) == 4 {
		return strconv.FormatUint(uint64(binary.NativeEndian.Uint32(b)), 10)
	}
	return hex.EncodeToString(b)
}

func printableText(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(b) > 1
}

func (d *details) link(p parsed) {
	name := cString(p.get(unix.IFLA_IFNAME))
	key := "link[" + name + "]"
	d.add(key+"/index", fmt.Sprint(nativeU32(p.header[4:])))
	d.add(key+"/type", fmt.Sprint(binary.NativeEndian.Uint16(p.header[2:])))
	flags := nativeU32(p.header[8:])
	d.add(key+"/flags", fmt.Sprintf("%#x", flags&settable))
	d.add(key+"/carrier-flags", fmt.Sprintf("%#x", flags&^settable))
	d.attributes(key, p.attrs, linkAttribute, func(kind uint16) int {
		switch kind {
		case unix.IFLA_AF_SPEC, unix.IFLA_LINKINFO: // by family, and by kind
			return 2
		case unix.IFLA_XDP:
			return 1
		}
		return 0
	})
}

// linkAttribute names those of include/uapi/linux/if_link.h that people know,
// and those that the table of declared differences speaks of.
func linkAttribute(kind uint16) string {
	switch kind {
	case unix.IFLA_ADDRESS:
		return "mac"
	case unix.IFLA_BROADCAST:
		return "broadcast"
	case unix.IFLA_IFNAME:
		return "name"
	case unix.IFLA_MTU:
		return "mtu"
	case unix.IFLA_LINK:
		return "peer-index"
	case unix.IFLA_QDISC:
		return "qdisc"
	case unix.IFLA_STATS, unix.IFLA_STATS64:
		return "stats"
	case unix.IFLA_MASTER:
		return "master"
	case unix.IFLA_TXQLEN:
		return "queue"
	case unix.IFLA_MAP:
		return "map"
	case unix.IFLA_OPERSTATE:
		return "operstate"
	case unix.IFLA_LINKMODE:
		return "linkmode"
	case unix.IFLA_LINKINFO:
		return "info"
	case unix.IFLA_IFALIAS:
		return "alias"
	case unix.IFLA_AF_SPEC:
		return "family"
	case unix.IFLA_GROUP:
		return "group"
	case unix.IFLA_PROMISCUITY:
		return "promiscuity"
	case unix.IFLA_NUM_TX_QUEUES:
		return "tx-queues"
	case unix.IFLA_NUM_RX_QUEUES:
		return "rx-queues"
	case unix.IFLA_CARRIER:
		return "carrier"
	case unix.IFLA_CARRIER_CHANGES, unix.IFLA_CARRIER_UP_COUNT, unix.IFLA_CARRIER_DOWN_COUNT:
		return "carrier-changes"
	case unix.IFLA_LINK_NETNSID:
		return "peer-namespace"
	case unix.IFLA_XDP:
		return "xdp"
	case unix.IFLA_PERM_ADDRESS:
		return "permanent-mac"
	}
	return ""
}

func (d *details) address(p parsed) {
	key := "address[" + describeAddress(p) + "]"
	d.add(key+"/scope", fmt.Sprint(p.header[3]))
	d.addressed(key, p.attrs, func(kind uint16) string {
		switch kind {
		case unix.IFA_LABEL:
			return "label"
		case unix.IFA_FLAGS:
			return "flags"
		case unix.IFA_CACHEINFO:
			return "times"
		case unix.IFA_ADDRESS:
			return "address"
		case unix.IFA_LOCAL:
			return "local"
		case unix.IFA_BROADCAST:
			return "broadcast"
		}
		return ""
	}, unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST)
}

func (d *details) route(p parsed) {
	family := "inet"
	if p.header[0] == unix.AF_INET6 {
		family = "inet6"
	}
	key := "route[" + family + " " + describeRoute(p) + "]"
	d.add(key+"/header", hex.EncodeToString(p.header))
	d.addressed(key, p.attrs, func(kind uint16) string {
		switch kind {
		case unix.RTA_CACHEINFO:
			return "times"
		case unix.RTA_METRICS:
			return "metrics"
		case unix.RTA_DST:
			return "destination"
		case unix.RTA_GATEWAY:
			return "gateway"
		case unix.RTA_PREFSRC:
			return "source"
		}
		return ""
	}, unix.RTA_DST, unix.RTA_SRC, unix.RTA_GATEWAY, unix.RTA_PREFSRC)
}

func (d *details) rule(p parsed) {
	key := "rule[" + describeRule(p) + "]"
	d.add(key+"/header", hex.EncodeToString(p.header))
	d.addressed(key, p.attrs, number, unix.FRA_DST, unix.FRA_SRC)
}

func (d *details) neighbour(p parsed) {
	if p.header[0] != unix.AF_INET && p.header[0] != unix.AF_INET6 {
		return
	}
	address, _ := netip.AddrFromSlice(p.get(unix.NDA_DST))
	key := fmt.Sprintf("neighbour[%s dev %d]", address, nativeU32(p.header[4:]))
	d.add(key+"/state", fmt.Sprintf("%#x", binary.NativeEndian.Uint16(p.header[8:])))
	d.add(key+"/flags", fmt.Sprintf("%#x", p.header[10]))
	d.addressed(key, p.attrs, func(kind uint16) string {
		switch kind {
		case unix.NDA_LLADDR:
			return "mac"
		case unix.NDA_CACHEINFO:
			return "times"
		case unix.NDA_PROBES:
			return "probes"
		}
		return ""
	}, unix.NDA_DST)
}

func (d *details) qdisc(p parsed) {
	key := fmt.Sprintf("qdisc[dev %d parent %x]", nativeU32(p.header[4:]), nativeU32(p.header[12:]))
	d.add(key+"/handle", fmt.Sprintf("%x", nativeU32(p.header[8:])))
	d.attributes(key, p.attrs, func(kind uint16) string {
		switch kind {
		case nl.TCA_KIND:
			return "kind"
		case nl.TCA_OPTIONS:
			return "options"
		case nl.TCA_STATS, nl.TCA_STATS2, nl.TCA_XSTATS:
			return "stats"
		}
		return ""
	}, flat)
}

// Diagnose sends a request of sock_diag(7), such as struct inet_diag_req_v2, for
// all sockets of a namespace, and returns the answers as they are. A kernel
// without the module has none.
func Diagnose(ns *os.File, request []byte) (all [][]byte, err error) {
	err = Do(ns, func() error {
		d, err := dial(unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return err
		}
		defer d.Close()
		r := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		r.AddRawData(request)
		replies, err := d.list(r)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		for _, one := range replies {
			all = append(all, one.data)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	return all, nil
}

// EachAttribute walks a list of netlink attributes. What is malformed ends the walk.
func EachAttribute(b []byte, f func(kind uint16, value []byte)) { eachAttr(b, f) }
