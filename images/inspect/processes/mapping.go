package processes

import "crucible/proto/imagepb"

// mm is mm_entry.
type mm struct {
	CodeStart  uint64 `criu:"mm_start_code"`
	CodeEnd    uint64 `criu:"mm_end_code"`
	DataStart  uint64 `criu:"mm_start_data"`
	DataEnd    uint64 `criu:"mm_end_data"`
	StackStart uint64 `criu:"mm_start_stack"`
	BrkStart   uint64 `criu:"mm_start_brk"`
	Brk        uint64 `criu:"mm_brk"`
	ArgStart   uint64 `criu:"mm_arg_start"`
	ArgEnd     uint64 `criu:"mm_arg_end"`
	EnvStart   uint64 `criu:"mm_env_start"`
	EnvEnd     uint64 `criu:"mm_env_end"`
	VMAs       []vma  `criu:"vmas"`
	Dumpable   int32  `criu:"dumpable"`
	NoTHP      bool   `criu:"thp_disabled"`
}

type vma struct {
	Start  uint64 `criu:"start"`
	End    uint64 `criu:"end"`
	Offset uint64 `criu:"pgoff"` // bytes, in spite of its name (criu/proc_parse.c)
	ID     uint64 `criu:"shmid"`
	Prot   uint32 `criu:"prot"`
	Flags  uint32 `criu:"flags"`
	Status uint32 `criu:"status"`
	Advice uint64 `criu:"madv"`
}

// Bits of a mapping's status (criu/include/image.h).
const (
	statusVSyscall = 1 << 2
	statusVDSO     = 1 << 3
	statusHeap     = 1 << 5
	statusFile     = 1<<6 | 1<<7 // private, shared
	statusShared   = 1 << 8
	statusAnon     = 1 << 9
	statusSysVIPC  = 1 << 10
	statusSocket   = 1 << 11
	statusVVAR     = 1 << 12
	statusAIO      = 1 << 13
	statusMemfd    = 1 << 14

	growsDown = 0x100 // MAP_GROWSDOWN
)

// memory reads the address space of a process. One that shares another's has no
// file of its own, nor has a zombie.
func (r reader) memory(p *imagepb.Process) error {
	p.AddressSpace, p.Mappings = nil, nil
	all, err := load[mm](r, "mm-%d.img", p.Pid)
	if err != nil || len(all) == 0 {
		return err
	}
	m := all[0]
	p.AddressSpace = &imagepb.AddressSpace{
		CodeStart: m.CodeStart, CodeEnd: m.CodeEnd, DataStart: m.DataStart, DataEnd: m.DataEnd, BrkStart: m.BrkStart, Brk: m.Brk,
		StackStart: m.StackStart, ArgumentsStart: m.ArgStart, ArgumentsEnd: m.ArgEnd, EnvironmentStart: m.EnvStart, EnvironmentEnd: m.EnvEnd,
		Dumpable: m.Dumpable, HugePagesDisabled: m.NoTHP,
	}
	p.Mappings = make([]*imagepb.Mapping, 0, len(m.VMAs))
	for _, v := range m.VMAs {
		p.Mappings = append(p.Mappings, r.mapping(v, m.StackStart))
	}
	return nil
}

func (r reader) mapping(v vma, stack uint64) *imagepb.Mapping {
	out := &imagepb.Mapping{Start: v.Start, End: v.End, Protection: v.Prot, Flags: v.Flags, Advice: v.Advice, Kind: v.kind(stack)}
	switch {
	case v.Status&statusMemfd != 0:
		f := r.files[uint32(v.ID)]
		out.Offset, out.Path, out.Shared = v.Offset, f.GetPath(), f.GetValue()
	case v.Status&statusFile != 0:
		out.Offset, out.Path = v.Offset, r.files[uint32(v.ID)].GetPath()
	case v.Status&(statusShared|statusSysVIPC) != 0:
		out.Offset, out.Shared = v.Offset, v.ID
	}
	return out
}

func (v vma) kind(stack uint64) string {
	for _, k := range []struct {
		bits uint32
		kind string
	}{
		{statusVDSO, "vdso"}, {statusVVAR, "vvar"}, {statusVSyscall, "vsyscall"}, {statusSocket, "socket"}, {statusAIO, "aio"},
		{statusMemfd | statusSysVIPC | statusShared, "shared memory"}, {statusFile, "file"}, {statusHeap, "heap"},
	} {
		if v.Status&k.bits != 0 {
			return k.kind
		}
	}
	switch {
	case v.Flags&growsDown != 0 || v.Start <= stack && stack < v.End:
		return "stack"
	case v.Status&statusAnon != 0:
		return "anonymous"
	}
	return "other"
}
