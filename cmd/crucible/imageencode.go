package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"crucible/images/inspect/criufile"
)

func newImageEncodeCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "encode [flags] FILE.json | DIRECTORY | -",
		Short: "Turn JSON into CRIU's files again",
		Long: `Turn the JSON of "crucible image decode", or of crit, into the file of CRIU's that
it is of. A DIRECTORY stands for every FILE.json in it; they go to the directory that
--output names.

An image is written once: to change one, encode into a copy of its directory.

Exit status: 0 success, 1 it is not the JSON of such a file.`,
		Example: `  crucible image decode web@1:pstree.img | crucible image encode - > pstree.img
  crucible image encode -o /tmp/criu /tmp/web`,
		Args: exactArgs(1, "a file of JSON, or - for standard input"),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageEncode(c.Context(), a, args[0], output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write to this file, or of a directory to this one")
	a.jsonFlagFor(c, "print the list of files as JSON, and errors")
	return c
}

func runImageEncode(ctx context.Context, a *app, what, output string) error {
	if what == "-" {
		return a.encode(ctx, a.stdin, what, output)
	}
	info, err := os.Stat(what)
	if err != nil {
		return missing(fmt.Errorf("encode: %w", err))
	}
	if !info.IsDir() {
		return a.encodeFile(ctx, what, output)
	}
	if output == "" {
		return misuse("encode %s: name a directory for the files, -o DIR", what)
	}
	paths, err := filepath.Glob(filepath.Join(what, "*.json"))
	if err == nil && len(paths) == 0 {
		return misuse("encode %s: it has no *.json", what)
	}
	if err == nil {
		err = os.MkdirAll(output, 0o700)
	}
	if err != nil {
		return fmt.Errorf("encode %s: %w", what, err)
	}
	written := []string{}
	for _, path := range paths {
		to := filepath.Join(output, strings.TrimSuffix(filepath.Base(path), ".json"))
		if err := a.encodeFile(ctx, path, to); err != nil {
			return err
		}
		written = append(written, to)
	}
	return a.print(a.json, written, func() error {
		_, err := fmt.Fprintln(a.stdout, strings.Join(written, "\n"))
		return err
	})
}

func (a *app) encodeFile(ctx context.Context, path, output string) error {
	f, err := os.Open(path)
	if err != nil {
		return missing(fmt.Errorf("encode: %w", err))
	}
	defer f.Close()
	return a.encode(ctx, bufio.NewReaderSize(f, 64<<10), path, output)
}

func (a *app) encode(ctx context.Context, r io.Reader, name, output string) error {
	if output == "" && a.terminalOut() {
		return misuse("encode %s: what comes of it is no text: name a file, -o FILE", name)
	}
	return a.writeTo(output, func(w io.Writer) error {
		if err := criufile.Encode(ctx, w, r); err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		return nil
	})
}
