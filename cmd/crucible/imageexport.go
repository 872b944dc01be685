package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"crucible/images"
	"crucible/images/archive"
	"crucible/images/oci"
	"crucible/images/seal"
)

// exportOptions are the flags of `crucible image export`.
type exportOptions struct {
	output  string
	alone   bool
	encrypt []string
	sign    string
	oci     bool
}

// exported is what `crucible image export --json` prints.
type exported struct {
	Image   string   `json:"image"`
	Parents []string `json:"parents"` // that are in the file, too
	File    string   `json:"file"`
	Size    int64    `json:"size"`      // bytes, of the file
	Plain   int64    `json:"plainSize"` // bytes, of the images
	Took    int64    `json:"tookNs"`
}

func newImageExportCommand(a *app) *cobra.Command {
	var o exportOptions
	c := &cobra.Command{
		Use:   "export [flags] NAME[@N]",
		Short: "Write an image to one file, to carry it elsewhere",
		Long: `Write an image, and what it builds on, to one file: a tar file in seekable zstd,
which ` + "`zstd -d | tar x`" + ` unpacks, too. The same image gives the same bytes. The
root filesystem below what the container changed is not in an image: the other
host must have it at the same path (by default it is the host's own /).

What is exported has all that was in memory, secrets too. --encrypt lets only
some read it: a recipient of age's (age1...), or a file of some. --sign says who
made it, by an Ed25519 SSH key: ` + "`ssh-keygen -Y verify`" + ` checks the signature, too,
which is one of manifest.pb (namespace crucible-image).

With --oci it becomes an OCI image layout, an artifact with the annotations that
checkpointctl and CRI-O know: the tools of registries push it and pull it.

Exit status: 0 success, 2 a key cannot be used, 3 no such image, 6 the image is
damaged.`,
		Example: `  crucible image export web@3
  crucible image export web -o - | ssh other crucible image import -
  crucible image export web --encrypt age1... --sign ~/.ssh/id_ed25519
  crucible image export web --oci -o web.oci && skopeo copy oci:web.oci docker://HOST/web`,
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageExport(c.Context(), a, &o, args[0])
		},
	}
	c.Flags().StringVarP(&o.output, "output", "o", "", "the file; - is standard output (default NAME@N.tar.zst)")
	c.Flags().StringArrayVar(&o.encrypt, "encrypt", nil, "who can read the file (repeatable)")
	c.Flags().StringVar(&o.sign, "sign", "", "the private key to sign with")
	c.Flags().BoolVar(&o.oci, "oci", false, "make a directory, an OCI image layout, which skopeo, crane and oras push to a registry (default NAME@N.oci)")
	c.Flags().BoolVar(&o.alone, "no-parents", false, "leave out what the image builds on: the importing store must have it")
	a.jsonFlag(c)
	return c
}

func runImageExport(ctx context.Context, a *app, o *exportOptions, ref string) error {
	i, err := a.images().Open(ref)
	if err != nil {
		return err
	}
	to, err := seal.Recipients(o.encrypt...)
	if err != nil {
		return err
	}
	x := archive.ExportOptions{Alone: o.alone, Progress: a.share("export " + i.Ref())}
	if o.sign != "" {
		key, err := seal.SigningKey(o.sign)
		if err != nil {
			return err
		}
		x.Sign = key.Sign
	}
	if o.oci {
		if len(to) > 0 {
			return misuse("--oci is not for --encrypt: a registry's layer is read by its tools")
		}
		return a.exportLayout(ctx, i, o, x)
	}
	return a.export(ctx, i, o, to, x)
}

// exportLayout writes an image as an OCI image layout.
func (a *app) exportLayout(ctx context.Context, i *images.Image, o *exportOptions, options archive.ExportOptions) error {
	if o.output == "" {
		o.output = i.Ref() + ".oci"
	}
	w := i.Manifest.GetWriter()
	d := oci.Description{Name: i.Ref(), Container: i.Name, Crucible: w.GetCrucible(), CRIU: w.GetCriu(), Kernel: w.GetKernelRelease(), Machine: w.GetMachine(), Created: i.Created()}
	start, show := time.Now(), a.progress()
	var x *archive.Exported
	err := oci.Write(o.output, d, func(out io.Writer) (err error) {
		x, err = archive.Export(ctx, i, out, options)
		return err
	})
	show("")
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &fileError{err, "name a directory that does not exist with --output"}
		}
		return err
	}
	return a.printExported(i, o, x, start)
}

