package edit

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"crucible/images"
	"crucible/images/inspect/memory"
)

// environment changes variables in the bundle, from where `crucible exec` takes
// them, and in the memory of the processes, where that is possible.
func (e *Edit) environment() error {
	for _, v := range e.o.Env {
		key, _, ok := strings.Cut(v, "=")
		if !ok || key == "" || strings.ContainsRune(v, 0) {
			return e.refuse("such as MODE=test", "variable %q: must be KEY=VALUE", v)
		}
	}
	if len(e.o.Env) == 0 {
		return nil
	}
	for _, v := range e.o.Env {
		e.bundleVariable(v)
	}
	return e.memoryVariables()
}

// variable is a variable of the bundle's environment.
func (e *Edit) variable(key string) string {
	for _, v := range e.bundle.list("process", "env") {
		if value, is := strings.CutPrefix(text(v), key+"="); is {
			return value
		}
	}
	return ""
}

// sets tells whether the user changes a variable.
func (e *Edit) sets(key string) bool {
	return slices.ContainsFunc(e.o.Env, func(v string) bool { return strings.HasPrefix(v, key+"=") })
}

func (e *Edit) bundleVariable(v string) {
	key, value, _ := strings.Cut(v, "=")
	all := slices.Clone(e.bundle.list("process", "env"))
	old, found := "", false
	for i := range all {
		if was, is := strings.CutPrefix(text(all[i]), key+"="); is {
			old, found = was, true
			all[i] = v
		}
	}
	if !found {
		all = append(all, v)
	}
	if found && old == value {
		return
	}
	e.change(images.Bundle, "process.env "+key, old, value)
	e.bundle.set(e.bundle.object("process"), "env", all)
}

// patch replaces bytes of a file of pages.
type patch struct {
	file   string // pages-1.img
	offset int64
	data   []byte
}

// memoryVariables looks for the variables in the environment that the kernel gave
// each program: the bytes between mm_env_start and mm_env_end, "KEY=VALUE" with a
// NUL behind each. The program and its C library point into them, so a value can
// be replaced by one that is no longer, and nothing can be added.
func (e *Edit) memoryVariables() error {
	m, err := memory.Open(e.image)
	if err != nil {
		return err
	}
	defer m.Close()
	for _, pid := range m.Pids() {
		from, to, err := e.environOf(pid)
		if err != nil {
			return err
		}
		if from == 0 || to <= from || to-from > maxEnviron {
			continue
		}
		space, err := m.Process(pid)
		if err != nil {
			return err
		}
		block := make([]byte, to-from)
		if _, err := space.ReadAt(block, int64(from)); err != nil {
			e.note("process %d: its environment is not in the image (%v): the variables are changed for programs that are started later", pid, err)
			continue
		}
		for _, v := range e.o.Env {
			if err := e.patchVariable(m, space, pid, from, block, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxEnviron is what arguments and environment may have together: a quarter of
// the largest stack of execve(2), 6 MiB, and more than anybody uses.
const maxEnviron = 6 << 20

// environOf reads mm_entry of CRIU's mm.proto.
func (e *Edit) environOf(pid int) (from, to uint64, err error) {
	const envStart, envEnd = 10, 11
	file := fmt.Sprintf("%s/mm-%d.img", images.CRIU, pid)
	b, err := e.read(file)
	if err != nil {
		return 0, 0, err
	}
	_, err = rewriteEntries(b, magicMM, func(entry []byte) ([]byte, error) {
		return entry, fields(entry, func(f field) {
			switch f.number {
			case envStart:
				from = f.varint()
			case envEnd:
				to = f.varint()
			}
		})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("image %s: %s: %w", e.image.Ref(), file, err)
	}
	return from, to, nil
}

// patchVariable changes a variable in a process, everywhere where it is.
func (e *Edit) patchVariable(m *memory.Memory, space *memory.Space, pid int, start uint64, block []byte, v string) error {
	key, value, _ := strings.Cut(v, "=")
	for at := 0; at < len(block); {
		end := bytes.IndexByte(block[at:], 0)
		if end < 0 {
			break
		}
		old, is := strings.CutPrefix(string(block[at:at+end]), key+"=")
		if is && old != value {
			if len(v) > end {
				e.note("process %d: %s stays %q: the new value has %d bytes more, and there is no room for them", pid, key, old, len(v)-end)
			} else if ok, err := e.patchAt(m, space, start+uint64(at), append([]byte(v), make([]byte, end-len(v))...)); err != nil {
				return err
			} else if !ok {
				e.note("process %d: %s stays %q: its memory is in the image that this one builds on", pid, key, old)
			} else {
				e.change(fmt.Sprintf("memory of process %d", pid), "environment "+key, old, value)
			}
		}
		at += end + 1
	}
	return nil
}

// patchAt collects what is to be written, unless some of it is in a parent.
func (e *Edit) patchAt(m *memory.Memory, space *memory.Space, addr uint64, data []byte) (ok bool, err error) {
	var all []patch
	size := m.PageSize()
	for rest := data; len(rest) > 0; {
		n := min(uint64(len(rest)), size-addr%size)
		runs := space.Between(addr, addr+n)
		if len(runs) != 1 || runs[0].Layer != 0 || runs[0].Remote {
			return false, nil
		}
		all = append(all, patch{runs[0].File, runs[0].Offset + int64(addr%size), rest[:n]})
		rest, addr = rest[n:], addr+n
	}
	e.patches = append(e.patches, all...)
	slices.SortStableFunc(e.patches, func(a, b patch) int { return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.offset, b.offset)) })
	return true, nil
}
