package edit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"crucible/images"
	"crucible/proto/imagepb"
)

// Options say what is to be different. What is zero stays as it is.
type Options struct {
	Hostname string
	Address  netip.Prefix // on the bridge; a /32 has the bridge's length
	TCPClose bool         // with another address: close the TCP connections
	Env      []string     // KEY=VALUE
	Volumes  []Volume
	Limits   *specs.LinuxResources // memory, processors and tasks; -1 is none
}

// Volume is a bind mount from the host whose place there changes.
type Volume struct {
	Of   string // its path on the host, or in the container
	Path string // the new one on the host
}

// Change is one value of one file.
type Change struct {
	File string `json:"file"`
	What string `json:"what"`
	Old  string `json:"old"` // "": there was none
	New  string `json:"new"` // "": there is none any more
}

func (c Change) String() string {
	return fmt.Sprintf("%s: %s: %s -> %s", c.File, c.What, cmp.Or(c.Old, "none"), cmp.Or(c.New, "none"))
}

// OptionError is a change that this image cannot have.
type OptionError struct {
	Ref    string
	Text   string
	Advice string
}

func (e *OptionError) Error() string { return fmt.Sprintf("edit image %s: %s", e.Ref, e.Text) }

// Hint says what to do about it.
func (e *OptionError) Hint() string { return e.Advice }

// Edit is an image that is to be, and that nobody has written yet.
type Edit struct {
	image *images.Image
	hold  *os.File
	o     Options

	bundle     *bundle
	namespaces imagepb.Namespaces
	mounts     imagepb.Mounts
	traits     *imagepb.Traits
	files      map[string][]byte // new contents
	gone       map[string]bool   // files that are to be left out
	patches    []patch           // of memory

	changes []Change
	notes   []string
}

// New finds out what a change of an image comes to, and refuses what the image
// cannot have: an *OptionError. Nothing is written. The caller closes it.
func New(image *images.Image, o Options) (*Edit, error) {
	if err := image.CheckWhole(); err != nil {
		return nil, err
	}
	e := &Edit{image: image, o: o, files: map[string][]byte{}, gone: map[string]bool{}}
	e.traits = proto.CloneOf(image.Manifest.GetTraits())
	if e.traits == nil {
		e.traits = &imagepb.Traits{}
	}
	var err error
	if e.hold, err = image.Hold(); err != nil {
		return nil, err
	}
	if err := e.find(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// find reads what can be changed, and changes it.
func (e *Edit) find() error {
	_, data, err := e.image.Spec()
	if err != nil {
		return err
	}
	if e.bundle, err = readBundle(data); err != nil {
		return fmt.Errorf("image %s: %s: %w", e.image.Ref(), images.Bundle, err)
	}
	for file, m := range map[string]proto.Message{images.Namespaces: &e.namespaces, images.Mounts: &e.mounts} {
		if err := e.image.Get(file, m); err != nil {
			return err
		}
	}
	for _, step := range []func() error{e.hostname, e.address, e.environment, e.volumes, e.limits} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, f := range e.image.Manifest.Files {
		if f.Path == images.Fingerprint {
			e.gone[f.Path] = true
			e.note("its fingerprint is left out: it is of a container without these changes, and restore --verify would find them")
		}
	}
	return nil
}

// Close lets the image go. A second time it does nothing.
func (e *Edit) Close() {
	if e.hold != nil {
		e.hold.Close()
		e.hold = nil
	}
}

// Changes are what is different, in the order of the files.
func (e *Edit) Changes() []Change {
	all := slices.Clone(e.changes)
	slices.SortStableFunc(all, func(a, b Change) int { return cmp.Compare(a.File, b.File) })
	return all
}

// Notes say what stays as it was although one might think otherwise.
func (e *Edit) Notes() []string { return e.notes }

func (e *Edit) change(file, what string, before, after any) {
	e.changes = append(e.changes, Change{File: file, What: what, Old: text(before), New: text(after)})
}

func (e *Edit) note(format string, args ...any) {
	e.notes = append(e.notes, fmt.Sprintf(format, args...))
}

func (e *Edit) refuse(advice, format string, args ...any) error {
	return &OptionError{Ref: e.image.Ref(), Text: fmt.Sprintf(format, args...), Advice: advice}
}

// namespace is the one of a kind, or nil.
func (e *Edit) namespace(kind imagepb.NamespaceKind) *imagepb.Namespace {
	for _, n := range e.namespaces.Namespaces {
		if n.Kind == kind {
			return n
		}
	}
	return nil
}

// criuFiles finds CRIU's files by a pattern, as paths in the image.
func (e *Edit) criuFiles(pattern string) (files []string, err error) {
	found, err := filepath.Glob(filepath.Join(e.image.CRIUDir(), pattern))
	for _, f := range found {
		files = append(files, filepath.Join(images.CRIU, filepath.Base(f)))
	}
	return files, err
}

// read is a file of the image, as it is to be so far.
func (e *Edit) read(file string) ([]byte, error) {
	if b, ok := e.files[file]; ok {
		return b, nil
	}
	return os.ReadFile(filepath.Join(e.image.Dir(), file))
}

// WriteOptions of Write. The zero value works.
type WriteOptions struct {
	Command []string // the command line, for the manifest
}

// Write makes the new image, the newest of its container.
func (e *Edit) Write(ctx context.Context, o WriteOptions) (*images.Image, error) {
	if len(e.changes) == 0 {
		return nil, e.refuse("its values are those already: `crucible image show "+e.image.Ref()+"`", "nothing would be different")
	}
	d, err := e.image.Store().Draft(ctx, e.image.Name)
	if err != nil {
		return nil, err
	}
	made, err := e.write(ctx, d, o)
	return made, errors.Join(err, d.Discard())
}

func (e *Edit) write(ctx context.Context, d *images.Draft, o WriteOptions) (*images.Image, error) {
	if e.bundle.changed {
		b, err := e.bundle.bytes()
		if err != nil {
			return nil, err
		}
		e.files[images.Bundle] = b
	}
	written := func(file string) bool {
		_, anew := e.files[file]
		return anew || e.gone[file] || file == images.Namespaces || file == images.Mounts || e.patched(file)
	}
	if err := d.Take(ctx, e.image, written); err != nil {
		return nil, err
	}
	for file, b := range e.files {
		if err := d.Write(file, b); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(d.Put(images.Namespaces, &e.namespaces), d.Put(images.Mounts, &e.mounts)); err != nil {
		return nil, err
	}
	if err := e.writeMemory(ctx, d); err != nil {
		return nil, err
	}
	m := proto.CloneOf(e.image.Manifest)
	var err error
	if m.EditedFrom, err = e.image.Named(); err != nil {
		return nil, err
	}
	// Another image that builds on this one would take its memory for that of the
	// container, which has never had it.
	m.Tracking, m.Traits, m.Command, m.Edits = nil, e.traits, o.Command, nil
	for _, c := range e.Changes() {
		m.Edits = append(m.Edits, imagepb.Text(c.String()))
	}
	return d.Commit(ctx, m)
}
