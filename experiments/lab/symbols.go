package lab

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Symbols are the functions of a kernel and its modules, by address.
type Symbols []symbol

type symbol struct {
	address uint64
	name    string
	global  bool
}

// ReadSymbols reads the functions from /proc/kallsyms, whose lines are those of
// nm(1): ADDRESS TYPE NAME, and [MODULE] for some. Of several names for one
// address it takes the plainest. What the compiler has cut off from a function,
// or has specialised (NAME.cold, NAME.part.0, NAME.isra.0), goes by the
// function's name: how it cuts differs from build to build.
func ReadSymbols(r io.Reader) (Symbols, error) {
	var s Symbols
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || len(fields[1]) != 1 {
			return nil, fmt.Errorf("read the kernel's symbols: line %d: %q is none", n, lines.Text())
		}
		if !strings.Contains("tTwW", fields[1]) {
			continue
		}
		address, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read the kernel's symbols: line %d: %w", n, err)
		}
		name := fields[2]
		if dot := strings.IndexByte(name, '.'); dot > 0 {
			name = name[:dot]
		}
		if address == 0 {
			continue // what the reader may not see is shown as 0
		}
		s = append(s, symbol{address, name, fields[1] == "T"})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	slices.SortFunc(s, func(a, b symbol) int {
		return cmp.Or(cmp.Compare(a.address, b.address), a.plainness(b))
	})
	return slices.CompactFunc(s, func(a, b symbol) bool { return a.address == b.address }), nil
}

// plainness orders names of one address: global ones first, then those with
// fewer underscores in front.
func (a symbol) plainness(b symbol) int {
	under := func(s symbol) int { return len(s.name) - len(strings.TrimLeft(s.name, "_")) }
	if a.global != b.global {
		if a.global {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(under(a), under(b)), cmp.Compare(a.name, b.name))
}

// Unnamed is the function of what has no symbol: programs that the kernel has
// translated itself (BPF), and trampolines.
const Unnamed = "(no symbol)"

// longest is how far a function's code may be from its start; kallsyms knows no
// sizes.
const longest = 64 << 10

// Function is the name of the function that an address is in.
func (s Symbols) Function(address uint64) string {
	i := sort.Search(len(s), func(i int) bool { return s[i].address > address }) - 1
	if i < 0 || address-s[i].address > longest {
		return Unnamed
	}
	return s[i].name
}

// Functions sums up the instructions of blocks by function.
func (s Symbols) Functions(blocks []Block) map[string]uint64 {
	sums := map[string]uint64{}
	for _, b := range blocks {
		sums[s.Function(b.Address)] += b.Instructions
	}
	return sums
}

// PackSymbols makes of /proc/kallsyms what a guest can send to UnpackSymbols: the
// functions alone, compressed to half a megabyte.
func PackSymbols(kallsyms io.Reader) ([]byte, error) {
	s, err := ReadSymbols(kallsyms)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for _, f := range s {
		fmt.Fprintf(w, "%x T %s\n", f.address, f.name)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// UnpackSymbols is the other way round. The guest is not trusted: it takes 64 MiB
// at most.
func UnpackSymbols(packed []byte) (Symbols, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	return ReadSymbols(io.LimitReader(r, 64<<20))
}
