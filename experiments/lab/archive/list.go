package archive

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"
)

// Kinds of entries.
const (
	KernelKind = "kernel"
	CRIUKind   = "criu"
)

// Entry is a kernel or a CRIU that can be had.
type Entry struct {
	Kind    string `json:"kind"`              // "kernel" or "criu"
	Version string `json:"version"`           // that of its authors: 6.12.113, 7.3-rc7, 4.1.1
	Release string `json:"release,omitempty"` // of a kernel, as uname -r shows it
	Package string `json:"package"`           // version of the packages
	Suite   string `json:"suite,omitempty"`   // "" if it is in the cache only
	Size    int64  `json:"size"`              // of the packages, in bytes; of CRIU without its libraries
	Cached  bool   `json:"cached"`

	packages []pkg
}

// List is what the archive and the cache have, kernels first, the oldest
// first.
func (a *Archive) List(ctx context.Context) ([]Entry, error) {
	x, err := a.index(ctx, dayOld)
	list := append(a.entries(x, KernelKind), a.entries(x, CRIUKind)...)
	if err != nil && (len(list) == 0 || ctx.Err() != nil) {
		return nil, err
	}
	return list, nil
}

// entries joins what the index and the cache have of a kind.
func (a *Archive) entries(x *index, kind string) []Entry {
	list := x.criu()
	if kind == KernelKind {
		list = x.kernels()
	}
	for _, c := range a.cached(kind) {
		i := slices.IndexFunc(list, func(e Entry) bool { return e.Package == c.Package })
		if i < 0 {
			list = append(list, c)
		} else {
			list[i].Cached = true
		}
	}
	slices.SortStableFunc(list, func(a, b Entry) int {
		return cmp.Or(compare(a.Version, b.Version), suiteRank(a.Suite)-suiteRank(b.Suite), compare(a.Release, b.Release))
	})
	return list
}

// suiteRank orders suites, the older first, an addition behind its base.
func suiteRank(suite string) int {
	base, _, _ := strings.Cut(suite, "-")
	rank := 2 * slices.Index(suites(false), base)
	if base != suite {
		rank++
	}
	return rank
}

// cached lists what is in the cache, without looking closely.
func (a *Archive) cached(kind string) []Entry {
	dirs, err := os.ReadDir(a.path(kind))
	if err != nil {
		return nil
	}
	var list []Entry
	for _, dir := range dirs {
		if strings.HasPrefix(dir.Name(), unfinished) {
			continue
		}
		c, err := readContents(a.path(kind, dir.Name()))
		if err != nil || c.Kind != kind {
			continue
		}
		list = append(list, Entry{Kind: kind, Version: c.Version, Release: c.Release, Package: c.Package, Size: c.Size, Cached: true})
	}
	return list
}

// kernels are those whose packages hold one: from Linux 6.19 on it is in
// linux-binary and linux-modules, and linux-image only depends on these.
func (x *index) kernels() []Entry {
	var list []Entry
	for _, p := range x.Packages {
		kind, release := kernelPackage(p.Name)
		if kind == "" {
			continue
		}
		same := func(e Entry) bool { return e.Release == release && e.Package == p.Version }
		i := slices.IndexFunc(list, same)
		if i < 0 {
			i = len(list)
			list = append(list, Entry{Kind: KernelKind, Version: upstream(p.Version), Release: release, Package: p.Version, Suite: p.Suite})
		}
		if list[i].Suite == p.Suite {
			list[i].Size += p.Size
			list[i].packages = append(list[i].packages, p)
		}
	}
	return slices.DeleteFunc(list, func(e Entry) bool { return !e.whole() })
}

// whole tells whether a kernel's packages are all there: some suites have a
// linux-binary without its linux-modules. One without either is no kernel but a
// name for the newest one.
func (e Entry) whole() bool {
	return slices.ContainsFunc(e.packages, func(p pkg) bool {
		kind, _ := kernelPackage(p.Name)
		return kind == "modules" || kind == "image" && p.Size > 4<<20
	})
}

// kernelPackage takes the name of a package of one kernel apart.
func kernelPackage(name string) (kind, release string) {
	for _, kind := range []string{"image", "binary", "modules", "base"} {
		release, ok := strings.CutPrefix(name, "linux-"+kind+"-")
		if ok && release != "" && release[0] >= '0' && release[0] <= '9' {
			return kind, release
		}
	}
	return "", ""
}

// criu are the packages of that name, each with the library of its own source.
func (x *index) criu() []Entry {
	var list []Entry
	for _, p := range x.Packages {
		if p.Name == "criu" && !slices.ContainsFunc(list, func(e Entry) bool { return e.Package == p.Version }) {
			list = append(list, Entry{Kind: CRIUKind, Version: upstream(p.Version), Package: p.Version, Suite: p.Suite, Size: p.Size, packages: []pkg{p}})
		}
	}
	for _, p := range x.Packages {
		for i, e := range list {
			if p.Name == "libcompel1" && p.Version == e.Package && p.Suite == e.Suite {
				list[i].packages = append(e.packages, p)
			}
		}
	}
	return list
}
