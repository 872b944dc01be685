package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"crucible/images"
	"crucible/images/inspect/criufile"
)

func newImageDecodeCommand(a *app) *cobra.Command {
	var output string
	var pretty bool
	c := &cobra.Command{
		Use:   "decode [flags] FILE | NAME[@N][:FILE]",
		Short: "Turn CRIU's files into JSON",
		Long: `Turn a file of CRIU's into JSON, as crit does: a path (with a / in it, or - for
standard input), or NAME@N:FILE, the FILE that an image has in criu/. Without :FILE,
all files of the image go to the directory that --output names, as FILE.json; raw
files, which hold pages of memory or what other tools wrote, are listed only.

Nothing is lost: "crucible image encode" makes the same bytes of it again. What no CRIU
up to 4.3 has in its files is shown by its number. Addresses are "0x..." and numbers
above 2^53 are strings, both of which crit reads as well.

Exit status: 0 success, 3 no such image, 6 the file is damaged, raw, or not CRIU's.`,
		Example: `  crucible image decode web@1:pstree.img
  crucible image decode --pretty web@1:mm-1.img | less
  crucible image decode -o /tmp/web web@1
  crucible image decode - < pstree.img`,
		Args:              exactArgs(1, "a file, or the name of an image"),
		ValidArgsFunction: a.imageFiles,
		RunE: func(c *cobra.Command, args []string) error {
			return runImageDecode(c.Context(), a, args[0], output, criufile.DecodeOptions{Indent: pretty})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write to this file, or of a whole image to this directory")
	c.Flags().BoolVar(&pretty, "pretty", false, "put every value on a line of its own; flags, devices, addresses and states in words")
	a.jsonFlagFor(c, "print the list of files as JSON, and errors")
	return c
}

func runImageDecode(ctx context.Context, a *app, what, output string, o criufile.DecodeOptions) error {
	if what == "-" {
		return a.decodeStdin(ctx, output, o)
	}
	ref, file, one := strings.Cut(what, ":")
	if strings.Contains(ref, "/") {
		return a.decodeFile(ctx, what, output, o)
	}
	i, err := a.images().Open(ref)
	if err != nil {
		return pathMeant(what, err)
	}
	hold, err := i.Hold()
	if err != nil {
		return err
	}
	defer hold.Close()
	if one {
		if file == "" || file != filepath.Base(file) {
			return misuse("decode %s: %q is no file in the image's %s/", what, file, images.CRIU)
		}
		err := a.decodeFile(ctx, filepath.Join(i.CRIUDir(), file), output, o)
		if errors.Is(err, fs.ErrNotExist) {
			return &images.Error{Kind: images.NotFound, Ref: i.Ref(), Text: "has no file " + file + " of CRIU's",
				Advice: "CRIU leaves out the files that would have nothing in them; `crucible image decode -o DIR " + i.Ref() + "` lists those that are there"}
		}
		return err
	}
	if output == "" {
		return misuse("decode image %s: name one of its files, %s:FILE, or a directory for all, -o DIR", i.Ref(), i.Ref())
	}
	return a.decodeAll(ctx, i, output, o)
}

// pathMeant tells who named a file of this directory how to.
func pathMeant(what string, err error) error {
	if _, missing := os.Stat(what); missing == nil && errors.Is(err, images.NotFound) {
		return misuse("decode %s: there is no such image; the file is ./%s", what, what)
	}
	return err
}

func (a *app) decodeStdin(ctx context.Context, output string, o criufile.DecodeOptions) error {
	b, err := io.ReadAll(a.stdin)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	f, err := criufile.NewFile(bytes.NewReader(b), int64(len(b)), "standard input")
	if err != nil {
		return fmt.Errorf("decode %w", err)
	}
	return a.writeTo(output, func(w io.Writer) error { return wrapDecode(f.Decode(ctx, w, o)) })
}

func (a *app) decodeFile(ctx context.Context, path, output string, o criufile.DecodeOptions) error {
	return a.writeTo(output, func(w io.Writer) error { return wrapDecode(criufile.Decode(ctx, w, path, o)) })
}

func wrapDecode(err error) error {
	var path *os.PathError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &path):
		return missing(fmt.Errorf("decode %s: %w", path.Path, path.Err))
	}
	return fmt.Errorf("decode %w", err)
}

// missing makes a path that does not exist a wrong command line.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &usageError{err}
	}
	return err
}

// decoded is a file in the answer of `crucible image decode -o DIR`.
type decoded struct {
	File string `json:"file"`
	Kind string `json:"kind"`
	Size int64  `json:"size"`           // bytes
	Raw  string `json:"raw,omitempty"`  // what it is, if it has no entries
	JSON string `json:"json,omitempty"` // the path of the JSON
}

// decodeAll decodes what CRIU wrote to an image, all but its log.
func (a *app) decodeAll(ctx context.Context, i *images.Image, dir string, o criufile.DecodeOptions) error {
	entries, err := os.ReadDir(i.CRIUDir())
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("decode image %s: %w", i.Ref(), err)
	}
	files := []decoded{}
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasSuffix(e.Name(), ".log") {
			continue
		}
		d, err := a.decodeOne(ctx, filepath.Join(i.CRIUDir(), e.Name()), dir, o)
		if err != nil {
			return err
		}
		files = append(files, d)
	}
	return a.print(a.json, files, func() error {
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "FILE\tKIND\tSIZE\tJSON")
		for _, d := range files {
			text := d.JSON
			if d.Raw != "" {
				text = "none: " + d.Raw
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.File, d.Kind, formatSize(d.Size), text)
		}
		return w.Flush()
	})
}

func (a *app) decodeOne(ctx context.Context, path, dir string, o criufile.DecodeOptions) (decoded, error) {
	f, err := criufile.Open(path)
	if err != nil {
		return decoded{}, wrapDecode(err)
	}
	defer f.Close()
	d := decoded{File: filepath.Base(path), Kind: f.Kind().Name, Size: f.Size()}
	if f.Kind().Raw() {
		d.Raw = f.Kind().Text
		return d, nil
	}
	d.JSON = filepath.Join(dir, d.File+".json")
	return d, a.writeTo(d.JSON, func(w io.Writer) error { return wrapDecode(f.Decode(ctx, w, o)) })
}

// writeTo gives a function the file to write, or standard output. A file is
// there only when it is whole, and for its owner alone: it may hold what was in
// memory.
func (a *app) writeTo(path string, write func(io.Writer) error) error {
	if path == "" {
		out := bufio.NewWriterSize(a.stdout, 64<<10)
		return errors.Join(write(out), out.Flush())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".crucible-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // after the rename: nothing
	out := bufio.NewWriterSize(f, 64<<10)
	err = write(out)
	if err == nil {
		err = out.Flush()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// terminalOut tells whether standard output is a terminal, which bytes would spoil.
func (a *app) terminalOut() bool { return term.IsTerminal(int(a.stdout.Fd())) }

// imageFiles completes images and, behind a colon, CRIU's files of one.
func (a *app) imageFiles(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ref, _, behind := strings.Cut(prefix, ":")
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if strings.Contains(prefix, "/") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	if !behind {
		names, directive := a.imageNames(false)(c, args, prefix)
		return names, directive | cobra.ShellCompDirectiveNoSpace
	}
	i, err := a.images().Open(ref)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	entries, _ := os.ReadDir(i.CRIUDir())
	var names []string
	for _, e := range entries {
		names = append(names, ref+":"+e.Name())
	}
	return fitting(names, args, prefix), cobra.ShellCompDirectiveNoFileComp
}
