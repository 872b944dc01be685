package memory

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"crucible/images"
)

// Memory is the memory in an image and those that it builds on. Any number of
// goroutines may use it.
type Memory struct {
	chain    []*images.Image
	pageSize uint64

	// Of each image of the chain, the files of pagemaps by what they are of.
	files []map[key]bool

	mu     sync.Mutex
	opened map[string]images.Pages // by layer and file
	spaces map[key]*Space
	mapped map[uint64]mapped // by the number of the file
}

// key names a space: a process, or an object of shared memory.
type key struct {
	shared bool
	id     uint64
}

// file is the name of its pagemap (criu/image-desc.c).
func (k key) file() string {
	if k.shared {
		return "pagemap-shmem-" + strconv.FormatUint(k.id, 10) + ".img"
	}
	return "pagemap-" + strconv.FormatUint(k.id, 10) + ".img"
}

func parseKey(file string) (k key, ok bool) {
	id, ok := strings.CutPrefix(file, "pagemap-")
	if !ok {
		return k, false
	}
	if id, ok = strings.CutSuffix(id, ".img"); !ok {
		return k, false
	}
	id, k.shared = strings.CutPrefix(id, "shmem-")
	n, err := strconv.ParseUint(id, 10, 64)
	k.id = n
	return k, err == nil && k.file() == file
}

// Open finds what memory an image has. It reads no page yet; what is wrong with
// a pagemap, Process and Shared say. An error about the image is an *images.Error.
func Open(image *images.Image) (*Memory, error) {
	chain, err := image.Chain()
	if err != nil {
		return nil, err
	}
	m := &Memory{chain: chain, opened: map[string]images.Pages{}, spaces: map[key]*Space{}}
	if m.pageSize, err = pageSizeOf(image); err != nil {
		return nil, err
	}
	for _, i := range chain {
		entries, err := os.ReadDir(i.CRIUDir())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("image %s: %w", i.Ref(), err)
		}
		files := map[key]bool{}
		for _, e := range entries {
			if k, ok := parseKey(e.Name()); ok {
				files[k] = true
			}
		}
		m.files = append(m.files, files)
	}
	return m, nil
}

// pageSizeOf is what the manifest says; every x86-64 has the same.
func pageSizeOf(i *images.Image) (uint64, error) {
	w := i.Manifest.GetWriter()
	size := uint64(w.GetPageSize())
	if size == 0 && (w.GetMachine() == "x86_64" || w.GetMachine() == "") {
		size = 4096
	}
	if size < 4096 || size > 1<<20 || size&(size-1) != 0 {
		return 0, damaged(i, images.Manifest, fmt.Sprintf("says that a page has %d bytes", size))
	}
	return size, nil
}

// Close closes the files of pages.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, p := range m.opened {
		errs = append(errs, p.Close())
	}
	clear(m.opened)
	return errors.Join(errs...)
}

// PageSize is the bytes of a page.
func (m *Memory) PageSize() uint64 { return m.pageSize }

// Image is the image of a layer, 0 the one that was opened.
func (m *Memory) Image(layer int) *images.Image { return m.chain[layer] }

// Layers is the number of images in the chain.
func (m *Memory) Layers() int { return len(m.chain) }

// Pids are the processes that have memory in the image, as the container
// numbers them, in order.
func (m *Memory) Pids() (pids []int) {
	for k := range m.files[0] {
		if !k.shared {
			pids = append(pids, int(k.id))
		}
	}
	slices.Sort(pids)
	return pids
}

