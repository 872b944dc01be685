package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "crucible"

// chain is the order of the folders: each may import itself and what stands
// to its left.
func chain() []string {
	return []string{"proto", "container", "images", "checkpoint", "restore", "experiments", "cmd"}
}

// A fence says who may import a foreign package.
type fence struct {
	pkg     string   // an import path, and all below it
	inside  []string // the only folders that may, unless nil
	outside []string // folders that may not
	why     string
}

func fences() []fence {
	// Every container's init and monitor starts with the packages of these.
	small := []string{"proto", "container", "images", "checkpoint", "restore"}
	return []fence{
		{pkg: "github.com/spf13/cobra", inside: []string{"cmd"}, why: "only cmd knows the command line"},
		{pkg: "github.com/checkpoint-restore/go-criu", inside: []string{"checkpoint/criu", "images/inspect"}, why: "one place talks to CRIU"},
		{pkg: "net/http", outside: small, why: "costs every container memory and start-up time"},
		{pkg: "text/template", outside: small, why: "costs every container memory and start-up time"},
		{pkg: "html/template", outside: small, why: "costs every container memory and start-up time"},
	}
}

// objection says why the package in folder dir, or its test, must not import
// path, or "".
func objection(dir, path string, isTest bool) string {
	if rest, ok := strings.CutPrefix(path, module+"/"); ok {
		from, to := rank(dir), rank(rest)
		if to < 0 {
			return "outside of the chain of folders"
		}
		if to > from {
			return "the arrow points the wrong way: " + strings.Join(chain(), " <- ")
		}
		return ""
	}
	for _, f := range fences() {
		if !within(path, f.pkg) {
			continue
		}
		if isTest && f.outside != nil {
			continue // costs nobody but the test
		}
		in := func(folder string) bool { return within(dir, folder) }
		if f.inside != nil && !slices.ContainsFunc(f.inside, in) || slices.ContainsFunc(f.outside, in) {
			return f.why
		}
	}
	return ""
}

func rank(dir string) int {
	top, _, _ := strings.Cut(dir, "/")
	return slices.Index(chain(), top)
}

// within also holds for a later major version, .../go-criu/v8/crit.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func TestImportsPointLeft(t *testing.T) {
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if rel != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		dir := filepath.ToSlash(filepath.Dir(rel))
		if rank(dir) < 0 {
			t.Errorf("%s: Go code outside of %s", rel, strings.Join(chain(), ", "))
		}
		checkFile(t, path, dir)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("saw %d files: is this still the top of the module?", files)
	}
}

func checkFile(t *testing.T, path, dir string) {
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if why := objection(dir, imported, strings.HasSuffix(path, "_test.go")); why != "" {
			t.Errorf("%s imports %s: %s", path, imported, why)
		}
		if imported == module+"/container/testenv" && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s imports %s: that is for tests only", path, imported)
		}
	}
}

func TestObjection(t *testing.T) {
	for _, test := range []struct {
		dir, path string
		ok        bool
	}{
		{"container", "crucible/proto/imagepb", true},
		{"container/mount", "crucible/container", true},
		{"restore/migrate", "crucible/checkpoint/criu", true},
		{"cmd/crucible", "crucible/experiments/lab", true},
		{"proto/imagepb", "crucible/container", false},
		{"container", "crucible/images", false},
		{"images", "crucible/checkpoint", false},
		{"checkpoint", "crucible/restore", false},
		{"restore", "crucible/experiments/report", false},
		{"experiments", "crucible/cmd/crucible", false},
		{"container", "crucible/scripts/x", false},
		{"cmd/crucible", "github.com/spf13/cobra", true},
		{"experiments", "github.com/spf13/cobra", false},
		{"container", "github.com/spf13/cobra/doc", false},
		{"checkpoint/criu", "github.com/checkpoint-restore/go-criu/v6/rpc", true},
		{"images/inspect", "github.com/checkpoint-restore/go-criu/v8/crit/images", true},
		{"checkpoint", "github.com/checkpoint-restore/go-criu/v6/rpc", false},
		{"checkpoint/criuother", "github.com/checkpoint-restore/go-criu/v6/rpc", false},
		{"container/network", "net/http", false},
		{"container", "net", true},
		{"experiments/report", "text/template", true},
		{"restore", "text/template", false},
		{"proto/imagepb", "google.golang.org/protobuf/proto", true},
	} {
		if why := objection(test.dir, test.path, false); (why == "") != test.ok {
			t.Errorf("%s imports %s: objection %q, allowed %v", test.dir, test.path, why, test.ok)
		}
	}
}
