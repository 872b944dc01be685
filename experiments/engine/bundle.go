package engine

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// A bundle is one file with all that is needed to look at results again, and to
// make them again elsewhere: a tar, compressed with zstd, of
//
//	contents.json   what else is in it: see Contents
//	results/        a results directory
//	crucible        the program that made them, if it is given
const (
	contentsFile  = "contents.json"
	resultsPrefix = "results/"
	// BundledProgram is the name of the program in an unpacked bundle.
	BundledProgram = "crucible"
	// BundledResults is the name of the results in an unpacked bundle.
	BundledResults = "results"
)

// Contents is contents.json: the digest of every other file, by its name.
type Contents struct {
	Format int               `json:"format"` // of the bundle
	SHA256 map[string]string `json:"sha256"`
}

// bundleFormat is what this program writes and reads.
const bundleFormat = 1

// bundleLimit is how many bytes a bundle may hold: a file that says nothing but
// zeros a billion times is no results.
const bundleLimit = 4 << 30

// BundleError is a bundle that cannot be used.
type BundleError struct{ Path, Why string }

func (e *BundleError) Error() string { return fmt.Sprintf("bundle %s: %s", e.Path, e.Why) }

// Hint says what to do about it.
func (e *BundleError) Hint() string { return "get it again from where it came from" }

// Pack writes a bundle of a results directory; program is the crucible that
// made them, or "".
func Pack(w io.Writer, results, program string) error {
	files := map[string]string{} // path on disk by name
	err := filepath.WalkDir(results, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(results, p)
		files[resultsPrefix+filepath.ToSlash(rel)] = p
		return err
	})
	if err != nil {
		return fmt.Errorf("bundle results %s: %w", results, err)
	}
	if program != "" {
		files[BundledProgram] = program
	}
	names := make([]string, 0, len(files))
	c := Contents{Format: bundleFormat, SHA256: map[string]string{}}
	for name, p := range files {
		names = append(names, name)
		if c.SHA256[name], err = digestOf(p); err != nil {
			return fmt.Errorf("bundle results %s: %w", results, err)
		}
	}
	slices.Sort(names)
	z, err := zstd.NewWriter(w)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	err = packAll(t, &c, names, files)
	return errors.Join(err, t.Close(), z.Close())
}

func packAll(t *tar.Writer, c *Contents, names []string, files map[string]string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: contentsFile, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	if _, err := t.Write(data); err != nil {
		return err
	}
	for _, name := range names {
		if err := packOne(t, name, files[name]); err != nil {
			return fmt.Errorf("bundle %s: %w", name, err)
		}
	}
	return nil
}

func packOne(t *tar.Writer, name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if name == BundledProgram {
		mode = 0o755
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

func digestOf(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// Unpack checks a bundle and writes what is in it to a new directory. What it
// does not know, or what is not as it was, is a [BundleError], and the directory
// is to be removed.
func Unpack(bundle, dir string) error {
	f, err := os.Open(bundle)
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	defer f.Close()
	err = unpack(f, dir)
	var bad *BundleError
	if errors.As(err, &bad) {
		bad.Path = bundle
	}
	return err
}

func damaged(format string, args ...any) error {
	return &BundleError{Why: fmt.Sprintf(format, args...)}
}

func unpack(r io.Reader, dir string) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	in := tar.NewReader(io.LimitReader(z, bundleLimit))
	c, err := readContents(in)
	if err != nil {
		return err
	}
	for {
		head, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return damaged("it is damaged, or none: %v", err)
		}
		want, known := c.SHA256[head.Name]
		if !known || head.Typeflag != tar.TypeReg || !local(head.Name) {
			return damaged("%q does not belong there", head.Name)
		}
		delete(c.SHA256, head.Name)
		if err := unpackOne(in, head, filepath.Join(dir, filepath.FromSlash(head.Name)), want); err != nil {
			return err
		}
	}
	for name := range c.SHA256 {
		return damaged("%s is missing", name)
	}
	return nil
}

func readContents(in *tar.Reader) (*Contents, error) {
	head, err := in.Next()
	if err != nil || head.Name != contentsFile {
		return nil, damaged("it is none")
	}
	var c Contents
	data, err := io.ReadAll(io.LimitReader(in, 16<<20))
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(data)).Decode(&c)
	}
	if err != nil {
		return nil, damaged("%s: %v", contentsFile, err)
	}
	if c.Format != bundleFormat {
		return nil, damaged("it is of format %d, and this crucible reads %d", c.Format, bundleFormat)
	}
	return &c, nil
}

// local: a name in a bundle leads to a file below the directory.
func local(name string) bool {
	return name == BundledProgram || strings.HasPrefix(name, resultsPrefix) && path.Clean(name) == name && filepath.IsLocal(name)
}

func unpackOne(in io.Reader, head *tar.Header, to, want string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if head.Name == BundledProgram {
		mode = 0o755
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), in)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		return closeErr
	}
	if err != nil {
		return damaged("%s: %v", head.Name, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != want {
		return damaged("%s is not what it was", head.Name)
	}
	return nil
}
