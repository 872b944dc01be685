package pack

import (
	"encoding/binary"
	"fmt"
	"sort"

	"crucible/images/blake3"
)

// Index says where the pages of a file are.
type Index struct {
	// Size of the file, a multiple of PageSize.
	Size int64
	// Packs that its runs are from.
	Packs []ID
	runs  []run
}

// run is so many pages of a file that follow each other in a pack, too.
type run struct {
	page  uint32 // of the file
	pack  int32  // of Packs; zeros: the pages are nowhere
	first uint32 // of the pack
}

const zeros = -1

const (
	indexMagic   = "CRU-pind"
	indexVersion = 1
	indexHead    = 8 + 4 + 8 + 4 + 4
	// maxPages is more than an address space of 16 TiB can hold.
	maxPages = 1<<32 - 1
)

// add puts a page behind the others.
func (x *Index) add(pack int32, page uint32) {
	at := uint32(x.Size / PageSize)
	x.Size += PageSize
	if n := len(x.runs); n > 0 {
		last := x.runs[n-1]
		if last.pack == pack && (pack == zeros || last.first+(at-last.page) == page) {
			return
		}
	}
	x.runs = append(x.runs, run{at, pack, page})
}

// addFrom is add for a page of a pack by its name.
func (x *Index) addFrom(known map[ID]int32, id ID, page uint32) {
	n, ok := known[id]
	if !ok {
		n = int32(len(x.Packs))
		known[id] = n
		x.Packs = append(x.Packs, id)
	}
	x.add(n, page)
}

// end is the page behind a run.
func (x *Index) end(run int) uint32 {
	if run+1 < len(x.runs) {
		return x.runs[run+1].page
	}
	return uint32(x.Size / PageSize)
}

// find is the run that a page is in.
func (x *Index) find(page uint32) int {
	return sort.Search(len(x.runs), func(i int) bool { return x.runs[i].page > page }) - 1
}

// Each calls a function for every run of pages that are in a pack.
func (x *Index) Each(do func(pack ID, first, pages uint32)) {
	for i, r := range x.runs {
		if r.pack != zeros {
			do(x.Packs[r.pack], r.first, x.end(i)-r.page)
		}
	}
}

// Encode returns the index as it stands in a file.
//
//	offset  size
//	0       8     "CRU-pind"
//	8       4     version, little-endian like all that follow
//	12      8     size of the file of pages
//	20      4     p, number of packs
//	24      4     number of runs
//	28      16p   the packs' names
//	              the runs, as varints: pages, 1 + number of the pack (0: zeros),
//	              and, unless zeros, the first page in the pack
//	        32    BLAKE3 of everything before
func (x *Index) Encode() []byte {
	b := append(make([]byte, 0, indexHead+len(x.Packs)*sumSize+len(x.runs)*6+blake3.Size), indexMagic...)
	b = binary.LittleEndian.AppendUint32(b, indexVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(x.Size))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(x.Packs)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(x.runs)))
	for _, id := range x.Packs {
		b = append(b, id[:]...)
	}
	for i, r := range x.runs {
		b = binary.AppendUvarint(b, uint64(x.end(i)-r.page))
		b = binary.AppendUvarint(b, uint64(r.pack+1))
		if r.pack != zeros {
			b = binary.AppendUvarint(b, uint64(r.first))
		}
	}
	all := blake3.Sum(b)
	return append(b, all[:]...)
}

// Decode reads what Encode returned. Its error continues a sentence about the file.
func Decode(b []byte) (*Index, error) {
	if len(b) < indexHead+blake3.Size {
		return nil, fmt.Errorf("is cut off after %d bytes", len(b))
	}
	if string(b[:8]) != indexMagic {
		return nil, fmt.Errorf("begins with %q: not an index of pages", b[:8])
	}
	body := b[:len(b)-blake3.Size]
	if blake3.Sum(body) != [blake3.Size]byte(b[len(body):]) {
		return nil, fmt.Errorf("has changed: its digest is another one")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != indexVersion {
		return nil, fmt.Errorf("is of version %d, this crucible knows %d", v, indexVersion)
	}
	size := binary.LittleEndian.Uint64(b[12:])
	packs, runs := binary.LittleEndian.Uint32(b[20:]), binary.LittleEndian.Uint32(b[24:])
	if size%PageSize != 0 || size/PageSize > maxPages {
		return nil, fmt.Errorf("is of a file of %d bytes", size)
	}
	x := &Index{}
	rest := body[indexHead:]
	if uint64(packs)*sumSize > uint64(len(rest)) {
		return nil, fmt.Errorf("names %d packs and is %d bytes long", packs, len(b))
	}
	for range packs {
		x.Packs = append(x.Packs, ID(rest))
		rest = rest[sumSize:]
	}
	if uint64(runs)*2 > uint64(len(rest)) {
		return nil, fmt.Errorf("has %d runs and is %d bytes long", runs, len(b))
	}
	x.runs = make([]run, 0, runs)
	for range runs {
		var err error
		if rest, err = x.decodeRun(rest, size); err != nil {
			return nil, err
		}
	}
	if len(rest) > 0 || uint64(x.Size) != size {
		return nil, fmt.Errorf("has runs for %d of %d bytes, and %d bytes behind them", x.Size, size, len(rest))
	}
	return x, nil
}

// decodeRun reads a run, and makes the file longer by it.
func (x *Index) decodeRun(b []byte, size uint64) ([]byte, error) {
	var values [3]uint64
	for i := range values {
		if i == 2 && values[1] == 0 {
			break
		}
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("has a run that is cut off")
		}
		values[i], b = v, b[n:]
	}
	pages, pack, first := values[0], values[1], values[2]
	if pages == 0 || pages > (size-uint64(x.Size))/PageSize || pack > uint64(len(x.Packs)) || first+pages > maxPages || first > maxPages {
		return nil, fmt.Errorf("has a run of %d pages from page %d of pack %d of %d", pages, first, pack, len(x.Packs))
	}
	x.runs = append(x.runs, run{uint32(x.Size / PageSize), int32(pack) - 1, uint32(first)})
	x.Size += int64(pages) * PageSize
	return b, nil
}
