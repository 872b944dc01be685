package engine

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func sample(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{"experiment.yaml": "question: x\n", "runs.jsonl": strings.Repeat("{}\n", 1000), "logs/3/a-log": "said\n"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBundle(t *testing.T) {
	dir := sample(t)
	var b, again bytes.Buffer
	if err := Pack(&b, dir, "/bin/true"); err != nil {
		t.Fatal(err)
	}
	if err := Pack(&again, dir, "/bin/true"); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("another time it is another file (%v)", err)
	}
	bundle, out := filepath.Join(t.TempDir(), "b"), filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(bundle, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(bundle, out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"experiment.yaml", "runs.jsonl", "logs/3/a-log"} {
		want, _ := os.ReadFile(filepath.Join(dir, name))
		got, err := os.ReadFile(filepath.Join(out, BundledResults, name))
		if err != nil || !bytes.Equal(want, got) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if info, err := os.Stat(filepath.Join(out, BundledProgram)); err != nil || info.Mode().Perm() != 0o755 {
		t.Error(info, err)
	}
}

// uncompressed is the tar of a bundle.
func uncompressed(t testing.TB) []byte {
	t.Helper()
	var b, plain bytes.Buffer
	if err := Pack(&b, sample(t), ""); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	return plain.Bytes()
}

// Whatever is changed in a bundle, it is refused.
func TestBundleDamaged(t *testing.T) {
	plain := uncompressed(t)
	for name, change := range map[string]func([]byte) []byte{
		"a flipped bit": func(b []byte) []byte { return bytes.Replace(b, []byte("said\n"), []byte("saie\n"), 1) },
		"another digest": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"results/runs.jsonl": "`), []byte(`"results/runs.jsonl": "0`), 1)
		},
		"a missing file": func(b []byte) []byte { return bytes.Replace(b, []byte(`"sha256": {`), []byte(`"sha256": {"x":"",`), 1) },
		"a path upwards": func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte("results/logs/3/a-log"), []byte("results/../../3/a-lo"))
		},
		"another format": func(b []byte) []byte { return bytes.Replace(b, []byte(`"format": 1`), []byte(`"format": 2`), 1) },
		"cut short":      func(b []byte) []byte { return b[:len(b)*2/3] },
		"not a bundle":   func([]byte) []byte { return []byte("hello") },
		"nothing":        func([]byte) []byte { return nil },
	} {
		var out bytes.Buffer
		w, _ := zstd.NewWriter(&out)
		_, _ = w.Write(change(bytes.Clone(plain)))
		w.Close()
		if err := unpack(&out, t.TempDir()); !is[*BundleError](err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := unpack(strings.NewReader("this is not compressed"), t.TempDir()); !is[*BundleError](err) {
		t.Error(err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(uncompressed(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		w, _ := zstd.NewWriter(&out)
		_, _ = w.Write(data)
		w.Close()
		dir := filepath.Join(t.TempDir(), "in")
		_ = unpack(&out, dir)
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "crucible")); err == nil {
			t.Fatal("outside of the directory")
		}
	})
}
