package podman

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/name"
	"crucible/images"
	"crucible/proto/imagepb"
)

// The files of an archive (checkpointctl, lib/metadata.go).
const (
	configDump   = "config.dump"
	specDump     = "spec.dump"
	checkpoint   = "checkpoint"
	rootfsDiff   = "rootfs-diff.tar"
	deletedFiles = "deleted.files"
	devShm       = "devshm-checkpoint.tar"
	descriptors  = "descriptors.json"
)

// Is tells from the name of its first entry whether a tar file is such an archive.
func Is(first string) bool {
	if first == "" {
		return false
	}
	base, _, _ := strings.Cut(path.Clean(first), "/")
	switch base {
	case configDump, specDump, checkpoint, rootfsDiff, deletedFiles, devShm, "artifacts", "network.status", "stats-dump", "dump.log",
		"restore.log", "ctr.log", "volumes", "pre-checkpoint", "bind.mounts", ".":
		return true
	}
	return false
}

// ImportOptions of Import. The zero value works.
type ImportOptions struct {
	// Name of the container whose image it becomes; "": as in the archive.
	Name string
	// Rootfs is the directory with the root filesystem; "": where it was.
	Rootfs string
	// Command is for the manifest.
	Command []string
	// Crucible is our version, also for the manifest.
	Crucible string
}

// Imported is what Import has made.
type Imported struct {
	Image *images.Image
	Notes []string // what is not as it was, and why
}

// Import makes an image of the store of an archive's tar stream, or none. The
// image gets the next number of its name.
func Import(ctx context.Context, store images.Store, r io.Reader, o ImportOptions) (*Imported, error) {
	// The name comes from the archive, the draft before it: its own does not matter.
	u := &unpacker{ctx: ctx, o: o, store: store}
	defer u.close()
	if err := u.unpack(tar.NewReader(r)); err != nil {
		return nil, err
	}
	return u.finish()
}

// maxSmall bounds what is read into memory.
const maxSmall = 16 << 20

// unpacker takes an archive apart. CRIU's files and the tar files in it go to
// files without a name, until the name of the container is known.
type unpacker struct {
	ctx   context.Context
	o     ImportOptions
	store images.Store
	draft *images.Draft
	small map[string][]byte
	tars  map[string]*os.File
	free  int64
	notes []string

	spec   specs.Spec
	config config
}

// config is what we need of config.dump; Podman and CRI-O write others.
type config struct {
	Name            string    `json:"name"`
	ID              string    `json:"id"`
	Rootfs          string    `json:"rootfs"`
	RootfsImageName string    `json:"rootfsImageName"`
	CreatedTime     time.Time `json:"createdTime"`
	CheckpointedAt  time.Time `json:"checkpointedTime"`
	NamedVolumes    []struct {
		Name string `json:"volumeName"`
		Dest string `json:"dest"`
	} `json:"namedVolumes"`
}

func (u *unpacker) close() {
	for _, f := range u.tars {
		f.Close()
	}
	if u.draft != nil {
		_ = u.draft.Discard()
	}
}

func (u *unpacker) unpack(r *tar.Reader) (err error) {
	u.small, u.tars = map[string][]byte{}, map[string]*os.File{}
	if u.draft, err = u.store.Draft(u.ctx, cmp.Or(u.o.Name, "import")); err != nil {
		return err
	}
	var s unix.Statfs_t
	if err := unix.Statfs(u.store.Dir, &s); err != nil {
		return err
	}
	u.free = int64(s.Bavail) * int64(s.Bsize)
	for {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return readError(err)
		}
		if err := u.entry(h, r); err != nil {
			return err
		}
	}
}

func readError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Text: "is damaged, or cut off"}
	}
	return err
}

// entry takes an entry. Only files and directories are expected.
func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	refuse := func(text string) error { return &Error{Text: fmt.Sprintf("entry %q %s", h.Name, text)} }
	if !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return refuse("leads out of it")
	}
	if h.Typeflag == tar.TypeDir {
		return nil
	}
	if h.Typeflag != tar.TypeReg {
		return refuse("is neither a file nor a directory")
	}
	if u.free -= h.Size; u.free < 0 || h.Size < 0 {
		return &Error{Text: "is bigger than what is free in " + u.store.Dir, Advice: "make room there (`crucible image rm`), or choose another --root"}
	}
	dir, base := path.Split(name)
	switch {
	case name == rootfsDiff || name == devShm:
		return u.spool(name, r)
	case name == configDump || name == specDump || name == deletedFiles || name == path.Join(checkpoint, descriptors):
		if u.small[name] != nil || h.Size > maxSmall {
			return refuse("comes twice, or is too big")
		}
		data, err := io.ReadAll(r)
		u.small[name] = data
		return readError(err)
	case dir == checkpoint+"/" && strings.HasSuffix(base, ".img"):
		return u.criuFile(base, r)
	case strings.HasPrefix(name, "volumes/"):
		u.note("the content of volume %s is not taken along", strings.TrimSuffix(base, ".tar"))
	}
	return nil // logs, statistics, and what a newer Podman may add
}

