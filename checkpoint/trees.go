package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"crucible/container"
	"crucible/container/safepath"
	"crucible/images"
	"crucible/images/filesystem"
	"crucible/proto/imagepb"
)

// tree is a part of the container's file system that is to be saved.
type tree struct {
	archive *imagepb.Archive
	file    *os.File
	dir     *os.File
}

// openTrees opens what is to be saved, and the files to save it to: what the
// container changed in its root filesystem, and what its tmpfs mounts hold.
// CRIU's images have neither: for CRIU the root is given and the mounts are
// external.
func (d *dump) openTrees() error {
	d.archives = &imagepb.Filesystem{}
	upper, err := d.c.OpenUpper()
	if err != nil {
		return err
	}
	lower := []string{d.spec.Root.Path}
	if err := d.openTree(&imagepb.Archive{MountPoint: "/", Kind: imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER, Lower: lower}, upper); err != nil {
		return err
	}
	mounts, err := container.Mounts(d.spec)
	if err != nil {
		return err
	}
	root, err := d.c.RootDir()
	if err != nil {
		return err
	}
	defer root.Close()
	for _, m := range mounts {
		if !m.Kept() {
			continue
		}
		dir, err := safepath.Open(root, m.Target)
		if err != nil {
			return err
		}
		if err := d.openTree(&imagepb.Archive{MountPoint: m.Target, Kind: imagepb.ArchiveKind_ARCHIVE_KIND_PLAIN}, dir); err != nil {
			return err
		}
	}
	return nil
}

func (d *dump) openTree(a *imagepb.Archive, dir *os.File) error {
	name := "root"
	if a.MountPoint != "/" {
		// A dash in a name is doubled, so that no two mounts share a file.
		name = strings.ReplaceAll(strings.ReplaceAll(strings.Trim(a.MountPoint, "/"), "-", "--"), "/", "-")
	}
	a.Path = path.Join(images.Archives, name+".tar")
	f, err := d.draft.Create(a.Path)
	if err != nil {
		return err
	}
	d.trees = append(d.trees, tree{a, f, dir})
	d.archives.Archives = append(d.archives.Archives, a)
	return nil
}

// linked tells whether CRIU has written to the trees itself: it links deleted
// files that have another name back to where they were, and says so in a file
// that it makes for nothing else but deleted files (criu/files-reg.c,
// dump_linked_remap).
func (d *dump) linked() bool {
	_, err := os.Stat(path.Join(d.draft.CRIUDir(), "remap-fpath.img"))
	return err == nil
}

// saveTrees writes them, while no task of the container runs. It can be done
// once more.
func (d *dump) saveTrees(ctx context.Context) error {
	defer d.line.Begin("save file trees", true)()
	for _, t := range d.trees {
		if _, err := t.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := t.file.Truncate(0); err != nil {
			return err
		}
		s, err := filesystem.Save(ctx, safepath.Path(t.dir), t.file, filesystem.SaveOptions{Kind: t.archive.Kind})
		if err != nil {
			return fmt.Errorf("save the contents of %s: %w", t.archive.MountPoint, err)
		}
		t.archive.Entries, t.archive.ContentBytes = uint64(s.Entries), uint64(s.Bytes)
	}
	return nil
}

// closeTrees closes what is open, also after an error.
func (d *dump) closeTrees() error {
	var errs []error
	for _, t := range d.trees {
		errs = append(errs, t.file.Close(), t.dir.Close())
	}
	d.trees = nil
	return errors.Join(errs...)
}
