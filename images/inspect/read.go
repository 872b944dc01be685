package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"crucible/images"
	"crucible/images/inspect/criufile"
)

// Contents is what an image holds of a container's processes.
type Contents struct {
	// Processes are in the order in which CRIU found them: parents first.
	Processes []*Process
	// Files are what they have open, by the id that CRIU gave them.
	Files []*File
}

// Read reads the image's processes and files.
func Read(i *images.Image) (*Contents, error) {
	r, err := newReader(i)
	if err != nil {
		return nil, err
	}
	c := &Contents{}
	if c.Processes, err = r.processes(); err != nil {
		return nil, err
	}
	if c.Files, err = r.files(); err != nil {
		return nil, err
	}
	return c, r.link(c)
}

// Process finds a process by its pid in the container.
func (c *Contents) Process(pid int) *Process {
	for _, p := range c.Processes {
		if p.Pid == pid {
			return p
		}
	}
	return nil
}

// reader reads CRIU's files of one image.
type reader struct {
	image *images.Image
}

func newReader(i *images.Image) (*reader, error) {
	if i.Manifest.GetTraits().GetPreDump() {
		return nil, &images.Error{Kind: images.PreDump, Ref: i.Ref(), Text: "holds memory only: it was written for other images to build on",
			Advice: "look at the image that builds on it"}
	}
	return &reader{i}, nil
}

// load reads a file of CRIU's that must be there.
func load[T any](r *reader, format string, args ...any) ([]T, error) {
	name := fmt.Sprintf(format, args...)
	all, err := criufile.Load[T](filepath.Join(r.image.CRIUDir(), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r.damaged(name, "is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", r.image.Ref(), err)
	}
	return all, nil
}

// loadOne reads a file that has one entry.
func loadOne[T any](r *reader, format string, args ...any) (one T, err error) {
	all, err := load[T](r, format, args...)
	if err == nil && len(all) == 0 {
		err = r.damaged(fmt.Sprintf(format, args...), "has no entry")
	}
	if err != nil {
		return one, err
	}
	return all[0], nil
}

// loadMaybe reads a file that CRIU leaves out where there is nothing to say.
func loadMaybe[T any](r *reader, format string, args ...any) ([]T, error) {
	all, err := criufile.Load[T](filepath.Join(r.image.CRIUDir(), fmt.Sprintf(format, args...)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", r.image.Ref(), err)
	}
	return all, nil
}

func (r *reader) damaged(name, text string) error {
	return &images.Error{Kind: images.Damaged, Ref: r.image.Ref(), File: filepath.Join(images.CRIU, name), Text: text,
		Advice: "`crucible image verify " + r.image.Ref() + "` tells what else differs"}
}
