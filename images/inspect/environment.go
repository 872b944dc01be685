package inspect

import (
	"errors"
	"fmt"

	"crucible/images"
	"crucible/images/inspect/memory"
)

// Environment is the environment of a process, KEY=VALUE each, as it lies where the
// kernel put it when the program began. What the program has changed since then
// is elsewhere in its memory, unless it was changed in place.
func Environment(i *images.Image, pid int) ([]string, error) {
	r, err := newReader(i)
	if err != nil {
		return nil, err
	}
	mm, err := loadOne[mmEntry](r, "mm-%d.img", pid)
	if err != nil {
		return nil, err
	}
	m, err := memory.Open(i)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	space, err := m.Process(pid)
	if err != nil {
		return nil, err
	}
	all, err := stringsAt(space, mm.EnvStart, mm.EnvEnd)
	var absent *memory.Absent
	if errors.As(err, &absent) {
		return all, fmt.Errorf("image %s: environment of process %d: %w", i.Ref(), pid, err)
	}
	return all, err
}
