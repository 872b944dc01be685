package fingerprint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// takeMemory adds the mappings of a process, and what is in them.
func (t *taker) takeMemory(p *process) {
	all, err := t.readMappings(p)
	if err != nil {
		t.cannot(p.key()+"/map", err)
		return
	}
	mem, err := os.Open(p.path("mem"))
	if err != nil {
		t.cannot(p.key()+"/memory", err)
	} else {
		defer mem.Close()
	}
	pagemap, err := os.Open(p.path("pagemap"))
	if err != nil {
		t.cannot(p.key()+"/memory", err)
	} else {
		defer pagemap.Close()
	}
	for _, m := range together(all) {
		key := t.mappingFacts(p.key(), m)
		if mem != nil && pagemap != nil && t.ctx.Err() == nil {
			t.takeContent(p, key+"/content", m, all, mem, pagemap)
		}
	}
}

// mappingFacts adds what a mapping is.
func (t *taker) mappingFacts(process string, m mapping) (key string) {
	key = fmt.Sprintf("%s/map/%x", process, m.start)
	t.put(key, m.String())
	if m.name != "" {
		t.put(key+"/name", m.name)
	}
	t.put(key+"/flags", m.flags)
	for _, more := range m.more {
		t.put(key+"/"+more.key, more.value)
	}
	return key
}

func (t *taker) readMappings(p *process) ([]mapping, error) {
	f, err := os.Open(p.path("smaps"))
	if os.IsNotExist(err) { // a kernel without CONFIG_PROC_PAGE_MONITOR
		f, err = os.Open(p.path("maps"))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := parseSmaps(f)
	for i := range all {
		t.settle(&all[i])
	}
	return all, err
}

// takeContent adds a digest of what a mapping holds. Of private memory that is
// what differs from the file below it; of shared memory what the file holds, be
// it in a page table or not.
func (t *taker) takeContent(p *process, key string, m mapping, parts []mapping, mem, pagemap *os.File) {
	switch {
	case m.has("io"), m.has("pf"), m.name == "[vsyscall]", m.name == "[vdso]", m.name == "[vvar]", m.name == "[vvar_vclock]":
		return // a device's, or the kernel's own
	}
	d := newPageDigest()
	var err error
	// The kernel has a link to the file for each mapping as it keeps them.
	for _, part := range parts {
		if part.start < m.start || part.end > m.end || err != nil {
			continue
		}
		if m.shared() {
			err = t.sharedContent(p, part, part.start-m.start, d)
		} else {
			err = t.privateContent(p, part, part.start-m.start, mem, pagemap, d)
		}
	}
	if err != nil {
		t.cannot(key, err)
		return
	}
	t.put(key, d.String())
}

// The bits of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const (
	pageOfFile  = 1 << 61 // or of shared memory
	pageSwapped = 1 << 62
	pagePresent = 1 << 63
)