func (u *unpacker) note(format string, values ...any) {
	u.notes = append(u.notes, fmt.Sprintf(format, values...))
}

func (u *unpacker) spool(name string, r io.Reader) error {
	if u.tars[name] != nil {
		return &Error{Text: fmt.Sprintf("entry %q comes twice", name)}
	}
	f, err := os.CreateTemp(u.draft.Dir(), "tar-")
	if err != nil {
		return u.draft.NoSpace(err)
	}
	u.tars[name] = f
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if _, err = io.Copy(f, r); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return u.draft.NoSpace(readError(err))
}

func (u *unpacker) criuFile(base string, r io.Reader) error {
	f, err := u.draft.Create(path.Join(images.CRIU, base))
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			err = &Error{Text: fmt.Sprintf("entry %q comes twice", path.Join(checkpoint, base))}
		}
		return err
	}
	_, err = io.Copy(f, r)
	return u.draft.NoSpace(errors.Join(readError(err), f.Close()))
}

// finish makes the image of what was unpacked.
func (u *unpacker) finish() (*Imported, error) {
	for file, into := range map[string]any{configDump: &u.config, specDump: &u.spec} {
		if u.small[file] == nil {
			return nil, &Error{Text: "has no " + file}
		}
		if err := json.Unmarshal(u.small[file], into); err != nil {
			return nil, &Error{Text: fmt.Sprintf("%s cannot be read: %v", file, err)}
		}
	}
	if err := u.adaptSpec(); err != nil {
		return nil, err
	}
	c := &conversion{ctx: u.ctx, dir: u.draft.CRIUDir(), spec: &u.spec}
	if data := u.small[path.Join(checkpoint, descriptors)]; data != nil {
		if err := json.Unmarshal(data, &c.descriptors); err != nil {
			return nil, &Error{Text: fmt.Sprintf("%s cannot be read: %v", descriptors, err)}
		}
	}
	if err := c.run(); err != nil {
		return nil, fmt.Errorf("checkpoint archive: %w", err)
	}
	m, err := u.write(c)
	if err != nil {
		return nil, err
	}
	if err := u.rename(); err != nil {
		return nil, err
	}
	i, err := u.draft.Commit(u.ctx, m)
	if err != nil {
		return nil, err
	}
	return &Imported{Image: i, Notes: append(u.notes, c.notes...)}, nil
}

// rename gives the draft the name that the archive has for the container.
func (u *unpacker) rename() error {
	if u.o.Name != "" {
		return nil
	}
	if err := name.ValidName(u.config.Name); err != nil {
		return &Error{Text: fmt.Sprintf("its container is called %q, which is no name here", u.config.Name), Advice: "give it another name (--name)"}
	}
	return u.draft.Rename(u.config.Name)
}

// write writes our own files of the image.
func (u *unpacker) write(c *conversion) (*imagepb.Manifest, error) {
	processes, err := c.processes()
	if err != nil {
		return nil, err
	}
	bundle, err := json.MarshalIndent(&u.spec, "", "  ")
	if err != nil {
		return nil, err
	}
	trees, err := u.archives(c)
	if err != nil {
		return nil, err
	}
	err = errors.Join(u.draft.Write(images.Bundle, bundle), u.draft.Put(images.Namespaces, u.namespaces()), u.draft.Put(images.Mounts, c.mounts),
		u.draft.Put(images.Processes, processes), u.draft.Put(images.Filesystem, trees), u.draft.Put(images.Timeline, &imagepb.Timeline{}))
	if err != nil {
		return nil, err
	}
	when := u.config.CheckpointedAt
	if when.IsZero() {
		when = u.config.CreatedTime
	}
	m := &imagepb.Manifest{
		CreatedUnixNs: when.UnixNano(), Command: u.o.Command,
		Writer: &imagepb.Writer{Crucible: u.o.Crucible, Machine: machine(), PageSize: uint32(os.Getpagesize())},
		Traits: &imagepb.Traits{Processes: uint32(len(processes.Processes))},
	}
	for _, p := range processes.Processes {
		m.Traits.Threads += p.Threads
	}
	if found, _ := filepath.Glob(filepath.Join(c.dir, "tcp-stream-*.img")); len(found) > 0 {
		return nil, &Error{Text: "holds TCP connections, whose addresses do not come along", Advice: "checkpoint it without --tcp-established"}
	}
	return m, nil
}

// machine is that of CRIU's files as Go's architectures go: an archive does not
// say, and CRIU refuses another one.
func machine() string {
	return map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
}
