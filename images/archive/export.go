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
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"crucible/images"
	"crucible/images/blake3"
	"crucible/proto/imagepb"
)

// ExportOptions of Export. The zero value works.
type ExportOptions struct {
	// Alone leaves out what the image builds on: who imports it must have that.
	Alone bool
	// Sign returns a signature of the image's manifest; nil: there is none.
	Sign func(manifest []byte) ([]byte, error)
	// Workers is how many processors to use; 0: all.
	Workers int
	// Progress is told how many bytes of how many have been written.
	Progress func(done, total int64)
}

// Exported is what Export has written.
type Exported struct {
	Images []*images.Image // the image first, then what it builds on
	Plain  int64           // bytes of their files
	Packed int64           // bytes of the archive
}

// Export writes an image, and what it builds on, as one file. The same image
// gives the same bytes. A file that is not what the manifest says is an error.
func Export(ctx context.Context, image *images.Image, w io.Writer, o ExportOptions) (*Exported, error) {
	x, err := export(ctx, image, w, o)
	if err != nil {
		return nil, fmt.Errorf("export image %s: %w", image.Ref(), err)
	}
	return x, nil
}

func export(ctx context.Context, image *images.Image, w io.Writer, o ExportOptions) (*Exported, error) {
	x := &Exported{Images: []*images.Image{image}}
	if !o.Alone {
		var err error
		if x.Images, err = image.Chain(); err != nil {
			return nil, err
		}
	}
	for _, i := range x.Images {
		hold, err := i.Hold()
		if err != nil {
			return nil, err
		}
		defer hold.Close()
		x.Plain += i.Size()
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	var done atomic.Int64
	f, err := newFrames(ctx, w, o.Workers, func(n int) {
		if o.Progress != nil {
			o.Progress(min(done.Add(int64(n)), x.Plain), x.Plain)
		}
	})
	if err != nil {
		return nil, err
	}
	x.Packed, err = f.close(addAll(f, x.Images, o))
	return x, err
}

func addAll(f *frames, all []*images.Image, o ExportOptions) error {
	e := exporter{frames: f, made: map[string]bool{}}
	if o.Sign != nil {
		if err := e.signature(all[0], o.Sign); err != nil {
			return err
		}
	}
	for _, i := range all {
		if err := e.image(i); err != nil {
			return err
		}
	}
	return f.add(piece{bytes: make([]byte, 2*tarBlock), size: 2 * tarBlock}) // the end, tar(5)
}

// tarBlock is what sizes in a tar file are rounded up to.
const tarBlock = 512

// exporter makes the entries of an archive.
type exporter struct {
	frames *frames
	made   map[string]bool // directories
}

// signature adds the signature of an image, before it: who reads the archive
// can stop there.
func (e *exporter) signature(i *images.Image, sign func(manifest []byte) ([]byte, error)) error {
	manifest, err := os.ReadFile(path.Join(i.Dir(), images.Manifest))
	if err != nil {
		return err
	}
	data, err := sign(manifest)
	if err != nil {
		return err
	}
	return e.small(i.Ref()+signatureSuffix, data, time.Unix(i.Created().Unix(), 0))
}

// signatureSuffix comes behind NAME@N.
const signatureSuffix = ".sig"

// image adds an image: its manifest, then the files in its order.
func (e *exporter) image(i *images.Image) error {
	dir := path.Join(i.Name, strconv.Itoa(i.Number))
	manifest, err := os.ReadFile(path.Join(i.Dir(), images.Manifest))
	if err != nil {
		return err
	}
	when := time.Unix(i.Created().Unix(), 0)
	if err := e.small(path.Join(dir, images.Manifest), manifest, when); err != nil {
		return err
	}
	for _, f := range i.Manifest.Files {
		name := path.Join(dir, f.Path)
		if f.Symlink != "" {
			if err := e.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: f.Symlink, Mode: 0o777, ModTime: when}); err != nil {
				return err
			}
			continue
		}
		if err := e.file(i, f, name, when); err != nil {
			return err
		}
	}
	return nil
}

// header adds the head of an entry, after the directories that it is in.
func (e *exporter) header(h *tar.Header) error {
	if dir := path.Dir(strings.TrimSuffix(h.Name, "/")); dir != "." && !e.made[dir] {
		e.made[dir] = true
		mode := int64(0o700) // images are the memory of processes
		if path.Base(dir) == images.CRIU {
			mode = 0o755 // as in a store, see there
		}
		if err := e.header(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: mode, ModTime: h.ModTime}); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return err
	}
	return e.frames.add(piece{bytes: b.Bytes(), size: b.Len()})
}

func (e *exporter) fileHeader(name string, size int64, when time.Time) error {
	mode := int64(0o400)
	if path.Base(path.Dir(name)) == images.CRIU {
		mode = 0o444
	}
	return e.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode, ModTime: when})
}

// small adds a file that is in memory.
func (e *exporter) small(name string, data []byte, when time.Time) error {
	if err := e.fileHeader(name, int64(len(data)), when); err != nil {
		return err
	}
	for len(data) > 0 {
		part := data[:min(len(data), frameSize)]
		if err := e.frames.add(piece{bytes: part, size: len(part)}); err != nil {
			return err
		}
		if data = data[len(part):]; len(data) == 0 {
			return e.pad(len(part))
		}
	}
	return nil
}

func (e *exporter) pad(size int) error {
	if over := size % tarBlock; over > 0 {
		return e.frames.add(piece{bytes: make([]byte, tarBlock-over), size: tarBlock - over})
	}
	return nil
}

// open opens a file of an image, however the store keeps it.
func open(i *images.Image, file string) (source, error) {
	if images.IsPages(file) {
		return i.OpenPages(file)
	}
	return i.Open(file)
}

// file adds a file of an image. One of several blocks begins a frame, so that it
// can be found there, and is read by who compresses it.
func (e *exporter) file(i *images.Image, f *imagepb.File, name string, when time.Time) error {
	file, err := open(i, f.Path)
	if err != nil {
		return err
	}
	c := newContent(i.Ref(), f, file)
	if f.Size <= blake3.BlockSize {
		data := make([]byte, f.Size)
		if err := c.read(data, 0); err != nil {
			return err
		}
		return e.small(name, data, when)
	}
	err = e.fileHeader(name, int64(f.Size), when)
	if err == nil {
		err = e.frames.flush()
	}
	for at, size := int64(0), int64(f.Size); at < size && err == nil; at += frameSize {
		err = e.frames.add(piece{file: c, at: at, size: int(min(frameSize, size-at))})
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	return e.pad(int(f.Size % tarBlock))
}
