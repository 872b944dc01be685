package pack

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"crucible/images/blake3"
)

const (
	// PageSize is the size of a page of ours.
	PageSize = blake3.PageSize
	// FramePages is how many pages are compressed together.
	FramePages = 64

	frameSize = FramePages * PageSize
	sumSize   = 16
	headLen   = 16
	footLen   = 24
	headMagic = "CRU-pack"
	footMagic = "CRU-tabl"
	version   = 1
	suffix    = ".pack"

	// Unfinished begins the name of a file that is being written.
	Unfinished = "new-"
)

// ID is the name of a pack: the digest of its table.
type ID [sumSize]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// sum is the digest of a page, cut.
type sum [sumSize]byte

// Dir is a directory of packs. It need not exist.
type Dir string

// Path is the file of a pack.
func (d Dir) Path(id ID) string { return filepath.Join(string(d), id.String()+suffix) }

// List names the packs, sorted.
func (d Dir) List() ([]ID, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	var ids []ID
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), suffix)
		raw, err := hex.DecodeString(base)
		if ok && err == nil && len(raw) == sumSize && e.Type().IsRegular() {
			ids = append(ids, ID(raw))
		}
	}
	return ids, nil
}

// Left are the files of writers that have died, if none is at work.
func (d Dir) Left() (paths []string) {
	paths, _ = filepath.Glob(filepath.Join(string(d), Unfinished+"*"))
	return paths
}

// Error is about a pack that is not what was written.
type Error struct {
	Path string
	// Text continues a sentence about the file.
	Text string
	// Missing: there is no such file.
	Missing bool
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s", e.Path, e.Text) }

// file is an open pack.
type file struct {
	*os.File
	size   int64
	pages  int
	frames []frame
	// table is the rest of it, for who looks for pages: see keepSums.
	sums  []byte
	order []byte
}

// frame is where a frame is in its file.
type frame struct {
	at  int64
	len uint32
	crc uint32
}

// open opens a pack and checks its table.
func (d Dir) open(id ID, keepSums bool) (*file, error) {
	path := d.Path(id)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Path: path, Text: "is missing", Missing: true}
	}
	if err != nil {
		return nil, err
	}
	p := &file{File: f}
	if err := p.load(id, keepSums); err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func (p *file) damaged(format string, args ...any) error {
	return &Error{Path: p.Name(), Text: fmt.Sprintf(format, args...)}
}

// load reads the table. Nothing bigger than the file is allocated.
func (p *file) load(id ID, keepSums bool) error {
	info, err := p.Stat()
	if err != nil {
		return err
	}
	p.size = info.Size()
	if !info.Mode().IsRegular() || p.size < headLen+footLen {
		return p.damaged("is cut off after %d bytes", p.size)
	}
	var head [headLen]byte
	if _, err := p.ReadAt(head[:], 0); err != nil {
		return p.unreadable(err)
	}
	var foot [footLen]byte
	if _, err := p.ReadAt(foot[:], p.size-footLen); err != nil {
		return p.unreadable(err)
	}
	at, n := binary.LittleEndian.Uint64(foot[:]), binary.LittleEndian.Uint64(foot[8:])
	switch {
	case string(head[:8]) != headMagic || string(foot[16:]) != footMagic:
		return p.damaged("has changed: it is no pack any more, or cut off")
	case binary.LittleEndian.Uint64(head[8:]) != version:
		return p.damaged("is of version %d, this crucible knows %d", binary.LittleEndian.Uint64(head[8:]), version)
	case at < headLen || at > uint64(p.size) || n > uint64(p.size) || tableLen(int(n)) != p.size-int64(at):
		return p.damaged("has changed: its table is not where it says")
	}
	table := make([]byte, p.size-int64(at))
	if _, err := p.ReadAt(table, int64(at)); err != nil {
		return p.unreadable(err)
	}
	if full := blake3.Sum(table); ID(full[:sumSize]) != id {
		return p.damaged("has changed: the digest of its table is another one")
	}
	p.pages = int(n)
	return p.parse(table, int64(at), keepSums)
}

// tableLen is the size of the table of a pack of n pages.
func tableLen(n int) int64 {
	return int64(framesOf(n))*8 + int64(n)*(sumSize+4) + footLen
}

func framesOf(pages int) int { return (pages + FramePages - 1) / FramePages }

// parse takes the table apart, of which the digest is right.
func (p *file) parse(table []byte, end int64, keepSums bool) error {
	p.frames = make([]frame, framesOf(p.pages))
	at := int64(headLen)
	for i := range p.frames {
		f := frame{at, binary.LittleEndian.Uint32(table), binary.LittleEndian.Uint32(table[4:])}
		if f.len == 0 || int(f.len) > p.rawLen(i) {
			return p.damaged("has a frame of %d bytes", f.len)
		}
		p.frames[i] = f
		at, table = at+int64(f.len), table[8:]
	}
	if at != end {
		return p.damaged("holds %d bytes that belong to no frame", end-at)
	}
	if !keepSums {
		return nil
	}
	p.sums, p.order = table[:p.pages*sumSize], table[p.pages*sumSize:p.pages*(sumSize+4)]
	for i := range p.pages {
		if p.sorted(i) >= p.pages {
			return p.damaged("has a table of pages that are not there")
		}
	}
	return nil
}

// rawLen is the length of a frame's pages.
func (p *file) rawLen(frame int) int {
	return min(FramePages, p.pages-frame*FramePages) * PageSize
}

// sum is the digest of a page.
func (p *file) sum(page int) sum { return sum(p.sums[page*sumSize:]) }

// sorted is the page with the ith digest.
func (p *file) sorted(i int) int { return int(binary.LittleEndian.Uint32(p.order[4*i:])) }

func (p *file) unreadable(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return p.damaged("cannot be read: %v", err)
}

// stored reads a frame as it is in the file.
func (p *file) stored(n int, buf []byte) ([]byte, error) {
	f := p.frames[n]
	buf = buf[:f.len]
	if _, err := p.ReadAt(buf, f.at); err != nil {
		return nil, p.unreadable(err)
	}
	if checksum(buf) != f.crc {
		return nil, p.damaged("has changed: its frame %d at offset %d has another checksum", n, f.at)
	}
	return buf, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
