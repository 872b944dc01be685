package criufile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// files are real ones: what CRIU 4.2.1 wrote of testdata/zoo.py.
func files(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/zoo/*")
	if err != nil || len(paths) < 40 {
		t.Fatalf("find testdata/zoo: %d files, %v", len(paths), err)
	}
	return paths
}

func decode(t testing.TB, path string, o DecodeOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Decode(t.Context(), &out, path, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func encode(t testing.TB, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Encode(t.Context(), &out, bytes.NewReader(text)); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return out.Bytes()
}

func TestLossless(t *testing.T) {
	for _, path := range files(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range []DecodeOptions{{}, {Indent: true}} {
				text := decode(t, path, o)
				if !json.Valid(text) {
					t.Fatalf("it is no JSON:\n%s", text)
				}
				if bytes.Contains(text, []byte("@wire")) || bytes.Contains(text, []byte(`"#`)) {
					t.Errorf("something is not known:\n%s", text)
				}
				if got := encode(t, text); !bytes.Equal(got, want) {
					t.Errorf("other bytes come back:\n%x\n%x\nof\n%s", got, want, text)
				}
			}
		})
	}
}

func TestRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pages-1.img")
	if err := os.WriteFile(path, []byte("anything"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil || f.Kind().Name != "PAGES" || !f.Kind().Raw() {
		t.Fatalf("open: %+v, %v", f, err)
	}
	defer f.Close()
	if err := f.Decode(context.Background(), &bytes.Buffer{}, DecodeOptions{}); !errors.Is(err, Raw) {
		t.Errorf("decode: %v, want that it is raw", err)
	}
	if _, err := Load[struct{}](path); !errors.Is(err, Raw) {
		t.Errorf("load: %v, want that it is raw", err)
	}
}
