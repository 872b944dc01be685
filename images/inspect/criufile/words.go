package criufile

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// For people numbers are words, where CRIU's schema says of what kind they are
// (opts.proto): those of crit --pretty, from CRIU's lib/pycriu/images/pb2dict.py.

// flagNames are the names of single bits, by the option's value.
func flagNames(kind string) []string {
	bit := func(names ...string) []string { return names }
	switch kind {
	case "mmap.prot":
		return bit("PROT_READ", "PROT_WRITE", "PROT_EXEC")
	case "mmap.flags":
		return bit("MAP_SHARED", "MAP_PRIVATE", "", "MAP_DROPPABLE", "", "MAP_ANON", "", "", "MAP_GROWSDOWN")
	case "mmap.status":
		names := bit("VMA_AREA_REGULAR", "VMA_AREA_STACK", "VMA_AREA_VSYSCALL", "VMA_AREA_VDSO", "", "VMA_AREA_HEAP", "VMA_FILE_PRIVATE",
			"VMA_FILE_SHARED", "VMA_ANON_SHARED", "VMA_ANON_PRIVATE", "VMA_AREA_SYSVIPC", "VMA_AREA_SOCKET", "VMA_AREA_VVAR",
			"VMA_AREA_AIORING", "VMA_AREA_MEMFD", "VMA_AREA_SHSTK", "", "VMA_AREA_UPROBES", "VMA_AREA_NOT_ACCOUNTABLE")
		return append(append(names, make([]string, 31-len(names))...), "VMA_UNSUPP")
	case "rfile.flags":
		return bit("O_WRONLY", "O_RDWR", "", "", "", "", "O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_DSYNC",
			"FASYNC", "O_DIRECT", "O_LARGEFILE", "O_DIRECTORY", "O_NOFOLLOW", "O_NOATIME", "O_CLOEXEC")
	case "seals.flags":
		return bit("F_SEAL_SEAL", "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_FUTURE_WRITE")
	case "pmap.flags":
		return bit("PE_PARENT", "PE_LAZY", "PE_PRESENT", "PE_PAYLOAD_ALIGNED")
	}
	return nil
}

// wordsOf are the names of values, by the option's value and the field's name.
func wordsOf(dict, name string) map[uint64]string {
	switch dict + "." + name {
	case "gen.task_state":
		// crit's words for the others mean other numbers since 4.3 than before.
		return map[uint64]string{1: "Alive"}
	case "sk.family":
		return map[uint64]string{1: "UNIX", 2: "INET", 10: "INET6", 16: "NETLINK", 17: "PACKET"}
	case "sk.type":
		return map[uint64]string{1: "STREAM", 2: "DGRAM", 3: "RAW", 5: "SEQPACKET", 10: "PACKET"}
	case "sk.state":
		return map[uint64]string{1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT",
			7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN"}
	case "sk.proto":
		return map[uint64]string{0: "IP", 6: "TCP", 17: "UDP", 136: "UDPLITE"}
	}
	return nil
}

// appendWords appends a number of a field in words. It is false if the field
// has none for it.
func appendWords(to []byte, f *field, v uint64) ([]byte, bool) {
	switch {
	case v>>32 != 0:
		return to, false
	case f.flags != nil:
		return append(appendFlags(append(to, '"'), f.flags, v), '"'), true
	case f.device:
		major, minor := f.splitDevice(v)
		to = strconv.AppendUint(append(to, '"'), major, 10)
		return append(strconv.AppendUint(append(to, ':'), minor, 10), '"'), true
	case f.words != nil:
		word, known := f.words[v]
		if known {
			to = appendString(to, word)
		}
		return to, known
	}
	return to, false
}

func appendFlags(to []byte, names []string, v uint64) []byte {
	start := len(to)
	for n, name := range names {
		if name != "" && v>>n&1 != 0 {
			if len(to) > start {
				to = append(to, " | "...)
			}
			to, v = append(to, name...), v&^(1<<n)
		}
	}
	if v != 0 {
		if len(to) > start {
			to = append(to, " | "...)
		}
		to = strconv.AppendUint(append(to, "0x"...), v, 16)
	}
	return to
}

// splitDevice: a dev_t of the kernel's, or of old programs (makedev(3)).
func (f *field) splitDevice(v uint64) (major, minor uint64) {
	if f.oldDevice {
		return v >> 8 & 0xfff, v&0xff | v>>12&0xfff00
	}
	return v >> 20, v & 0xfffff
}

// wordValue is the number that words of a field are. It is false if they are none.
func wordValue(f *field, s string) (uint64, bool) {
	switch {
	case f.flags != nil:
		return flagsValue(f.flags, s)
	case f.device:
		major, minor, two := strings.Cut(s, ":")
		x, err1 := strconv.ParseUint(major, 10, 12)
		y, err2 := strconv.ParseUint(minor, 10, 20)
		if !two || err1 != nil || err2 != nil {
			return 0, false
		}
		if f.oldDevice {
			return x<<8 | y&0xff | y&0xfff00<<12, true
		}
		return x<<20 | y, true
	}
	for v, word := range f.words {
		if word == s {
			return v, true
		}
	}
	return 0, false
}

func flagsValue(names []string, s string) (v uint64, ok bool) {
	if s == "" {
		return 0, true
	}
	for _, word := range strings.Split(s, "|") {
		word = strings.TrimSpace(word)
		if n := slices.Index(names, word); n >= 0 && word != "" {
			v |= 1 << n
			continue
		}
		u, err := strconv.ParseUint(word, 0, 32)
		if err != nil {
			return 0, false
		}
		v |= u
	}
	return v, true
}

// appendAddress appends the IP address that the next values of a field are, one word
// or four, and returns how long they are. It is 0 if they are none.
func appendAddress(to []byte, f *field, b []byte) ([]byte, int) {
	var words []byte
	rest := b
	for n := 0; ; n++ {
		number, typ, tag := protowire.ConsumeTag(rest)
		if len(rest) == 0 || tag != protowire.SizeTag(f.number) || number != f.number || typ != protowire.VarintType {
			break
		}
		v, size := protowire.ConsumeVarint(rest[tag:])
		if size != protowire.SizeVarint(v) || v>>32 != 0 || n == 4 {
			return to, 0
		}
		words = binary.LittleEndian.AppendUint32(words, uint32(v))
		rest = rest[tag+size:]
	}
	a, ok := netip.AddrFromSlice(words)
	if !ok {
		return to, 0
	}
	return append(a.AppendTo(append(to, '"')), '"'), len(b) - len(rest)
}

// addressWords are the values of a field that an IP address is.
func addressWords(s string) (words []uint32, ok bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return nil, false
	}
	for b := a.AsSlice(); len(b) > 0; b = b[4:] {
		words = append(words, binary.LittleEndian.Uint32(b))
	}
	return words, true
}
