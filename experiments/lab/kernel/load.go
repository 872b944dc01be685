package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Module is one to be loaded.
type Module struct {
	Name string // as /proc/modules shows it, with "_"
	Data []byte // the ELF file, for init_module(2)
}

// Misfit says that a module was built for another kernel.
type Misfit struct {
	Dir     string
	Module  string
	Release string // of the kernel it was built for
	Kernel  string // the one that is to load it
}

func (e *Misfit) Error() string {
	return fmt.Sprintf("modules %s: modules that do not fit: %s is for %s, the kernel is %s", e.Dir, e.Module, e.Release, e.Kernel)
}

// Hint says where the right ones are.
func (e *Misfit) Hint() string {
	return "give the modules of the same build: make modules, or lib/modules/" + e.Kernel
}

// Load reads modules and what they need, in the order in which they must be
// loaded, each once. A name is spelled with "-" or "_", is a pattern as
// path.Match takes it, nft_*, or an alias. What is built into the kernel is
// left out; what is neither there nor built in is absent, in the spelling of
// the caller. A needed module that is missing is an error; a merely recommended
// one (softdep) is not.
//
// An alias may have several providers, of which some refuse to load where the
// processor lacks something: ENODEV and EEXIST from init_module are no faults.
func (m *Modules) Load(names []string) (list []Module, absent []string, err error) {
	l := loading{m: m, state: map[string]state{}}
	for _, name := range names {
		found, err := m.find(name)
		if err != nil {
			return nil, nil, err
		}
		if found == nil {
			absent = append(absent, name)
		}
		for _, name := range found {
			if err := l.visit(name, nil); err != nil {
				return nil, nil, err
			}
		}
	}
	return l.list, absent, nil
}

// find gives the modules that a name stands for. Of one that is built in that
// is an empty list, of an unknown one nil.
func (m *Modules) find(name string) ([]string, error) {
	want := plain(name)
	if strings.ContainsAny(want, "*?[") {
		return m.match(want)
	}
	if m.files[want] != "" {
		return []string{want}, nil
	}
	if m.builtin[want] {
		return []string{}, nil
	}
	if err := m.readAliases(); err != nil {
		return nil, err
	}
	return m.aliases[want], nil
}

func (m *Modules) match(pattern string) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("modules %s: %s: %w", m.dir, pattern, err)
	}
	matches := func(name string) bool { ok, _ := path.Match(pattern, name); return ok }
	var found []string
	for name := range m.files {
		if matches(name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	for name := range m.builtin {
		if found == nil && matches(name) {
			return []string{}, nil
		}
	}
	return found, nil
}

// readAliases reads the .modinfo of every module, and that of the kernel
// itself, where an alias of something built in stands for nothing to load.
func (m *Modules) readAliases() error {
	if m.aliases != nil {
		return nil
	}
	aliases := map[string][]string{}
	names := make([]string, 0, len(m.files))
	for name := range m.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		info, err := m.info(name)
		if err != nil {
			return err
		}
		for _, alias := range info.aliases {
			if !slices.Contains(aliases[alias], name) {
				aliases[alias] = append(aliases[alias], name)
			}
		}
	}
	// "module.key=value" strings, Documentation/kbuild/kbuild.rst.
	data, err := os.ReadFile(filepath.Join(m.dir, "modules.builtin.modinfo"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("modules %s: %w", m.dir, err)
	}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		_, rest, _ := strings.Cut(string(entry), ".")
		if alias, ok := strings.CutPrefix(rest, "alias="); ok && aliases[plain(alias)] == nil {
			aliases[plain(alias)] = []string{}
		}
	}
	m.aliases = aliases
	return nil
}

// info is the .modinfo of a module. A plain file is not read whole.
func (m *Modules) info(name string) (modinfo, error) {
	if mod := m.read[name]; mod != nil {
		return mod.modinfo, nil
	}
	file := filepath.Join(m.dir, m.files[name])
	if filepath.Ext(file) != ".ko" {
		mod, err := readModule(file)
		return mod.modinfo, err
	}
	f, err := os.Open(file)
	if err != nil {
		return modinfo{}, fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	info, err := readModinfo(f)
	if err != nil {
		return modinfo{}, fmt.Errorf("module %s: %w", file, err)
	}
	return info, nil
}

// open reads a module whole, once.
func (m *Modules) open(name string) (module, error) {
	if mod := m.read[name]; mod != nil {
		return *mod, nil
	}
	mod, err := readModule(filepath.Join(m.dir, m.files[name]))
	if err == nil {
		m.read[name] = &mod
	}
	return mod, err
}

func readModule(file string) (module, error) {
	f, err := os.Open(file)
	if err != nil {
		return module{}, fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	_, data, err := ReadModule(file, f)
	if err != nil {
		return module{}, err
	}
	info, err := readModinfo(bytes.NewReader(data))
	if err != nil {
		return module{}, fmt.Errorf("module %s: %w", file, err)
	}
	return module{modinfo: info, data: data}, nil
}

type state int

const (
	unseen state = iota
	waiting
	listed
)

// loading is one call of Load.
type loading struct {
	m     *Modules
	state map[string]state
	list  []Module
}

// visit lists a module behind what it needs. trail is what led to it.
func (l *loading) visit(name string, trail []string) error {
	switch l.state[name] {
	case listed:
		return nil
	case waiting:
		return fmt.Errorf("modules %s: %s -> %s: they need each other", l.m.dir, strings.Join(trail, " -> "), name)
	}
	l.state[name] = waiting
	trail = append(slices.Clone(trail), name)
	mod, err := l.m.open(name)
	if err != nil {
		return err
	}
	if l.m.release != "" && mod.release != l.m.release {
		return &Misfit{Dir: l.m.dir, Module: name, Release: mod.release, Kernel: l.m.release}
	}
	for _, need := range mod.depends {
		if l.m.files[need] == "" {
			if l.m.builtin[need] {
				continue
			}
			return fmt.Errorf("modules %s: %s needs %s, which is not there", l.m.dir, name, need)
		}
		if err := l.visit(need, trail); err != nil {
			return err
		}
	}
	for _, want := range mod.pre {
		found, err := l.m.find(want)
		if err != nil {
			return err
		}
		for _, name := range found {
			if l.state[name] == waiting {
				continue // a recommendation may point back
			}
			if err := l.visit(name, trail); err != nil {
				return err
			}
		}
	}
	l.list = append(l.list, Module{Name: name, Data: mod.data})
	l.state[name] = listed
	return nil
}