func (a *app) export(ctx context.Context, i *images.Image, o *exportOptions, to []seal.Recipient, options archive.ExportOptions) error {
	if o.output == "" {
		o.output = i.Ref() + ".tar.zst"
		if len(to) > 0 {
			o.output += ".age"
		}
	}
	out, err := a.output(ctx, o.output)
	if err != nil {
		return err
	}
	start, show := time.Now(), a.progress()
	x, err := exportTo(ctx, i, out, to, options)
	show("")
	if err = out.finish(err); err != nil {
		return err
	}
	return a.printExported(i, o, x, start)
}

func (a *app) printExported(i *images.Image, o *exportOptions, x *archive.Exported, start time.Time) error {
	r := exported{Image: i.Ref(), Parents: []string{}, File: o.output, Size: x.Packed, Plain: x.Plain, Took: int64(time.Since(start))}
	for _, p := range x.Images[1:] {
		r.Parents = append(r.Parents, p.Ref())
	}
	if o.output == "-" {
		return nil
	}
	return a.print(a.json, r, func() error {
		fmt.Fprintln(a.stdout, o.output)
		if a.tableWanted() {
			fmt.Fprintf(a.stderr, "%s in %s, %s\n", formatSize(r.Plain), formatSize(r.Size), inMS(r.Took))
		}
		return nil
	})
}

// exportTo writes an image to a file, encrypted if it is for somebody.
func exportTo(ctx context.Context, i *images.Image, out io.Writer, to []seal.Recipient, o archive.ExportOptions) (*archive.Exported, error) {
	if len(to) == 0 {
		return archive.Export(ctx, i, out, o)
	}
	count := &counter{Writer: out}
	closed, err := seal.Encrypt(count, to)
	if err != nil {
		return nil, err
	}
	x, err := archive.Export(ctx, i, closed, o)
	if err = errors.Join(err, closed.Close()); err != nil {
		return nil, err
	}
	x.Packed = count.n
	return x, nil
}

// counter counts what goes through it.
type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n += int64(n)
	return n, err
}

// share returns a function that shows how much has been done, ten times a second at most.
func (a *app) share(what string) func(done, total int64) {
	show, last := a.progress(), time.Now()
	return func(done, total int64) {
		if time.Since(last) < 100*time.Millisecond {
			return
		}
		last = time.Now()
		if total > 0 {
			show(fmt.Sprintf("%s: %s of %s", what, formatSize(done), formatSize(total)))
		} else {
			show(fmt.Sprintf("%s: %s", what, formatSize(done)))
		}
	}
}

// fileError is a file of the user's that cannot be used.
type fileError struct {
	err  error
	hint string
}

func (e *fileError) Error() string { return e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }
func (e *fileError) Hint() string  { return e.hint }

const writeHint = "name a file in a directory that exists, that you may write to, and that has room"

// output is a file that gets its name when it is whole, or standard output.
type output struct {
	ctx  context.Context
	file *os.File
	name string // what it is going to be; "": it is that already
}

// output opens what a command writes its result to.
func (a *app) output(ctx context.Context, name string) (*output, error) {
	if name == "-" {
		if term.IsTerminal(int(a.stdout.Fd())) {
			return nil, misuse("standard output is a terminal: name a file with --output, or let a program read it")
		}
		return &output{ctx, a.stdout, ""}, nil
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return nil, misuse("--output %s: is a directory", name)
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return nil, &fileError{err, writeHint}
		}
		return &output{ctx, f, ""}, nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".")
	if err != nil {
		return nil, &fileError{err, writeHint}
	}
	return &output{ctx, f, name}, nil
}

// finish gives the file its name, or removes it.
func (o *output) finish(err error) error {
	if o.name == "" {
		return err
	}
	err = errors.Join(err, o.file.Close())
	if err == nil {
		err = os.Rename(o.file.Name(), o.name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(o.file.Name()))
	}
	return nil
}

// Write does not wait for a reader that is not there when the command is interrupted.
func (o *output) Write(b []byte) (int, error) {
	if o.name != "" {
		n, err := o.file.Write(b)
		if err != nil {
			err = &fileError{err, writeHint}
		}
		return n, err
	}
	return patient(o.ctx, func() (int, error) { return o.file.Write(b) })
}

// patientReader gives up when the command is interrupted.
type patientReader struct {
	ctx context.Context
	r   io.Reader
}

func (p patientReader) Read(b []byte) (int, error) {
	// The other side may write to its bytes after we have given up.
	own := make([]byte, len(b))
	n, err := patient(p.ctx, func() (int, error) { return p.r.Read(own) })
	copy(b, own[:n])
	return n, err
}

// patient waits for what a pipe's other end decides, or until the command is interrupted.
func patient(ctx context.Context, do func() (int, error)) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := do()
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