// SharedIDs are the objects of shared memory in the image, in order. A mapping
// names the one that it shows (vma_entry.shmid).
func (m *Memory) SharedIDs() (ids []uint64) {
	for k := range m.files[0] {
		if k.shared {
			ids = append(ids, k.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Process is the memory of a process. One that is not in the image is an
// *images.Error of kind NotFound.
func (m *Memory) Process(pid int) (*Space, error) {
	k := key{id: uint64(pid)}
	if pid < 0 || !m.files[0][k] {
		return nil, &images.Error{Kind: images.NotFound, Ref: m.chain[0].Ref(), Text: fmt.Sprintf("has no memory of a process %d", pid),
			Advice: "`crucible image show " + m.chain[0].Ref() + "` lists its processes"}
	}
	return m.space(k)
}

// Shared is an object of shared memory; one that has no pages, and so no
// files, is an empty space.
func (m *Memory) Shared(id uint64) (*Space, error) {
	k := key{shared: true, id: id}
	if !m.files[0][k] {
		return &Space{memory: m}, nil
	}
	return m.space(k)
}

// space reads a pagemap once.
func (m *Memory) space(k key) (*Space, error) {
	m.mu.Lock()
	s := m.spaces[k]
	m.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := m.load(k)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spaces[k] = s
	return s, nil
}

// load reads the pagemaps of all layers. CRIU, too, goes from one image to the
// next only as long as each has a pagemap of the same process
// (criu/pagemap.c: try_open_parent).
func (m *Memory) load(k key) (*Space, error) {
	var layers [][]Run
	for n := range m.chain {
		if !m.files[n][k] {
			break
		}
		runs, err := m.loadLayer(n, k)
		if err != nil {
			return nil, err
		}
		layers = append(layers, runs)
		if !slices.ContainsFunc(runs, func(r Run) bool { return r.pages == nil && !r.Remote }) {
			break // nothing is in a parent
		}
	}
	runs, err := flatten(layers, m.pageSize)
	if err != nil {
		var gap *gapError
		if errors.As(err, &gap) {
			err = damaged(m.chain[gap.layer], path.Join(images.CRIU, k.file()),
				fmt.Sprintf("has the page at %x in the image before, which does not have it", gap.addr))
		}
		return nil, err
	}
	return &Space{memory: m, runs: runs}, nil
}

// loadLayer reads the pagemap of one image. A run without pages is in the next layer.
func (m *Memory) loadLayer(n int, k key) ([]Run, error) {
	image, file := m.chain[n], path.Join(images.CRIU, k.file())
	f, err := image.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image.Ref(), err)
	}
	id, entries, err := parsePagemap(b, m.pageSize)
	if err != nil {
		return nil, damaged(image, file, err.Error())
	}
	runs := make([]Run, 0, len(entries))
	name, offset := "pages-"+strconv.FormatUint(id, 10)+".img", uint64(0)
	var pages images.Pages
	for _, e := range entries {
		r := Run{Addr: e.addr, Pages: e.pages, Layer: n}
		if e.flags&inParent == 0 && e.flags&present == 0 {
			r.Remote = true
		}
		if e.flags&inParent == 0 && e.flags&present != 0 {
			if pages == nil {
				if pages, err = m.openPages(n, name); err != nil {
					return nil, err
				}
			}
			r.pages, r.File, r.Offset = pages, name, int64(offset)
			// No overflow: no size of a file, nor one run, is near 2^63.
			if offset += e.pages * m.pageSize; offset > uint64(pages.Size()) {
				return nil, damaged(image, path.Join(images.CRIU, name),
					fmt.Sprintf("is cut off: it has %d bytes, and %s tells of more", pages.Size(), k.file()))
			}
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func (m *Memory) openPages(n int, name string) (images.Pages, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := strconv.Itoa(n) + "/" + name
	if p := m.opened[id]; p != nil {
		return p, nil
	}
	p, err := m.chain[n].OpenPages(path.Join(images.CRIU, name))
	if err == nil {
		m.opened[id] = p
	}
	return p, err
}

func damaged(i *images.Image, file, text string) error {
	return &images.Error{Kind: images.Damaged, Ref: i.Ref(), File: file, Text: text,
		Advice: "`crucible image verify " + i.Ref() + "` tells whether it is as it was written"}
}
