package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// Image is an image of the store. It is read-only, and any number of
// goroutines may use it.
type Image struct {
	Name     string
	Number   int
	Manifest *imagepb.Manifest

	store Store
}

// Open finds an image: "name" is the newest, "name@N" a certain one. It reads
// the manifest only; what else is wrong, Verify finds. The errors are *Error:
// NotFound, Damaged, Foreign or NewerFormat.
func (s Store) Open(ref string) (*Image, error) {
	r, err := ParseRef(ref)
	if err != nil {
		return nil, err
	}
	s.sweep()
	if r, err = s.resolve(r); err != nil {
		return nil, err
	}
	return s.open(r)
}

// open opens an image whose number is known.
func (s Store) open(r Ref) (*Image, error) {
	i := &Image{Name: r.Name, Number: r.Number, Manifest: &imagepb.Manifest{}, store: s}
	err := i.Get(Manifest, i.Manifest)
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := os.Lstat(i.Dir()); errors.Is(gone, os.ErrNotExist) {
			return nil, i.removed()
		}
		return nil, &Error{Kind: Foreign, Ref: r.String(), Text: "has no " + Manifest + ", so it is no image",
			Advice: "what is in " + i.Dir() + " was not written by crucible, or not copied whole"}
	}
	if err != nil {
		return nil, err
	}
	if err := i.checkFormat(); err != nil {
		return nil, err
	}
	return i, nil
}

// Ref is "name@N".
func (i *Image) Ref() string { return Ref{i.Name, i.Number}.String() }

// Dir is the image's directory.
func (i *Image) Dir() string { return i.store.path(Ref{i.Name, i.Number}) }

// CRIUDir is the directory of CRIU's own files.
func (i *Image) CRIUDir() string { return filepath.Join(i.Dir(), CRIU) }

// Created is when the container was frozen.
func (i *Image) Created() time.Time { return time.Unix(0, i.Manifest.CreatedUnixNs) }

// Size is the bytes of all files of the image but the manifest.
func (i *Image) Size() (bytes int64) {
	for _, f := range i.Manifest.Files {
		bytes += int64(f.Size)
	}
	return bytes
}

// Get reads a message of the image. That the file is what was written, its
// checksum says; Verify says it with a digest.
func (i *Image) Get(file string, m proto.Message) error {
	b, err := os.ReadFile(filepath.Join(i.Dir(), file))
	var path *os.PathError
	if errors.As(err, &path) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return i.damaged(file, "cannot be read: "+path.Err.Error())
	}
	if errors.Is(err, os.ErrNotExist) && file != Manifest {
		return i.damaged(file, "is missing")
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	if err := frame.Decode(b, m); err != nil {
		return i.unreadable(file, err)
	}
	return nil
}

// Spec is the configuration that the container was started with, and its file's content.
func (i *Image) Spec() (*specs.Spec, []byte, error) {
	data, err := os.ReadFile(filepath.Join(i.Dir(), Bundle))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	if err != nil {
		return nil, nil, i.damaged(Bundle, "is missing")
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, nil, i.damaged(Bundle, "cannot be read: "+err.Error())
	}
	if spec.Version == "" || spec.Process == nil || spec.Root == nil || spec.Linux == nil {
		return nil, nil, i.damaged(Bundle, "says nothing of the container")
	}
	return &spec, data, nil
}

// Open opens a file of the image for reading. A name that leads out of it, as a
// message of a foreign image may have it, is refused.
func (i *Image) Open(file string) (*os.File, error) {
	if !filepath.IsLocal(file) {
		return nil, &Error{Kind: Damaged, Ref: i.Ref(), File: strconv.Quote(file), Text: "is no file of it",
			Advice: "somebody has made this image up: do not use it"}
	}
	f, err := os.Open(filepath.Join(i.Dir(), file))
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := os.Stat(filepath.Join(i.Dir(), Manifest)); errors.Is(gone, os.ErrNotExist) {
			return nil, i.removed() // an image goes as a whole
		}
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	return f, nil
}

// Hold keeps the image from being removed until the file that it returns is
// closed, by every process that has it.
func (i *Image) Hold() (*os.File, error) {
	f, err := i.Open(Manifest)
	if err != nil {
		return nil, err
	}
	// Who has it for themselves is done in a moment: they remove the image, or
	// what was packed.
	locked := flock(f, unix.LOCK_SH) == nil
	// Between the opening and the locking it may have been removed.
	mine, err := f.Stat()
	if err == nil && locked {
		var named os.FileInfo
		if named, err = os.Stat(f.Name()); err == nil && os.SameFile(mine, named) {
			return f, nil
		}
	}
	f.Close()
	return nil, i.removed()
}

func (i *Image) removed() *Error {
	return &Error{Kind: NotFound, Ref: i.Ref(), Text: "has been removed meanwhile", Advice: "`crucible image list` shows what is there"}
}

// CheckMachine says whether processes from this image can run on a machine of
// this architecture (uname -m, host.Machine); "" asks for the one we run on.
func (i *Image) CheckMachine(machine string) error {
	if machine == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return fmt.Errorf("image %s: uname: %w", i.Ref(), err)
		}
		machine = unix.ByteSliceToString(u.Machine[:])
	}
	if wrote := i.Manifest.GetWriter().GetMachine(); wrote != machine && wrote != "" {
		return &Error{Kind: OtherArch, Ref: i.Ref(), Text: fmt.Sprintf("was written on %s, this machine is %s", wrote, machine),
			Advice: "restore it on a machine of the same architecture"}
	}
	return nil
}

// Store is the store that holds the image.
func (i *Image) Store() Store { return i.store }
