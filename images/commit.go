package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"crucible/images/digest"
	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// Commit makes the draft an image: the newest of its container. It fills in
// what the store knows (format, name, number, parent, files and their digests) and
// keeps the rest of the manifest as it was given. Nobody may write to the
// draft any more. After an error the draft is still there, to be discarded.
func (d *Draft) Commit(ctx context.Context, m *imagepb.Manifest) (*Image, error) {
	if d.lock == nil {
		return nil, fmt.Errorf("commit image of %s: the draft has ended", d.name)
	}
	image, err := d.commit(ctx, m)
	if err != nil {
		d.digested = nil
		return nil, fmt.Errorf("commit image of %s: %w", d.name, noSpace(d.store.Dir, err))
	}
	// The image is there; what is left of the draft, the next command sweeps.
	_ = d.Discard()
	return image, nil
}

func (d *Draft) commit(ctx context.Context, m *imagepb.Manifest) (*Image, error) {
	m = proto.CloneOf(m)
	if err := d.digest(ctx); err != nil {
		return nil, err
	}
	files := d.digested
	m.Files = make([]*imagepb.File, 0, len(files))
	for _, f := range files {
		entry := &imagepb.File{Path: f.Path, Size: uint64(f.Size), Symlink: f.Link}
		if f.Link == "" {
			entry.Digest = f.Sum[:]
			if err := d.taken.check(entry); err != nil {
				return nil, err
			}
			if err := os.Chmod(filepath.Join(d.Dir(), f.Path), fileMode(f.Path)); err != nil {
				return nil, err
			}
		}
		m.Files = append(m.Files, entry)
	}
	m.Format, m.MinReader = cmp.Or(m.Format, frame.Edition), max(m.MinReader, frame.Oldest)
	m.Name, m.DigestAlgorithm = d.name, digest.Algorithm
	if m.Parent = d.parent; m.Parent != nil {
		m.Traits = cmp.Or(m.Traits, &imagepb.Traits{})
		m.Traits.Incremental = true
	}
	if d.store.Sync {
		if err := syncTree(ctx, d.Dir()); err != nil {
			return nil, err
		}
	}
	return d.publish(ctx, m, nil, 0)
}

// Prepare does what the first commit of a process need not do while somebody
// waits for it: protobuf looks at each message when it meets it first, which
// takes it half a millisecond for all of a manifest's.
func Prepare() error {
	m := &imagepb.Manifest{
		Parent: &imagepb.Parent{}, Writer: &imagepb.Writer{CpuFlags: []string{"fpu"}}, Traits: &imagepb.Traits{}, Tracking: &imagepb.Tracking{},
		Files: []*imagepb.File{{Digest: []byte{0}}}, Options: map[string]string{"shell-job": "true"}, Command: []string{"crucible"},
	}
	_, err := frame.Encode(proto.CloneOf(m))
	return err
}

// Digest digests the files that are there and were not digested before, nearly
// all of the work of a commit; nobody may write to them any more. Commit does it
// for the rest.
func (d *Draft) Digest(ctx context.Context) error {
	if err := d.digest(ctx); err != nil {
		return fmt.Errorf("digest image of %s: %w", d.name, err)
	}
	return nil
}

func (d *Draft) digest(ctx context.Context) error {
	done := make(map[string]bool, len(d.digested))
	for _, f := range d.digested {
		done[f.Path] = true
	}
	more, err := digest.Tree(ctx, d.Dir(), digest.Options{
		Followed: d.unfollow(), Only: func(path string) bool { return notManifest(path) && !done[path] },
	})
	if err != nil {
		return err
	}
	d.digested = append(d.digested, more...)
	slices.SortFunc(d.digested, func(a, b digest.File) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// Digested are the files that have been digested so far, sorted by path.
func (d *Draft) Digested() []digest.File { return d.digested }

func notManifest(path string) bool { return path != Manifest }

// fileMode is the mode of a file of an image. CRIU's tasks open theirs when they
// are in the container's user namespace already, as somebody who is not the
// owner; they come through a descriptor of the directory, past the image's own
// directory, which is open to nobody else.
func fileMode(path string) os.FileMode {
	if strings.HasPrefix(path, CRIU+"/") {
		return 0o444
	}
	return 0o400
}

// publish gives the image its number and its name, under the store's lock: the
// number that is wanted, or the next one if it is 0. written is the manifest as
// it is to be on disk; without it, it is made.
func (d *Draft) publish(ctx context.Context, m *imagepb.Manifest, written []byte, wanted int) (*Image, error) {
	unlock, err := d.store.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, err := d.number(wanted)
	if err != nil {
		return nil, err
	}
	i := &Image{Name: d.name, Number: n, Manifest: m, store: d.store}
	if written == nil {
		m.Number = uint32(n)
		written, err = frame.Encode(m)
	} else {
		err = i.hasParent()
	}
	if err != nil {
		return nil, err
	}
	if err := d.writeManifest(written); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	home := filepath.Join(d.store.Dir, d.name)
	if err := os.Mkdir(home, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := os.Rename(d.Dir(), i.Dir()); err != nil {
		_ = os.Remove(home) // if it is new, it is empty
		return nil, err
	}
	if d.store.Sync {
		if err := errors.Join(syncFile(home), syncFile(d.store.Dir)); err != nil {
			return nil, errors.Join(err, os.Rename(i.Dir(), d.Dir()))
		}
	}
	return i, nil
}

func (d *Draft) writeManifest(b []byte) error {
	path := filepath.Join(d.Dir(), Manifest)
	// Left over from a commit that failed, and tried again.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && d.store.Sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil && d.store.Sync {
		err = syncFile(d.Dir())
	}
	return err
}

// syncTree waits until the disk has every file and directory of a tree.
func syncTree(ctx context.Context, dir string) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !e.IsDir() && !e.Type().IsRegular() {
			return err
		}
		return syncFile(path)
	})
}

// syncFile waits until the disk has a file or a directory.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
