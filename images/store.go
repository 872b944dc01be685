package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/container/name"
)

// Store is a directory of images. Any number of commands may use it at once.
type Store struct {
	Dir string
	// Sync makes commits wait until the disk has the image.
	Sync bool
}

// Ref names an image.
type Ref struct {
	Name string
	// Number is 0 for the newest.
	Number int
}

func (r Ref) String() string {
	if r.Number == 0 {
		return r.Name
	}
	return r.Name + "@" + strconv.Itoa(r.Number)
}

// ParseRef reads "name" or "name@N".
func ParseRef(s string) (Ref, error) {
	base, number, numbered := strings.Cut(s, "@")
	if err := name.ValidName(base); err != nil {
		return Ref{}, fmt.Errorf("image %q: %w", s, err)
	}
	if !numbered {
		return Ref{Name: base}, nil
	}
	n, ok := parseNumber(number)
	if !ok {
		return Ref{}, &name.Error{Text: fmt.Sprintf("image %q: after @ comes the number of an image, such as %s@1", s, base)}
	}
	return Ref{base, n}, nil
}

// parseNumber reads the number of an image, in its only spelling.
func parseNumber(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil && n > 0 && s[0] != '0' && s[0] != '+'
}

// Names lists the containers that have images, sorted.
func (s Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && name.ValidName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Numbers lists the images of a container, oldest first.
func (s Store) Numbers(container string) ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, container))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list images of %s: %w", container, err)
	}
	var numbers []int
	for _, e := range entries {
		if n, ok := parseNumber(e.Name()); ok && e.IsDir() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// List opens the images of a container, or of all containers if its name is
// "", oldest first. An image that cannot be opened does not hide the others:
// it is part of the error.
func (s Store) List(container string) ([]*Image, error) {
	names := []string{container}
	if container == "" {
		var err error
		if names, err = s.Names(); err != nil {
			return nil, err
		}
	} else if err := name.ValidName(container); err != nil {
		return nil, err
	}
	s.sweep()
	var images []*Image
	var errs []error
	for _, n := range names {
		numbers, err := s.Numbers(n)
		errs = append(errs, err)
		for _, number := range numbers {
			i, err := s.open(Ref{n, number})
			if err == nil {
				images = append(images, i)
			} else if !errors.Is(err, NotFound) { // else it was removed meanwhile
				errs = append(errs, err)
			}
		}
	}
	return images, errors.Join(errs...)
}

// Remove deletes an image, unless it is held, or an image builds on it. It
// vanishes at once and whole, also when the command is killed.
func (s Store) Remove(ctx context.Context, ref string) error {
	r, err := ParseRef(ref)
	if err != nil {
		return err
	}
	if r, err = s.resolve(r); err != nil {
		return err
	}
	s.sweep()
	// An image's directory goes where drafts are, and the same way as they.
	d, err := s.makeDraft(r.Name)
	if err != nil {
		return fmt.Errorf("remove image %s: %w", r, err)
	}
	defer func() { _ = d.Discard() }()
	unlock, err := s.lock()
	if err != nil {
		return fmt.Errorf("remove image %s: %w", r, err)
	}
	defer unlock()
	// Under the lock: somebody else may have been faster.
	if _, err := s.resolve(r); err != nil {
		return err
	}
	free, err := s.removable(ctx, r)
	if err != nil {
		return err
	}
	defer free() // once the image is not there any more
	if err := os.Rename(s.path(r), filepath.Join(d.base, "removed")); err != nil {
		return fmt.Errorf("remove image %s: %w", r, err)
	}
	// The last image takes the name with it. Anything left there: not ours.
	_ = os.Remove(filepath.Join(s.Dir, r.Name))
	return nil
}

// removable says whether an image may go, under the store's lock. Until free is
// called nobody can hold it.
func (s Store) removable(ctx context.Context, r Ref) (free func(), err error) {
	free = func() {}
	manifest, err := os.Open(filepath.Join(s.path(r), Manifest))
	if err == nil {
		free = func() { manifest.Close() }
		if flock(manifest, unix.LOCK_EX|unix.LOCK_NB) != nil {
			free()
			return nil, &Error{Kind: InUse, Ref: r.String(), Text: "a command is reading it", Advice: "wait until that restore or verification has ended"}
		}
	}
	if children := s.children(r); len(children) > 0 {
		list, build := strings.Join(children, ", "), " build on it"
		if len(children) == 1 {
			build = " builds on it"
		}
		free()
		return nil, &Error{Kind: InUse, Ref: r.String(), Text: list + build, Advice: "remove " + list + " first"}
	}
	if err := ctx.Err(); err != nil {
		free()
		return nil, err
	}
	return free, nil
}

func (s Store) path(r Ref) string { return filepath.Join(s.Dir, r.Name, strconv.Itoa(r.Number)) }

// resolve finds the number of the newest image, and says so if there is none.
func (s Store) resolve(r Ref) (Ref, error) {
	numbers, err := s.Numbers(r.Name)
	if err != nil {
		return r, err
	}
	if len(numbers) == 0 {
		return r, &Error{Kind: NotFound, Ref: r.String(), Text: "there is no image of that name",
			Advice: "`crucible image list` shows the images, `crucible checkpoint " + r.Name + "` writes one"}
	}
	newest := numbers[len(numbers)-1]
	if r.Number == 0 {
		r.Number = newest
	} else if !slices.Contains(numbers, r.Number) {
		return r, &Error{Kind: NotFound, Ref: r.String(), Text: fmt.Sprintf("there is none, the newest is %s@%d", r.Name, newest),
			Advice: "`crucible image list " + r.Name + "` shows the images"}
	}
	return r, nil
}

// lock keeps other commands from giving numbers. It is held for the time of a
// few small writes, so nobody needs to be able to stop waiting for it.
func (s Store) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.Dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// flock is flock(2), which a signal does not end.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}
