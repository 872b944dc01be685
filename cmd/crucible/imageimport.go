package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"crucible/container/name"
	"crucible/images"
	"crucible/images/archive"
	"crucible/images/oci"
	"crucible/images/podman"
	"crucible/images/seal"
)

// importOptions are the flags of `crucible image import`.
type importOptions struct {
	name     string
	rootfs   string
	identity []string
	trusted  []string
}

// imported is what `crucible image import --json` prints.
type imported struct {
	Image   string   `json:"image"`
	Parents []string `json:"parents"` // that the file had, too
	Size    int64    `json:"size"`    // bytes
	Took    int64    `json:"tookNs"`
	Notes   []string `json:"notes,omitempty"`
}

func newImageImportCommand(a *app) *cobra.Command {
	var o importOptions
	c := &cobra.Command{
		Use:   "import [flags] FILE|DIRECTORY|-",
		Short: "Read an image that was exported",
		Long: `Read an image from a file that ` + "`crucible image export`" + ` wrote; - is standard input.
Every byte is compared with its digest, and what does not belong to an image is
refused: after a failure nothing is left. The image gets the next number of its
name; what it builds on keeps its numbers, which must be free.

A directory is an OCI image layout that holds one: see --oci there.

A checkpoint that Podman or CRI-O exported is taken, too: what is different there
is changed. Its root filesystem is a container image of theirs; name a directory
with the same files with --rootfs.

--identity opens an encrypted file, by a file that age-keygen wrote. With
--verify-key a file is refused that is not signed by one of these SSH public keys.

Exit status: 0 success, 2 a key cannot be used, 5 a number is taken, 6 the file
cannot be used.`,
		Example: `  crucible image import web@3.tar.zst
  crucible image import --name copy web@3.tar.zst
  crucible image import --identity key.txt --verify-key allowed.pub web@3.tar.zst.age`,
		Args: exactArgs(1, "the name of a file, or -"),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageImport(c.Context(), a, &o, args[0])
		},
	}
	c.Flags().StringVar(&o.name, "name", "", "the container whose image it becomes (default: its own)")
	c.Flags().StringVar(&o.rootfs, "rootfs", "", "of a checkpoint of Podman's: the directory with its root filesystem (default: where it was)")
	c.Flags().StringArrayVar(&o.identity, "identity", nil, "the private key that the file is encrypted to (repeatable)")
	c.Flags().StringArrayVar(&o.trusted, "verify-key", nil, "take the file only if one of these public keys signed it (repeatable)")
	a.jsonFlag(c)
	return c
}

func runImageImport(ctx context.Context, a *app, o *importOptions, file string) error {
	if o.name != "" {
		if err := name.ValidName(o.name); err != nil {
			return &usageError{err}
		}
	}
	if o.rootfs != "" {
		var err error
		if o.rootfs, err = filepath.Abs(o.rootfs); err != nil {
			return err
		}
	}
	me, err := seal.Identities(o.identity...)
	if err != nil {
		return err
	}
	share := a.share("import")
	options := archive.ImportOptions{Name: o.name, Progress: func(done int64) { share(done, 0) }}
	if len(o.trusted) > 0 {
		trusted, err := seal.TrustedKeys(o.trusted...)
		if err != nil {
			return err
		}
		options.Check = trusted.Check
	}
	in, done, err := a.input(ctx, file)
	if err != nil {
		return err
	}
	defer done()
	start, show := time.Now(), a.progress()
	r, err := a.importFrom(ctx, in, me, o, options)
	show("")
	if err != nil {
		if file == "-" {
			file = "standard input"
		}
		return fmt.Errorf("import %s: %w", file, err)
	}
	r.Took = int64(time.Since(start))
	return a.print(a.json, r, func() error {
		fmt.Fprintln(a.stdout, r.Image)
		for _, note := range r.Notes {
			fmt.Fprintln(a.stderr, note)
		}
		if a.tableWanted() {
			fmt.Fprintf(a.stderr, "%s, %s\n", formatSize(r.Size), inMS(r.Took))
		}
		return nil
	})
}

// importFrom takes an archive of either kind.
func (a *app) importFrom(ctx context.Context, in io.Reader, me []seal.Identity, o *importOptions, options archive.ImportOptions) (*imported, error) {
	in, err := seal.Decrypt(in, me)
	if err != nil {
		return nil, err
	}
	stream, err := archive.Open(in, 0)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	r := &imported{Parents: []string{}}
	var image *images.Image
	if podman.Is(stream.First()) {
		if options.Check != nil { // it has no place for one
			return nil, options.Check(nil, nil)
		}
		x, err := podman.Import(ctx, a.images(), stream, podman.ImportOptions{Name: o.name, Rootfs: o.rootfs, Command: os.Args, Crucible: version})
		if err != nil {
			return nil, err
		}
		image, r.Notes = x.Image, x.Notes
	} else {
		if o.rootfs != "" {
			return nil, misuse("--rootfs is for the archives of Podman and CRI-O: an image knows its own")
		}
		x, err := archive.Import(ctx, a.images(), stream, options)
		if err != nil {
			return nil, err
		}
		image = x.Image
		for _, p := range x.Parents {
			r.Parents = append(r.Parents, p.Ref())
			r.Size += p.Size()
		}
		if x.Signed && options.Check == nil {
			r.Notes = append(r.Notes, "it is signed: --verify-key would have checked by whom")
		}
	}
	r.Image = image.Ref()
	r.Size += image.Size()
	if err := image.CheckMachine(""); err != nil {
		r.Notes = append(r.Notes, err.Error())
	}
	return r, nil
}

// input opens what a command reads; - is standard input.
func (a *app) input(ctx context.Context, file string) (r io.Reader, done func(), err error) {
	if file == "-" {
		return patientReader{ctx, a.stdin}, func() {}, nil
	}
	if oci.Is(file) {
		layer, err := oci.Open(file)
		if err != nil {
			return nil, nil, err
		}
		return layer, func() { layer.Close() }, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, &fileError{err, "name a file that `crucible image export` wrote, or - for standard input"}
	}
	return patientReader{ctx, f}, func() { f.Close() }, nil
}
