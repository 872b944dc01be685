package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"crucible/images"
	"crucible/images/blake3"
	"crucible/images/digest"
	"crucible/proto/imagepb"
)

// member is an image in an archive that is being read.
type member struct {
	im       *importer
	number   int // in the archive
	manifest *imagepb.Manifest
	raw      []byte
	files    map[string]*imagepb.File // those that have not come yet
	draft    *images.Draft
	known    *images.Image // it is in the store already: its files are passed over
	links    []*imagepb.File
	hashed   digest.Followed
}

// newMember reads a manifest and begins a draft.
func newMember(im *importer, ref images.Ref, raw []byte) (*member, error) {
	manifest, err := images.ReadManifest(ref, raw)
	if err != nil {
		return nil, err
	}
	m := &member{im: im, number: ref.Number, manifest: manifest, raw: raw, hashed: digest.Followed{}}
	if m.files, err = index(manifest); err != nil {
		return nil, err
	}
	if len(im.members) > 0 { // somebody's parent
		sum := blake3.Sum(raw)
		here := images.Ref{Name: im.target(), Number: ref.Number}
		i, err := im.store.Open(here.String())
		switch {
		case err == nil && i.Same(sum[:]):
			m.known = i
			return m, nil
		case !errors.Is(err, images.NotFound):
			return nil, images.Taken(here)
		}
	}
	if m.draft, err = im.store.Draft(im.ctx, im.target()); err != nil {
		return nil, err
	}
	return m, im.room(ref, manifest)
}

// index maps the files of a manifest, if it has only such as an image can have.
func index(m *imagepb.Manifest) (map[string]*imagepb.File, error) {
	files := make(map[string]*imagepb.File, len(m.Files))
	refuse := func(f *imagepb.File, text string) error {
		return &Error{Entry: f.Path, Text: text + ", says the manifest"}
	}
	for _, f := range m.Files {
		switch {
		case !filepath.IsLocal(f.Path), path.Clean(f.Path) != f.Path, f.Path == ".", strings.ContainsRune(f.Path, 0):
			return nil, refuse(f, "leads out of the image")
		case f.Path == images.Manifest || files[f.Path] != nil:
			return nil, refuse(f, "is there twice")
		case f.Symlink != "" && !isParentLink(m, f):
			return nil, refuse(f, fmt.Sprintf("is a symbolic link to %q", f.Symlink))
		case f.Size > 1<<62:
			return nil, refuse(f, fmt.Sprintf("has %d bytes", f.Size))
		}
		files[f.Path] = f
	}
	for _, f := range m.Files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if files[dir] != nil {
				return nil, refuse(f, "is below a file")
			}
		}
	}
	return files, nil
}

// isParentLink: the only link of an image leads to CRIU's files of what it builds on.
func isParentLink(m *imagepb.Manifest, f *imagepb.File) bool {
	parent, err := images.ParseRef(m.GetParent().GetRef())
	return err == nil && parent.Number > 0 && f.Path == path.Join(images.CRIU, images.ParentLink) &&
		f.Symlink == fmt.Sprintf("../../%d/%s", parent.Number, images.CRIU)
}

// add writes one of its files.
func (m *member) add(h *tar.Header, name string, r io.Reader) error {
	f := m.files[name]
	switch {
	case f == nil:
		return &Error{Entry: h.Name, Text: "is not in the manifest, or comes twice"}
	case f.Symlink != "" && (h.Typeflag != tar.TypeSymlink || h.Linkname != f.Symlink):
		return &Error{Entry: h.Name, Text: "is not the symbolic link of the manifest"}
	case f.Symlink == "" && h.Typeflag != tar.TypeReg:
		return &Error{Entry: h.Name, Text: "is not a file, as in the manifest"}
	case f.Symlink == "" && uint64(h.Size) != f.Size:
		return &Error{Entry: h.Name, Text: fmt.Sprintf("has %d bytes, and in the manifest %d", h.Size, f.Size)}
	}
	delete(m.files, name)
	if m.known != nil {
		return nil
	}
	if f.Symlink != "" {
		m.links = append(m.links, f)
		return nil
	}
	dir := filepath.Join(m.draft.Dir(), path.Dir(name))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m.draft.NoSpace(err)
	}
	out, err := m.draft.Create(name)
	if err != nil {
		return err
	}
	values, err := m.im.copy(out, r, int64(f.Size))
	if err = errors.Join(err, out.Close()); err != nil {
		return m.draft.NoSpace(err)
	}
	m.hashed[name] = values
	return nil
}

// complete: all that the manifest names has come.
func (m *member) complete() error {
	for name := range m.files {
		return &Error{Entry: path.Join(m.im.name, fmt.Sprint(m.number), name), Text: "is missing", Advice: "it was not copied whole: copy it again"}
	}
	return nil
}

// adopt makes it an image. What others build on keeps its number.
func (m *member) adopt(ctx context.Context, keepNumber bool) (*images.Image, error) {
	for _, f := range m.links {
		// Last, so that nothing was written through it.
		if err := os.Symlink(f.Symlink, filepath.Join(m.draft.Dir(), f.Path)); err != nil {
			return nil, m.draft.NoSpace(err)
		}
	}
	o := images.AdoptOptions{Hashed: m.hashed}
	if keepNumber {
		o.Number = m.number
	}
	return m.draft.Adopt(ctx, m.raw, o)
}

func (m *member) discard() error {
	if m.draft == nil {
		return nil
	}
	return m.draft.Discard()
}

// isZero tells whether a block needs no place on the disk.
func isZero(b []byte) bool { return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }
