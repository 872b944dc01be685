package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"

	"crucible/images"
	"crucible/images/inspect/criufile"
)

// Kind is what is mapped.
type Kind string

const (
	Anonymous Kind = "anonymous"
	Heap      Kind = "heap"
	Stack     Kind = "stack"
	File      Kind = "file"
	// SharedMemory is anonymous memory that processes share, a memfd, or System
	// V shared memory: see Memory.Shared.
	SharedMemory Kind = "shared memory"
	VDSO         Kind = "vdso"
	VVAR         Kind = "vvar"
	VSyscall     Kind = "vsyscall"
	Socket       Kind = "socket"
	AIO          Kind = "aio"
	// Other is of a plugin of CRIU's, or what only the kernel uses.
	Other Kind = "other"
)

// Mapping is what a range of addresses of a process is for.
type Mapping struct {
	Start, End uint64
	// Offset is where it begins in the file or the shared memory, in bytes.
	Offset uint64
	// Permissions as in proc_pid_maps(5), "rw-p".
	Permissions string
	Kind        Kind
	// Name is the path of the file, "[heap]" and the like as in proc_pid_maps(5), or "".
	Name string
	// Prot and Flags are those of mmap(2); Advice has a bit for each advice of
	// madvise(2) in effect, by its number.
	Prot, Flags uint32
	Advice      uint64

	// Shared is the id of SharedMemory.
	Shared uint64
}

// Size is its bytes.
func (p Mapping) Size() uint64 { return p.End - p.Start }

// Zero says that what was not dumped of it holds zeros. Of a file it holds what
// the file has, if the process has never written there.
func (p Mapping) Zero() bool {
	return p.Kind == Anonymous || p.Kind == Heap || p.Kind == Stack || p.Kind == SharedMemory
}

// What is its name, or else its kind; "" of anonymous memory.
func (p Mapping) What() string {
	if p.Name == "" && p.Kind != Anonymous {
		return "[" + string(p.Kind) + "]"
	}
	return p.Name
}

// FlagNames are the names of the flags, such as "private".
func (p Mapping) FlagNames() []string {
	return names(uint64(p.Flags), []bitName{{mapShared, "shared"}, {0x02, "private"}, {0x10, "fixed"}, {0x20, "anonymous"}, {mapGrowsDown, "growsdown"},
		{0x2000, "locked"}, {0x4000, "noreserve"}, {0x8000, "populate"}, {0x20000, "stack"}, {0x40000, "hugetlb"}})
}

// AdviceNames are the names of the advice, such as "dontfork".
func (p Mapping) AdviceNames() []string {
	return names(p.Advice, []bitName{{1 << 1, "random"}, {1 << 2, "sequential"}, {1 << 10, "dontfork"}, {1 << 12, "mergeable"},
		{1 << 14, "hugepage"}, {1 << 15, "nohugepage"}, {1 << 16, "dontdump"}, {1 << 18, "wipeonfork"}})
}

// bitName is the name of a bit, as the kernel's headers have it (asm-generic/mman.h).
type bitName struct {
	bit  uint64
	name string
}

func names(bits uint64, known []bitName) (list []string) {
	list = []string{}
	for _, n := range known {
		if bits&n.bit != 0 {
			list = append(list, n.name)
			bits &^= n.bit
		}
	}
	if bits != 0 {
		list = append(list, "0x"+strconv.FormatUint(bits, 16))
	}
	return list
}

// Status of a mapping, and what else stands in images/vma.proto
// (criu/include/image.h: VMA_AREA_ and VMA_).
const (
	statusVSyscall    = 1 << 2
	statusVDSO        = 1 << 3
	statusHeap        = 1 << 5
	statusFilePrivate = 1 << 6
	statusFileShared  = 1 << 7
	statusAnonShared  = 1 << 8
	statusAnonPrivate = 1 << 9
	statusSysVIPC     = 1 << 10
	statusSocket      = 1 << 11
	statusVVAR        = 1 << 12
	statusAIO         = 1 << 13
	statusMemfd       = 1 << 14

	mapShared    = 0x01
	mapGrowsDown = 0x100
)

