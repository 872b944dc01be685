package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"crucible/images/pack"
	"crucible/proto/imagepb"
)

// PackOptions of Pack. The zero value works.
type PackOptions struct {
	// Workers is how many processors to use; 0: all.
	Workers int
}

// Packed says what a Pack has done. It is zero if there was nothing left to do.
type Packed struct {
	// Pages of 4096 bytes: zeros, those that the store had, and new ones.
	Pages, Zero, Known, New int
	// Replaced are the bytes of the files that are gone, Written those of what
	// is there instead.
	Replaced, Written int64
}

// Pack replaces the image's files of pages by indexes; pages that no other image
// of the store has go into a new pack. Readers go on and see the same. The plain
// files go last, and only once what is there instead has been read back and has
// their digests. Before that an error, or a kill, changes nothing that anybody
// sees. An image that a restore is reading stays plain: InUse.
func (i *Image) Pack(ctx context.Context, o PackOptions) (*Packed, error) {
	p, err := i.pack(ctx, o)
	if err != nil {
		var known *Error
		if errors.As(err, &known) {
			return nil, err
		}
		return nil, fmt.Errorf("pack image %s: %w", i.Ref(), noSpaceFor(i.store.Dir, "the image stays as it is, unpacked", err))
	}
	return p, nil
}

func (i *Image) pack(ctx context.Context, o PackOptions) (*Packed, error) {
	hold, err := i.Hold()
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	unlock, err := i.store.lockPacks(ctx, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer unlock()
	files, contents, err := i.openPlain()
	if err != nil || len(files) == 0 {
		return &Packed{}, err
	}
	defer func() {
		for _, c := range contents {
			c.Pages.(Pages).Close()
		}
	}()
	indexes, added, err := i.store.packs().Add(ctx, contents, pack.Options{Workers: o.Workers})
	if err != nil {
		return nil, err
	}
	p := &Packed{Pages: added.Pages, Zero: added.Zero, Known: added.Known, New: added.New, Written: added.Bytes}
	for n, f := range files {
		size, err := i.putIndex(f.Path, indexes[n])
		if err != nil {
			return nil, err
		}
		p.Written += size
		p.Replaced += int64(f.Size)
	}
	return p, i.dropPlain(ctx, files, hold, o.Workers)
}

// openPlain opens the files of pages that are not packed.
func (i *Image) openPlain() (files []*imagepb.File, contents []pack.Content, err error) {
	for _, f := range i.Manifest.Files {
		// CRIU writes whole pages; whatever else it may be stays as it is.
		if !IsPages(f.Path) || f.Symlink != "" || f.Size == 0 || f.Size%pack.PageSize != 0 || i.isPacked(f.Path) {
			continue
		}
		p, err := i.OpenPages(f.Path)
		if err == nil && uint64(p.Size()) != f.Size {
			err = errors.Join(i.damaged(f.Path, fmt.Sprintf("has %d bytes and had %d", p.Size(), f.Size)), p.Close())
		}
		if err != nil {
			for _, c := range contents {
				c.Pages.(Pages).Close()
			}
			return nil, nil, err
		}
		files = append(files, f)
		contents = append(contents, pack.Content{Pages: p, Size: p.Size()})
	}
	return files, contents, nil
}

// putIndex writes the index of a file of pages, in the place of an older one,
// and returns its size. The disk has it then.
func (i *Image) putIndex(file string, x *pack.Index) (int64, error) {
	b := x.Encode()
	f, err := os.CreateTemp(string(i.store.packs()), pack.Unfinished)
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // unless it has another name by then
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chmod(0o400), f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	dir := filepath.Join(i.Dir(), Indexes)
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return 0, err
	}
	if err := os.Rename(f.Name(), filepath.Join(i.Dir(), indexOf(file))); err != nil {
		return 0, err
	}
	return int64(len(b)), errors.Join(syncFile(dir), syncFile(i.Dir()))
}

// dropPlain deletes files of pages that have an index, after reading back what
// that stands for. The caller has the hold.
func (i *Image) dropPlain(ctx context.Context, files []*imagepb.File, hold *os.File, workers int) error {
	for _, f := range files {
		if err := i.verifyPacked(ctx, f, workers, nil); err != nil {
			return errors.Join(i.notTheSame(f.Path, err), os.Remove(filepath.Join(i.Dir(), indexOf(f.Path))))
		}
	}
	release, err := i.lockAlone(hold)
	if err != nil {
		return err
	}
	defer release()
	for _, f := range files {
		if err := os.Remove(filepath.Join(i.Dir(), f.Path)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// notTheSame says that a file cannot be packed, because it is damaged itself, or
// a pack that has some of its pages is.
func (i *Image) notTheSame(file string, err error) error {
	var known *Error
	if !errors.As(err, &known) {
		return err
	}
	return &Error{Kind: Damaged, Ref: i.Ref(), File: file, Text: "stays as it is, because what was packed is not the same: it " + known.Text,
		Advice: "`crucible image verify` tells which images are damaged, this one or those that it has pages in common with"}
}

// lockAlone makes sure that nobody reads the image's files by their names, as
// CRIU does, neither from the image itself nor from one that builds on it. The
// caller's own hold becomes part of the lock.
func (i *Image) lockAlone(hold *os.File) (release func(), err error) {
	locked := []*os.File{}
	release = func() {
		for _, f := range locked {
			f.Close()
		}
	}
	inUse := func(ref string) error {
		release()
		return &Error{Kind: InUse, Ref: i.Ref(), Text: "a command is reading " + ref + ": its plain pages stay for now",
			Advice: "wait until that restore or verification has ended, and pack it again"}
	}
	if flock(hold, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil, inUse("it")
	}
	all, _ := i.store.List(i.Name) // a damaged one cannot be restored
	over := map[int]bool{i.Number: true}
	for _, o := range all { // a child has a higher number than its parent
		if !over[o.parent().Number] {
			continue
		}
		over[o.Number] = true
		f, err := o.Open(Manifest)
		if err != nil {
			continue // it has been removed
		}
		locked = append(locked, f)
		if flock(f, unix.LOCK_EX|unix.LOCK_NB) != nil {
			return nil, inUse(o.Ref())
		}
	}
	return release, nil
}

// lockPacks keeps packs where they are for who refers to them (unix.LOCK_SH), or
// from being referred to for who removes some (LOCK_EX).
func (s Store) lockPacks(ctx context.Context, how int) (unlock func(), err error) {
	if err := os.MkdirAll(string(s.packs()), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(string(s.packs()), "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	if err := flock(f, how|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		done <- err
	} else {
		go func() {
			done <- flock(f, how)
			if ctx.Err() != nil {
				f.Close() // nobody waits any more
			}
		}()
	}
	select {
	case err := <-done:
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
