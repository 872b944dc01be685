package workload

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/checkpoint/criu"
	"crucible/container/cgroup"
	"crucible/container/host"
)

// Features are what this kernel and this CRIU can do, as far as cases need it.
//
// A need is named as `crucible doctor` names it: "memory/soft-dirty" is a row
// of container/host, "criu/uffd" one of `criu check --feature`. Here are added:
//
//	freezer/v1, freezer/v2   which of them the engine freezes by
//	controller/memory, ...   a cgroup controller
//	sockets/unix, ...        CRIU finds sockets of the kind
//	criu/version             one that the engine can use
//	machine/two processors
//	machine/huge page        one that is free, of the default size
type Features struct {
	// Lacks has what is missing, and why. What could not be found out is not in
	// it: its cases run, and show.
	Lacks map[string]string `json:"lacks"`
}

// always are the needs of every case: what the engine makes any container of,
// and what CRIU does not start without. Without a name for them a kernel whose
// modules were not found would fail each case.
func always() []string {
	return []string{
		"kernel/checkpoint/restore", "kernel/kcmp", "kernel/map_files", "memory/pagemap",
		"namespaces/pid", "namespaces/mnt", "namespaces/uts", "namespaces/ipc", "namespaces/net",
		"filesystems/overlay", "filesystems/pseudo filesystems", nftables, newCRIU,
	}
}

// nftables is a need of a CRIU that was built with it: it makes a table when it
// starts (criu/kerndat.c: kerndat_has_nftables_concat).
const nftables = "network/nftables"

// newCRIU is a CRIU that the engine can use.
const newCRIU = "criu/version"

// lack is the first need that is not met.
func (f *Features) lack(needs []string) *LackError {
	for _, need := range append(always(), needs...) {
		if why, lacks := f.Lacks[need]; lacks {
			return &LackError{need, why}
		}
	}
	return nil
}

// Probe finds out, by doing it, what the cases need. It asks CRIU only for what
// one of them needs, a process each: some 10 ms. The error is that of the
// context.
func Probe(ctx context.Context, found *criu.CRIU, cases []Case) (*Features, error) {
	f := &Features{Lacks: map[string]string{}}
	for _, row := range host.Probe(ctx, host.Options{}) {
		if row.State == host.Missing {
			f.Lacks[row.Group+"/"+row.Name] = row.Detail
		}
	}
	if _, lacks := f.Lacks[nftables]; lacks && found.Check(ctx) == nil {
		delete(f.Lacks, nftables)
	}
	version, err := found.Version(ctx)
	if err != nil {
		return nil, err
	}
	if err := version.Suffices(); err != nil {
		f.Lacks[newCRIU] = err.Error()
	}
	f.askCgroups()
	f.askMachine()
	f.askSockets()
	for _, c := range cases {
		for _, need := range c.Needs {
			name, ok := strings.CutPrefix(need, "criu/")
			if _, known := f.Lacks[need]; !ok || known {
				continue
			}
			row, err := found.Feature(ctx, name)
			if err != nil {
				return nil, err
			}
			// One that this CRIU has never heard of it cannot use, either.
			if row.State != criu.Have {
				f.Lacks[need] = row.Detail
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("probe features: %w", err)
	}
	return f, nil
}

func (f *Features) askCgroups() {
	layout, err := cgroup.Detect()
	if err != nil {
		return // each case will say so
	}
	version, has := 1, []string{}
	for _, h := range layout.Hierarchies {
		has = append(has, h.Controllers...)
		if h.Version == 2 && slices.Contains(h.Controllers, "freezer") {
			version = 2
		}
	}
	other := 3 - version
	f.Lacks[fmt.Sprintf("freezer/v%d", other)] = fmt.Sprintf("containers are frozen by cgroup v%d here", version)
	for _, c := range controllers() {
		if !slices.Contains(has, c) {
			f.Lacks["controller/"+c] = "no cgroup hierarchy has it"
		}
	}
}

func controllers() []string { return []string{"memory", "pids", "cpu"} }

func (f *Features) askMachine() {
	if n := runtime.NumCPU(); n < 2 {
		f.Lacks["machine/two processors"] = fmt.Sprintf("there is %d", n)
	}
	page, err := unix.Mmap(-1, 0, hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
	if err != nil {
		f.Lacks["machine/huge page"] = err.Error()
		return
	}
	_ = unix.Munmap(page)
}

func (f *Features) askSockets() {
	kinds, err := host.Undiagnosed()
	if err != nil {
		return // the cases will show
	}
	for _, kind := range kinds {
		f.Lacks["sockets/"+kind] = "sock_diag knows none, as without the module for it"
	}
}