type mmEntry struct {
	StartStack uint64     `criu:"mm_start_stack"`
	VMAs       []vmaEntry `criu:"vmas"`
}

type vmaEntry struct {
	Start  uint64 `criu:"start"`
	End    uint64 `criu:"end"`
	Offset uint64 `criu:"pgoff"` // bytes, in spite of its name (criu/proc_parse.c)
	ID     uint64 `criu:"shmid"`
	Prot   uint32 `criu:"prot"`
	Flags  uint32 `criu:"flags"`
	Status uint32 `criu:"status"`
	Advice uint64 `criu:"madv"`
}

type fileEntry struct {
	ID      uint64 `criu:"id"`
	Regular *struct {
		Name string `criu:"name"`
	} `criu:"reg"`
	Memfd *struct {
		Inode uint64 `criu:"inode_id"`
	} `criu:"memfd"`
}

type memfdEntry struct {
	Inode uint64 `criu:"inode_id"`
	Name  string `criu:"name"`
	ID    uint64 `criu:"shmid"`
}

// mapped is a file, or shared memory, that mappings name by a number.
type mapped struct {
	name   string
	shared uint64
}

// Mappings are those of a process, by address. An image of a pre-dump has none:
// the error is an *images.Error of kind PreDump.
func (m *Memory) Mappings(pid int) ([]Mapping, error) {
	image := m.chain[0]
	file := "mm-" + strconv.Itoa(pid) + ".img"
	all, err := criufile.Load[mmEntry](filepath.Join(image.CRIUDir(), file))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := m.Process(pid); err != nil {
			return nil, err
		}
		if image.Manifest.GetTraits().GetPreDump() {
			return nil, &images.Error{Kind: images.PreDump, Ref: image.Ref(), Text: "is of a pre-dump: it holds memory, and not what is mapped where",
				Advice: "`crucible image memory` and its --grep read it all the same"}
		}
		return nil, damaged(image, path.Join(images.CRIU, file), "is missing")
	}
	if err != nil {
		return nil, unreadable(image, file, err)
	}
	if len(all) != 1 {
		return nil, damaged(image, path.Join(images.CRIU, file), fmt.Sprintf("has %d entries", len(all)))
	}
	files, err := m.mappedFiles()
	if err != nil {
		return nil, err
	}
	mappings := make([]Mapping, 0, len(all[0].VMAs))
	for n, v := range all[0].VMAs {
		if (v.Start|v.End|v.Offset)%m.pageSize != 0 || v.Start >= v.End || n > 0 && v.Start < all[0].VMAs[n-1].End {
			return nil, damaged(image, path.Join(images.CRIU, file), fmt.Sprintf("has a mapping %x-%x, which cannot be", v.Start, v.End))
		}
		mappings = append(mappings, v.mapping(all[0].StartStack, files))
	}
	return mappings, nil
}

// unreadable makes an error about the image of one about CRIU's file.
func unreadable(i *images.Image, file string, err error) error {
	var e *criufile.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	bare := *e
	bare.Path = ""
	return damaged(i, path.Join(images.CRIU, file), "cannot be read: "+bare.Error())
}

