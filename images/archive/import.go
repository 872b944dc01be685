package archive

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/images"
	"crucible/images/blake3"
	"crucible/proto/imagepb"
)

// ImportOptions of Import. The zero value works.
type ImportOptions struct {
	// Name of the container whose images they become; "": as in the archive.
	Name string
	// Check is asked about the image's manifest and its signature, which is
	// empty if there is none, before anything is written; nil: all are taken.
	Check func(manifest, signature []byte) error
	// Workers is how many processors to use; 0: all.
	Workers int
	// Progress is told how many bytes of files have been written.
	Progress func(done int64)
}

// Imported is what Import has made.
type Imported struct {
	Image *images.Image
	// Parents are what it builds on and the archive had; Known is how many of
	// them were there already.
	Parents []*images.Image
	Known   int
	// Signed: there was a signature, checked or not.
	Signed bool
}

// Import makes the images of an archive, which may be a [Stream], images of the store, or none of them:
// the image gets the next number of its name, and what it builds on keeps its
// numbers, by which it is found.
func Import(ctx context.Context, store images.Store, r io.Reader, o ImportOptions) (*Imported, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	stream, is := r.(*Stream)
	if !is {
		var err error
		if stream, err = Open(r, o.Workers); err != nil {
			return nil, err
		}
		defer stream.Close()
	}
	im := importer{ctx: ctx, store: store, o: o, tar: tar.NewReader(stream), stream: stream}
	err := im.read()
	if err == nil {
		return im.adopt()
	}
	for _, m := range im.members {
		err = errors.Join(err, m.discard())
	}
	return nil, err
}

// importer reads an archive: members, each of which is what the one before
// builds on.
type importer struct {
	ctx       context.Context
	store     images.Store
	o         ImportOptions
	tar       *tar.Reader
	stream    *Stream
	name      string // of the container in the archive
	signed    string // the image that signature is of
	signature []byte
	members   []*member
	written   int64
}

// maxManifest bounds the manifest, which is read into memory: 100 bytes for a file.
const maxManifest = 16 << 20

func (im *importer) read() error {
	for {
		if err := im.ctx.Err(); err != nil {
			return err
		}
		h, err := im.tar.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return im.readError(err)
		}
		if err := im.entry(h); err != nil {
			return im.readError(err)
		}
	}
	if err := im.atEnd(); err != nil {
		return err
	}
	if len(im.members) == 0 {
		return &Error{Text: "has no image", Advice: "`crucible image export` writes one that has"}
	}
	return im.last().complete()
}

// readError tells what tar has to say from the other errors.
func (im *importer) readError(err error) error {
	switch {
	case im.name == "" && im.stream.by == "" && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)):
		return &Error{Text: "is no archive of an image", Advice: "`crucible image export` writes one"}
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return &Error{Text: "is damaged: what should be the head of an entry is not", Advice: "copy it again"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return cutOff()
	}
	return err
}

func (im *importer) last() *member {
	if len(im.members) == 0 {
		return nil
	}
	return im.members[len(im.members)-1]
}

// entry takes an entry of the archive: NAME/N/FILE.
func (im *importer) entry(h *tar.Header) error {
	if of, is := strings.CutSuffix(h.Name, signatureSuffix); is && len(im.members) == 0 && im.signed == "" && h.Typeflag == tar.TypeReg {
		return im.sign(of, h)
	}
	name, rest, _ := strings.Cut(h.Name, "/")
	number, file, _ := strings.Cut(rest, "/")
	ref, err := images.ParseRef(name + "@" + number)
	if h.Typeflag == tar.TypeDir && path.Clean(h.Name) == strings.TrimSuffix(h.Name, "/") && (rest == "" || err == nil) {
		return nil // directories come with the files in them
	}
	if err != nil || file == "" || im.name != "" && name != im.name {
		return &Error{Entry: h.Name, Text: "is no file of an image"}
	}
	im.name = name
	if file == images.Manifest {
		return im.begin(h, ref)
	}
	m := im.last()
	if m == nil || m.number != ref.Number {
		return &Error{Entry: h.Name, Text: "comes before the manifest of its image"}
	}
	return m.add(h, file, im.tar)
}

// maxSignature bounds the signature: OpenSSH's have 300 bytes.
const maxSignature = 64 << 10

