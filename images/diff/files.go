package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"crucible/images"
	"crucible/proto/imagepb"
)

// filesystem compares what the container changed in its files: the archives
// that have not the same digest, entry by entry.
func (c *comparison) filesystem(ctx context.Context) error {
	a, err := archives(c.a)
	if err != nil {
		return err
	}
	b, err := archives(c.b)
	if err != nil {
		return err
	}
	var filesA, filesB []thing
	for _, x := range a {
		other := slices.IndexFunc(b, func(y archive) bool { return y.mount == x.mount && bytes.Equal(x.digest, y.digest) })
		if other >= 0 {
			b = slices.Delete(b, other, other+1)
			continue
		}
		files, err := x.files(ctx, c.a)
		if err != nil {
			return err
		}
		filesA = append(filesA, files...)
	}
	for _, x := range b {
		files, err := x.files(ctx, c.b)
		if err != nil {
			return err
		}
		filesB = append(filesB, files...)
	}
	c.things(Filesystem, 0, filesA, filesB)
	return nil
}

// archive is a tar file of an image, and the directory that it belongs to.
type archive struct {
	mount, path string
	digest      []byte
}

func archives(i *images.Image) (list []archive, err error) {
	var all imagepb.Filesystem
	if err := i.Get(images.Filesystem, &all); err != nil {
		return nil, err
	}
	for _, a := range all.Archives {
		x := archive{mount: a.MountPoint, path: a.Path}
		for _, f := range i.Manifest.Files {
			if f.Path == a.Path {
				x.digest = f.Digest
			}
		}
		list = append(list, x)
	}
	return list, nil
}

// files reads the archive.
func (a archive) files(ctx context.Context, i *images.Image) (things []thing, err error) {
	f, err := i.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return things, nil
		}
		if err == nil || errors.Is(err, tar.ErrInsecurePath) { // it is only looked at
			err = ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("image %s: %s: %w", i.Ref(), a.path, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader { // the archive's end, see package filesystem
			continue
		}
		content := sha256.New()
		if _, err := io.Copy(content, r); err != nil {
			return nil, fmt.Errorf("image %s: %s: %w", i.Ref(), a.path, err)
		}
		things = append(things, thing{path.Join(a.mount, h.Name), fileRecord(h, content.Sum(nil))})
	}
}

// fileRecord is a file without what a copy of it would not have.
func fileRecord(h *tar.Header, digest []byte) (r record) {
	kinds := map[byte]string{tar.TypeReg: "file", tar.TypeLink: "hard link", tar.TypeSymlink: "symbolic link", tar.TypeChar: "character device",
		tar.TypeBlock: "block device", tar.TypeDir: "directory", tar.TypeFifo: "fifo"}
	r.set("kind", kinds[h.Typeflag])
	r.set("mode", fmt.Sprintf("%04o", h.Mode&0o7777))
	r.set("owner", fmt.Sprintf("%d:%d", h.Uid, h.Gid))
	if h.Linkname != "" {
		r.set("target", h.Linkname)
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		r.set("device", fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor))
	}
	if h.Typeflag == tar.TypeReg {
		r.set("size", fmt.Sprint(h.Size))
		r.set("content", "sha256 "+hex.EncodeToString(digest[:8]))
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeSymlink {
		r.set("modified", h.ModTime.UTC().Format(time.RFC3339Nano))
	}
	for name, value := range h.PAXRecords {
		attribute, is := strings.CutPrefix(name, "SCHILY.xattr.")
		if is && !strings.HasPrefix(attribute, "trusted.overlay.") || strings.HasSuffix(name, ".overlay.opaque") {
			r.set("attribute "+attribute, value)
		}
	}
	slices.Sort(r.names[3:]) // those of a map come in any order
	return r
}