// mappedFiles reads what mappings can be of, once.
func (m *Memory) mappedFiles() (map[uint64]mapped, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mapped != nil {
		return m.mapped, nil
	}
	image := m.chain[0]
	inodes, err := criufile.Load[memfdEntry](filepath.Join(image.CRIUDir(), "memfd.img"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unreadable(image, "memfd.img", err)
	}
	files, err := criufile.Load[fileEntry](filepath.Join(image.CRIUDir(), "files.img"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unreadable(image, "files.img", err)
	}
	memfds := make(map[uint64]mapped, len(inodes))
	for _, i := range inodes {
		memfds[i.Inode] = mapped{i.Name, i.ID}
	}
	m.mapped = make(map[uint64]mapped, len(files))
	for _, f := range files {
		if f.Regular != nil {
			m.mapped[f.ID] = mapped{name: f.Regular.Name}
		} else if f.Memfd != nil {
			m.mapped[f.ID] = memfds[f.Memfd.Inode]
		}
	}
	return m.mapped, nil
}

func (v vmaEntry) mapping(stack uint64, files map[uint64]mapped) Mapping {
	p := Mapping{Start: v.Start, End: v.End, Prot: v.Prot, Flags: v.Flags, Advice: v.Advice}
	perm := []byte("---p")
	for n, c := range "rwx" {
		if v.Prot&(1<<n) != 0 {
			perm[n] = byte(c)
		}
	}
	if v.Flags&mapShared != 0 {
		perm[3] = 's'
	}
	p.Permissions = string(perm)
	has := func(status uint32) bool { return v.Status&status != 0 }
	switch {
	case has(statusVDSO):
		p.Kind, p.Name = VDSO, "[vdso]"
	case has(statusVVAR):
		p.Kind, p.Name = VVAR, "[vvar]"
	case has(statusVSyscall):
		p.Kind, p.Name = VSyscall, "[vsyscall]"
	case has(statusSysVIPC):
		p.Kind, p.Name, p.Offset, p.Shared = SharedMemory, "/SYSV", v.Offset, v.ID
	case has(statusMemfd) && has(statusFileShared):
		f := files[v.ID]
		p.Kind, p.Name, p.Offset, p.Shared = SharedMemory, f.name, v.Offset, f.shared
	case has(statusAnonShared):
		p.Kind, p.Name, p.Offset, p.Shared = SharedMemory, "/dev/zero", v.Offset, v.ID
	case has(statusFilePrivate | statusFileShared):
		p.Kind, p.Name, p.Offset = File, files[v.ID].name, v.Offset
	case has(statusSocket):
		p.Kind, p.Name = Socket, "socket:"
	case has(statusAIO):
		p.Kind, p.Name = AIO, "/[aio]"
	case has(statusHeap):
		p.Kind, p.Name = Heap, "[heap]"
	case v.Flags&mapGrowsDown != 0 || v.Start <= stack && stack < v.End:
		p.Kind, p.Name = Stack, "[stack]"
	case has(statusAnonPrivate):
		p.Kind = Anonymous
	default:
		p.Kind = Other
	}
	return p
}

// Content is where a mapping's pages are: a space, and the address of the first
// of them there.
func (m *Memory) Content(pid int, p Mapping) (space *Space, from uint64, err error) {
	if p.Kind == SharedMemory {
		space, err = m.Shared(p.Shared)
		return space, p.Offset, err
	}
	space, err = m.Process(pid)
	return space, p.Start, err
}

// Usage says where the pages of a mapping are.
type Usage struct {
	// Here: in the image itself. Parents: in an image that it builds on.
	Here, Parents uint64
	// Remote: in no image, they stayed with the process.
	Remote uint64
	// Zero: not dumped, as they hold zeros. Elsewhere: not dumped, as the file
	// that is mapped has them, or the kernel makes them.
	Zero, Elsewhere uint64
}

// Usage counts the pages of a mapping.
func (m *Memory) Usage(pid int, p Mapping) (u Usage, err error) {
	space, from, err := m.Content(pid, p)
	if err != nil {
		return u, err
	}
	rest := p.Size() / m.pageSize
	for _, r := range space.Between(from, from+p.Size()) {
		rest -= r.Pages
		switch {
		case r.Remote:
			u.Remote += r.Pages
		case r.Layer == 0:
			u.Here += r.Pages
		default:
			u.Parents += r.Pages
		}
	}
	if p.Zero() {
		u.Zero = rest
	} else {
		u.Elsewhere = rest
	}
	return u, nil
}