// sign keeps the signature until the manifest comes.
func (im *importer) sign(of string, h *tar.Header) (err error) {
	r, err := images.ParseRef(of)
	if err != nil || r.Number == 0 || h.Size > maxSignature {
		return &Error{Entry: h.Name, Text: "is no signature of an image"}
	}
	im.signed, im.name = of, r.Name
	im.signature, err = io.ReadAll(im.tar)
	return err
}

// check asks whether the first image is to be taken.
func (im *importer) check(ref images.Ref, manifest []byte) error {
	if im.signed != "" && im.signed != ref.String() {
		return &Error{Entry: im.signed + signatureSuffix, Text: "is of another image than " + ref.String()}
	}
	if im.o.Check == nil {
		return nil
	}
	return im.o.Check(manifest, im.signature)
}

// begin begins a member with its manifest.
func (im *importer) begin(h *tar.Header, ref images.Ref) error {
	if h.Typeflag != tar.TypeReg || h.Size > maxManifest {
		return &Error{Entry: h.Name, Text: fmt.Sprintf("is no file, or too big (%d bytes)", h.Size)}
	}
	data, err := io.ReadAll(im.tar)
	if err != nil {
		return err
	}
	child := im.last()
	if child == nil {
		if err := im.check(ref, data); err != nil {
			return err
		}
	} else {
		if err := child.complete(); err != nil {
			return err
		}
		sum := blake3.Sum(data)
		if p := child.manifest.GetParent(); p == nil || !bytes.Equal(p.ManifestDigest, sum[:]) {
			return &Error{Entry: h.Name, Text: fmt.Sprintf("is not of what %s@%d builds on", im.name, child.number)}
		}
		if p, err := images.ParseRef(child.manifest.Parent.Ref); err != nil || p.Number != ref.Number || ref.Number >= child.number {
			return &Error{Entry: h.Name, Text: fmt.Sprintf("has another number than what %s@%d builds on", im.name, child.number)}
		}
	}
	m, err := newMember(im, ref, data)
	if m != nil {
		im.members = append(im.members, m)
	}
	return err
}

// room refuses an image that the disk cannot hold, before it is written: a few
// bytes of an archive can say that they are many.
func (im *importer) room(ref images.Ref, m *imagepb.Manifest) error {
	var s unix.Statfs_t
	if err := unix.Statfs(im.store.Dir, &s); err != nil {
		return err
	}
	free := s.Bavail * uint64(s.Bsize)
	for _, f := range m.Files {
		if f.Size > free {
			return &Error{Text: fmt.Sprintf("says that image %s is bigger than the %d MiB that are free in %s", ref, s.Bavail*uint64(s.Bsize)>>20, im.store.Dir),
				Advice: "make room there (`crucible image rm`), or choose another --root"}
		}
		free -= f.Size
	}
	return nil
}

// atEnd refuses what comes behind the end of the tar stream: nobody has looked at it.
func (im *importer) atEnd() error {
	const blocking = 1 << 20 // tar fills up its last record with zeros
	rest, err := io.ReadAll(io.LimitReader(im.stream, blocking+1))
	if err != nil {
		return err
	}
	if len(rest) > blocking || len(bytes.Trim(rest, "\x00")) > 0 {
		return &Error{Text: "has something behind its end"}
	}
	return nil
}

// adopt makes the members images, what is built on first.
func (im *importer) adopt() (out *Imported, err error) {
	out = &Imported{Signed: im.signed != ""}
	var made []*images.Image
	defer func() {
		for _, m := range im.members {
			err = errors.Join(err, m.discard())
		}
		if err == nil {
			return
		}
		out = nil
		for n := len(made) - 1; n >= 0; n-- { // who is built on last
			err = errors.Join(err, im.store.Remove(context.WithoutCancel(im.ctx), made[n].Ref()))
		}
	}()
	for n := len(im.members) - 1; n >= 0; n-- {
		m, i := im.members[n], (*images.Image)(nil)
		if i = m.known; i == nil {
			if i, err = m.adopt(im.ctx, n > 0); err != nil {
				return nil, err
			}
			made = append(made, i)
		} else {
			out.Known++
		}
		if n == 0 {
			out.Image = i
		} else {
			out.Parents = append(out.Parents, i)
		}
	}
	return out, nil
}

// target is the name that the images get.
func (im *importer) target() string { return cmp.Or(im.o.Name, im.name) }
