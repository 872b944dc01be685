package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"crucible/container/name"
	"crucible/images/archive"
	"crucible/images/seal"
)

// importOptions are the flags of `crucible image import`.
type importOptions struct {
	name     string
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
		Use:   "import [flags] FILE|-",
		Short: "Read an image that was exported",
		Long: `Read an image from a file that ` + "`crucible image export`" + ` wrote; - is standard input.
Every byte is compared with its digest, and what does not belong to an image is
refused: after a failure nothing is left. The image gets the next number of its
name; what it builds on keeps its numbers, which must be free.

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
	in, err = seal.Decrypt(in, me)
	var x *archive.Imported
	if err == nil {
		x, err = archive.Import(ctx, a.images(), in, options)
	}
	show("")
	if err != nil {
		if file == "-" {
			file = "standard input"
		}
		return fmt.Errorf("import %s: %w", file, err)
	}
	r := imported{Image: x.Image.Ref(), Parents: []string{}, Size: x.Image.Size(), Took: int64(time.Since(start))}
	for _, p := range x.Parents {
		r.Parents = append(r.Parents, p.Ref())
		r.Size += p.Size()
	}
	if x.Signed && len(o.trusted) == 0 {
		r.Notes = append(r.Notes, "it is signed: --verify-key would have checked by whom")
	}
	if err := x.Image.CheckMachine(""); err != nil {
		r.Notes = append(r.Notes, err.Error())
	}
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

// input opens what a command reads; - is standard input.
func (a *app) input(ctx context.Context, file string) (r io.Reader, done func(), err error) {
	if file == "-" {
		return patientReader{ctx, a.stdin}, func() {}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, &fileError{err, "name a file that `crucible image export` wrote, or - for standard input"}
	}
	return patientReader{ctx, f}, func() { f.Close() }, nil
}
