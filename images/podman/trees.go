package podman

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"crucible/container"
	"crucible/container/mount"
	"crucible/images"
	"crucible/images/filesystem"
	"crucible/proto/imagepb"
)

// archives writes what the container changed in its root filesystem, and what
// its tmpfs mounts held that the bundle makes.
func (u *unpacker) archives(c *conversion) (*imagepb.Filesystem, error) {
	out := &imagepb.Filesystem{}
	var deleted []string
	if data := u.small[deletedFiles]; data != nil {
		if err := json.Unmarshal(data, &deleted); err != nil {
			return nil, &Error{Text: fmt.Sprintf("%s cannot be read: %v", deletedFiles, err)}
		}
	}
	root := &imagepb.Archive{MountPoint: "/", Kind: imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER, Lower: []string{u.spec.Root.Path}}
	if err := u.archive(root, u.tars[rootfsDiff], filesystem.ConvertOptions{Kind: root.Kind, Deleted: deleted, Directory: u.lower(c)}); err != nil {
		return nil, err
	}
	out.Archives = append(out.Archives, root)
	mounts, err := container.Mounts(&u.spec)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if !m.Kept() {
			continue
		}
		a := &imagepb.Archive{MountPoint: m.Target, Kind: imagepb.ArchiveKind_ARCHIVE_KIND_PLAIN}
		if err := u.tmpfs(c, a); err != nil {
			return nil, err
		}
		out.Archives = append(out.Archives, a)
	}
	return out, nil
}

// lower says what the directories of the root filesystem are like: an overlay
// shows those of its upper directory, where there are some.
func (u *unpacker) lower(c *conversion) func(dir string) *tar.Header {
	return func(dir string) *tar.Header {
		h := &tar.Header{Mode: 0o755}
		if root, err := os.OpenRoot(u.spec.Root.Path); err == nil {
			defer root.Close()
			if info, err := root.Stat(dir); err == nil && info.IsDir() {
				if found, err := tar.FileInfoHeader(info, ""); err == nil {
					h = found
				}
			}
		}
		if dir == "." && c.rootMode != 0 {
			h.Mode = c.rootMode
		}
		return h
	}
}

// tmpfs writes what a mount held: CRIU has it, or for /dev/shm Podman.
func (u *unpacker) tmpfs(c *conversion, a *imagepb.Archive) error {
	var o filesystem.ConvertOptions
	if a.MountPoint == "/dev" {
		o.More = u.stdio()
	}
	if f := u.tars[devShm]; f != nil && a.MountPoint == "/dev/shm" {
		return u.archive(a, f, o)
	}
	name := filepath.Join(c.dir, fmt.Sprintf("tmpfs-dev-%d.tar.gz.img", c.device(a.MountPoint)))
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return u.archive(a, nil, o)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return &Error{Text: fmt.Sprintf("%s cannot be read: %v", filepath.Base(name), err)}
	}
	if err := u.archive(a, io.LimitReader(z, u.free), o); err != nil { // or it would be a bomb
		return err
	}
	return os.Remove(name)
}

// device is that of a mount, as CRIU names its files by it.
func (c *conversion) device(point string) uint32 {
	for _, m := range c.mounts.Mounts {
		if m.Point == point {
			return m.Major<<20 | m.Minor
		}
	}
	return 0
}

// stdio are the FIFOs that standard output and error become.
func (u *unpacker) stdio() []*tar.Header {
	dir := strings.TrimPrefix(mount.StdioDir, "/dev/")
	all := []*tar.Header{{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}}
	for _, name := range []string{"stdin", "stdout", "stderr"} {
		all = append(all, &tar.Header{Typeflag: tar.TypeFifo, Name: path.Join(dir, name), Mode: 0o600,
			Uid: int(u.spec.Process.User.UID), Gid: int(u.spec.Process.User.GID)})
	}
	return all
}

// archive writes one; without a reader an empty one.
func (u *unpacker) archive(a *imagepb.Archive, r io.Reader, o filesystem.ConvertOptions) error {
	name := "root"
	if a.MountPoint != "/" { // as a checkpoint names them
		name = strings.ReplaceAll(strings.ReplaceAll(strings.Trim(a.MountPoint, "/"), "-", "--"), "/", "-")
	}
	a.Path = path.Join(images.Archives, name+".tar")
	if f, is := r.(*os.File); r == nil || is && f == nil {
		r = strings.NewReader("")
	}
	w, err := u.draft.Create(a.Path)
	if err != nil {
		return err
	}
	sum, err := filesystem.Convert(u.ctx, r, w, o)
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("checkpoint archive: contents of %s: %w", a.MountPoint, u.draft.NoSpace(err))
	}
	a.Entries, a.ContentBytes = uint64(sum.Entries), uint64(sum.Bytes)
	return nil
}
