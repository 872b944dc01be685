package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"crucible/container/name"
	"crucible/images/digest"
	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// The files of an image, by their paths in its directory.
const (
	Manifest   = "manifest.pb"
	Bundle     = "bundle.json"
	Namespaces = "namespaces.pb"
	Mounts     = "mounts.pb"
	Processes  = "processes.pb"
	Timeline   = "timeline.pb"
	Filesystem = "filesystem.pb"
	// Counts is in no image that an early crucible wrote.
	Counts = "statistics.pb"
	// Fingerprint is in an image that was made with --verify.
	Fingerprint = "fingerprint.pb"

	// Log is what CRIU said while it wrote the image, up to the moment at which the
	// image was whole. Statistics is what CRIU counted; it writes that last of
	// all, so that only an image whose container was left running has it.
	Log        = "criu.log"
	Statistics = CRIU + "/stats-dump"

	// CRIU holds CRIU's own files, Archives what the container changed in its
	// filesystems.
	CRIU     = "criu"
	Archives = "filesystem"
)

// Draft is an image that is being written. It is one goroutine's.
type Draft struct {
	store    Store
	name     string
	base     string   // .drafts/NAME-RANDOM: the lock, and the directory to be
	lock     *os.File // nil: committed or discarded
	follower *digest.Follower
	digested []digest.File   // see Digest
	parent   *imagepb.Parent // see BuildOn
	hold     *os.File        // on the parent
	taken    *taken          // see Take
}

func (s Store) drafts() string { return filepath.Join(s.Dir, ".drafts") }

// Draft begins an image of a container, which need not exist. Either Commit or
// Discard must follow; should the process die instead, the next command
// deletes the draft.
func (s Store) Draft(ctx context.Context, container string) (*Draft, error) {
	if err := name.ValidName(container); err != nil {
		return nil, fmt.Errorf("draft image: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.sweep()
	d, err := s.makeDraft(container)
	if err != nil {
		return nil, fmt.Errorf("draft image of %s: %w", container, noSpace(s.Dir, err))
	}
	for _, dir := range []string{d.Dir(), d.CRIUDir(), filepath.Join(d.Dir(), Archives)} {
		err := os.Mkdir(dir, 0o700)
		if err == nil && dir == d.CRIUDir() {
			err = os.Chmod(dir, 0o755) // whatever the umask: see fileMode
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("draft image of %s: %w", container, noSpace(s.Dir, err)), d.Discard())
		}
	}
	return d, nil
}

// makeDraft makes a locked directory below .drafts. A sweeper may come between
// any two steps; who finds that it did begins again.
func (s Store) makeDraft(container string) (*Draft, error) {
	if err := os.MkdirAll(s.drafts(), 0o700); err != nil {
		return nil, err
	}
	for {
		base, err := os.MkdirTemp(s.drafts(), container+"-")
		if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(base, "lock"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(base))
		}
		if tryLock(f) {
			return &Draft{store: s, name: container, base: base, lock: f}, nil
		}
		f.Close()
	}
}

// tryLock locks a file that still has a name.
func tryLock(f *os.File) bool {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}

// sweep deletes the drafts of commands that are no more. What it may not
// delete, or cannot, is somebody else's to report.
func (s Store) sweep() {
	entries, err := os.ReadDir(s.drafts())
	if err != nil {
		return
	}
	for _, e := range entries {
		base := filepath.Join(s.drafts(), e.Name())
		f, err := os.OpenFile(filepath.Join(base, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			continue
		}
		if tryLock(f) {
			_ = removeDraft(base)
		}
		f.Close()
	}
}

// removeDraft deletes a draft of which the caller has the lock. The lock goes
// last: as long as it is there, the rest belongs to somebody.
func removeDraft(base string) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(filepath.Join(base, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// A sweeper that has listed the directory before may look for its lock, and so
	// make it again, until the directory is gone.
	for tries := 0; ; tries++ {
		err := os.RemoveAll(base)
		if !errors.Is(err, unix.ENOTEMPTY) || tries == sweepers {
			return err
		}
	}
}

// sweepers is how many may come in each other's way at a time.
const sweepers = 100

// Dir is the directory that is going to be the image.
func (d *Draft) Dir() string { return filepath.Join(d.base, "image") }

// CRIUDir is the directory for CRIU's own files.
func (d *Draft) CRIUDir() string { return filepath.Join(d.Dir(), CRIU) }

// Follow begins to digest CRIU's pages as CRIU writes them, on another
// processor, so that Commit finds it done. With one processor only it does
// nothing: it would take its time from CRIU.
func (d *Draft) Follow() {
	if d.follower == nil && runtime.GOMAXPROCS(0) > 1 {
		d.follower = digest.Follow(d.Dir(), CRIU, "pages-*.img")
	}
}

// Put writes a message to a new file of the image.
func (d *Draft) Put(file string, m proto.Message) error {
	b, err := frame.Encode(m)
	if err != nil {
		return fmt.Errorf("write %s of an image of %s: %w", file, d.name, err)
	}
	return d.Write(file, b)
}

// Write writes a new file of the image.
func (d *Draft) Write(file string, b []byte) error {
	f, err := d.Create(file)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s of an image of %s: %w", file, d.name, noSpace(d.store.Dir, err))
	}
	return nil
}

// Create opens a new file of the image for writing, for what is too big to be
// held in memory. The caller closes it before the commit.
func (d *Draft) Create(file string) (*os.File, error) {
	if !filepath.IsLocal(file) || filepath.Clean(file) != file || slices.Contains([]string{".", Manifest}, file) {
		return nil, fmt.Errorf("write %q of an image of %s: is no file of an image to be", file, d.name)
	}
	if d.lock == nil {
		return nil, fmt.Errorf("write %s of an image of %s: the draft has ended", file, d.name)
	}
	f, err := os.OpenFile(filepath.Join(d.Dir(), file), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write %s of an image of %s: %w", file, d.name, noSpace(d.store.Dir, err))
	}
	return f, nil
}

// Discard deletes the draft. After a commit, or another Discard, it does
// nothing.
func (d *Draft) Discard() error {
	if d.lock == nil {
		return nil
	}
	d.unfollow()
	err := removeDraft(d.base)
	d.lock.Close()
	d.lock = nil
	if d.hold != nil {
		d.hold.Close()
	}
	if err != nil {
		return fmt.Errorf("discard image of %s: %w", d.name, err)
	}
	return nil
}

// unfollow stops the follower and returns what it has.
func (d *Draft) unfollow() digest.Followed {
	if d.follower == nil {
		return nil
	}
	f := d.follower
	d.follower = nil
	return f.Stop()
}
