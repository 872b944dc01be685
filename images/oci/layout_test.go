package oci

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t testing.TB, text string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "layout")
	err := Write(dir, Description{Name: "web@3", Container: "web"}, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(dir string) (string, error) {
	r, err := Open(dir)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

func TestLayout(t *testing.T) {
	dir := write(t, "what is carried")
	if got, err := read(dir); err != nil || got != "what is carried" || !Is(dir) || Is(t.TempDir()) {
		t.Errorf("%q, %v", got, err)
	}
	fail := filepath.Join(t.TempDir(), "fails")
	if err := Write(fail, Description{}, func(io.Writer) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	if _, err := os.Stat(fail); err == nil {
		t.Error("it is left behind")
	}
	if err := Write(dir, Description{}, nil); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
}

// Whatever is changed in a layout, it is refused.
func TestDamaged(t *testing.T) {
	for name, spoil := range map[string]func(dir string, blobs []string) error{
		"a byte of a blob": func(_ string, blobs []string) error { return os.WriteFile(blobs[0], []byte("x"), 0o644) },
		"another blob":     func(_ string, blobs []string) error { return os.WriteFile(blobs[2], []byte("y"), 0o644) },
		"no index":         func(dir string, _ []string) error { return os.Remove(filepath.Join(dir, indexFile)) },
		"an empty index": func(dir string, _ []string) error {
			return os.WriteFile(filepath.Join(dir, indexFile), []byte("{}"), 0o644)
		},
		"a path": func(dir string, _ []string) error {
			data, err := os.ReadFile(filepath.Join(dir, indexFile))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, indexFile), []byte(strings.Replace(string(data), "sha256:", "sha256:../../", 1)), 0o644)
		},
	} {
		dir := write(t, strings.Repeat("what is carried ", 100))
		all, err := filepath.Glob(filepath.Join(dir, blobs, "*"))
		if err != nil || len(all) != 3 {
			t.Fatal(all, err)
		}
		empty := filepath.Join(dir, blobs, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
		used := []string{}
		for _, b := range all {
			if b != empty { // nobody reads it
				used = append(used, b)
			}
		}
		if err := spoil(dir, append(used, used[1])); err != nil {
			t.Fatal(err)
		}
		var bad *Error
		if _, err := read(dir); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	dir := write(f, "what is carried")
	data, err := os.ReadFile(filepath.Join(dir, indexFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, index []byte) {
		dir := write(t, "what is carried")
		if err := os.WriteFile(filepath.Join(dir, indexFile), index, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := read(dir)
		var bad *Error
		if err != nil && !errors.As(err, &bad) || err == nil && got != "what is carried" {
			t.Errorf("%q, %v", got, err)
		}
	})
}