// privateContent reads the pages that are the process's own. To read one that
// was never touched would be safe, but would have the kernel map something. An
// own page that holds what the file has there is to the program the file's:
// CRIU leaves one where it had written its first instructions to.
func (t *taker) privateContent(p *process, m mapping, where uint64, mem, pagemap *os.File, d *pageDigest) error {
	size := uint64(os.Getpagesize())
	var file *os.File
	if m.file {
		f, err := t.openMapped(p, m)
		if err != nil {
			return err
		}
		if f != nil {
			defer f.Close()
		}
		file = f
	}
	const entries = 4096
	raw := make([]byte, entries*8)
	below := make([]byte, size)
	for at := m.start; at < m.end; {
		n := min((m.end-at)/size, entries)
		got, err := pagemap.ReadAt(raw[:n*8], int64(at/size*8))
		if got < int(n*8) {
			return fmt.Errorf("pagemap: %w", err)
		}
		own := func(i uint64) bool {
			e := binary.NativeEndian.Uint64(raw[i*8:])
			return e&(pagePresent|pageSwapped) != 0 && e&pageOfFile == 0
		}
		for i := uint64(0); i < n; {
			if !own(i) {
				i++
				continue
			}
			run := i
			for run < n && own(run) && (run-i+1)*size <= uint64(len(t.buf)) {
				run++
			}
			piece := t.buf[:(run-i)*size]
			if _, err := mem.ReadAt(piece, int64(at+i*size)); err != nil {
				// A guard, madvise(2) MADV_GUARD_INSTALL, is in the page table
				// like a page, and cannot be read: that is what there is to say.
				run, piece = i+1, piece[:size]
				if _, err := mem.ReadAt(piece, int64(at+i*size)); err != nil {
					if !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EFAULT) {
						return fmt.Errorf("memory: %w", err)
					}
					clear(piece)
					d.own(where+at+i*size-m.start, piece)
					i = run
					continue
				}
			}
			for _, head := range p.robust {
				maskRseq(piece, at+i*size, head)
			}
			for from := at + i*size - m.start; len(piece) > 0; from, piece = from+size, piece[size:] {
				if file != nil {
					clear(below)
					if _, err := file.ReadAt(below, int64(m.offset+from)); (err == nil || err == io.EOF) && bytes.Equal(below, piece[:size]) {
						continue
					}
					d.own(where+from, piece[:size])
					continue
				}
				d.add(where+from, piece[:size])
			}
			i = run
		}
		if err := t.ctx.Err(); err != nil {
			return err
		}
		at += n * size
	}
	return nil
}

// openMapped opens the file below a mapping; nil where it is a device's, which
// is not the container's, and to open it may do something.
func (t *taker) openMapped(p *process, m mapping) (*os.File, error) {
	path := p.path(fmt.Sprintf("map_files/%x-%x", m.start, m.end))
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return nil, err
	}
	return os.Open(path)
}

// sharedContent reads the file below a shared mapping, and skips its holes.
func (t *taker) sharedContent(p *process, m mapping, where uint64, d *pageDigest) error {
	f, err := t.openMapped(p, m)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	end := m.offset + (m.end - m.start)
	for at := m.offset; at < end; {
		data, err := unix.Seek(int(f.Fd()), int64(at), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && uint64(data) >= end {
			return nil
		}
		if err != nil {
			data = int64(at) // a file system that does not know
		}
		at = max(at, uint64(data)/uint64(os.Getpagesize())*uint64(os.Getpagesize()))
		n, err := f.ReadAt(t.buf[:min(uint64(len(t.buf)), end-at)], int64(at))
		if n > 0 {
			d.add(where+at-m.offset, t.buf[:n])
		}
		if err == io.EOF || n == 0 && err == nil {
			return nil
		}
		if err != nil {
			return err
		}
		at += uint64(n)
		if err := t.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// pageDigest is a digest of pages and their places, in which a page of zeros
// does not count.
type pageDigest struct {
	hash  hash.Hash
	pages int
	zero  []byte
}

func newPageDigest() *pageDigest {
	return &pageDigest{hash: sha256.New(), zero: make([]byte, os.Getpagesize())}
}

// add takes in pages that lie one after the other.
func (d *pageDigest) add(where uint64, b []byte) {
	for len(b) > 0 {
		page := b[:min(len(b), len(d.zero))]
		if !bytes.Equal(page, d.zero[:len(page)]) {
			d.own(where, page)
		}
		where += uint64(len(page))
		b = b[len(page):]
	}
}

// own takes in a page also if it holds zeros: over a file's page they are
// something else than nothing.
func (d *pageDigest) own(where uint64, page []byte) {
	var place [8]byte
	binary.LittleEndian.PutUint64(place[:], where)
	d.hash.Write(place[:])
	d.hash.Write(page)
	d.hash.Write(d.zero[:len(d.zero)-len(page)])
	d.pages++
}

func (d *pageDigest) String() string {
	if d.pages == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%d pages, sha256 %s", d.pages, hex.EncodeToString(d.hash.Sum(nil)[:16]))
}
