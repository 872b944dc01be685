package testenv

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	t.Setenv(Prefix, "")
	a, b := Name(t), Name(t)
	if a == b || len(a) > 15 || !strings.HasPrefix(a, "t") {
		t.Errorf("names %q and %q", a, b)
	}
	t.Setenv(Prefix, "mine")
	if c := Name(t); !strings.HasPrefix(c, "mine") {
		t.Errorf("name %q", c)
	}
}

func TestStateRoot(t *testing.T) {
	var dir string
	t.Run("", func(t *testing.T) {
		dir = StateRoot(t)
		if os.Getenv(RootEnv) != dir {
			t.Errorf("%s is %q, not %q", RootEnv, os.Getenv(RootEnv), dir)
		}
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o644); err != nil {
			t.Error(err)
		}
		if os.Geteuid() == 0 && !layered(filepath.Dir(dir)) {
			t.Logf("no directory here can hold an overlay's upper one: %s", dir)
		}
	})
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
}

// verdict runs a function as a test that nobody sees, and says how it ended.
func verdict(t *testing.T, f func(testing.TB)) (how, why string) {
	r := &ender{TB: t}
	done := make(chan bool)
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r.how, r.why
}

type ender struct {
	testing.TB
	how, why string
}

func (r *ender) end(how, why string) {
	r.how, r.why = how, why
	runtime.Goexit()
}
func (r *ender) Fatal(args ...any)                 { r.end("fails", fmt.Sprint(args...)) }
func (r *ender) Fatalf(format string, args ...any) { r.end("fails", fmt.Sprintf(format, args...)) }
func (r *ender) Skipf(format string, args ...any)  { r.end("skips", fmt.Sprintf(format, args...)) }

func TestSkips(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "lacks")
	t.Setenv(LacksFile, seen)
	var out strings.Builder
	shown = &out
	t.Cleanup(func() { shown = os.Stderr })
	lacks := func(has bool, err error) func(testing.TB) {
		return func(t testing.TB) { Lacks(t, "wings", func() (bool, error) { return has, err }) }
	}
	for _, c := range []struct {
		what        string
		f           func(testing.TB)
		how, strict string
		shown       bool
	}{
		{"a skip", func(t testing.TB) { Skip(t, "no %s", "wings") }, "skips", "fails", false},
		{"the probe says no", lacks(false, nil), "skips", "skips", true},
		{"the probe says yes", lacks(true, nil), "fails", "fails", false},
		{"the probe cannot tell", lacks(false, os.ErrPermission), "skips", "fails", false},
	} {
		for value, want := range map[string]string{"": c.how, "1": c.strict} {
			must(t, os.WriteFile(seen, nil, 0o644))
			out.Reset()
			t.Setenv(NoSkip, value)
			if how, why := verdict(t, c.f); how != want || !strings.Contains(why, "wings") {
				t.Errorf("%s with %s=%q: %s, want it %s: %q", c.what, NoSkip, value, how, want, why)
			}
			data, err := os.ReadFile(seen)
			want := ""
			if c.shown {
				want = t.Name() + ": skipped, since this machine lacks wings\n"
			}
			if must(t, err); string(data) != want || out.String() != want {
				t.Errorf("%s is shown as %q and %q, want %q", c.what, out.String(), data, want)
			}
		}
	}
}

func TestKernelOption(t *testing.T) {
	const config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=1\nCONFIG_EE=y\n"
	for option, want := range map[string]bool{"CONFIG_A": true, "CONFIG_B": false, "CONFIG_C": true, "CONFIG_E": false, "CONFIG_F": false} {
		if has, err := hasOption(strings.NewReader(config), option); has != want || err != nil {
			t.Errorf("%s: %v, %v", option, has, err)
		}
	}
	// Nothing of this would run without.
	if has, err := KernelOption("CONFIG_NAMESPACES")(); err == nil && !has {
		t.Error("the kernel's configuration has no CONFIG_NAMESPACES")
	}
	if has, err := KernelOption("CONFIG_NO_SUCH_THING")(); has {
		t.Errorf("the kernel has CONFIG_NO_SUCH_THING: %v", err)
	}
}

// Nobody skips but by Skip, Root and Lacks: any other skip would be seen by
// nobody, and last for ever.
func TestSkipsAreOurs(t *testing.T) {
	root, err := moduleRoot()
	must(t, err)
	files := 0
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, at := range skips(file) {
			t.Errorf("%s skips by itself: that is testenv.Skip's, or testenv.Lacks's", set.Position(at))
		}
		return nil
	})
	must(t, err)
	if files < 50 {
		t.Fatalf("saw %d files: is this still the module?", files)
	}
}

// skips are the places where a file names a method that skips a test.
func skips(file *ast.File) (all []token.Pos) {
	imported := map[string]bool{} // what a package exports by that name is no test's method
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		imported[filepath.Base(path)] = true
	}
	ast.Inspect(file, func(n ast.Node) bool {
		method, ok := n.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, method.Sel.Name) {
			return true
		}
		if pkg, ok := method.X.(*ast.Ident); !ok || !imported[pkg.Name] {
			all = append(all, method.Sel.Pos())
		}
		return true
	})
	return all
}

func TestSkipsAreFound(t *testing.T) {
	for line, want := range map[string]int{
		`t.Skip("x")`: 1, `b.Skipf("x")`: 1, `t.SkipNow()`: 1, `f := e.t.Skip; f()`: 1, `defer func() { h.T().Skip() }()`: 1,
		`testenv.Skip(t, "x")`: 0, `_ = fs.SkipDir`: 0, `_ = t.Skipped()`: 0, `_ = workload.Skip`: 0,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "", `package p; import ("x/testenv"; "x/workload"); func f() { `+line+" }", 0)
		if must(t, err); len(skips(file)) != want {
			t.Errorf("%d skips in %s, want %d", len(skips(file)), line, want)
		}
	}
}

func TestBuild(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("GOCACHE", goCache(t))
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module m\n", "cmd/x/main.go": "package main\n\nfunc main() { println(\"first\") }\n", "cmd/bad/main.go": "package main\n",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	path, err := build(root, "./cmd/x")
	must(t, err)
	first, err := os.Stat(path)
	must(t, err)
	if out, err := exec.Command(path).CombinedOutput(); err != nil || string(out) != "first\n" {
		t.Errorf("it says %q: %v", out, err)
	}
	if path, err = build(root, "./cmd/x"); err != nil {
		t.Error(err)
	}
	if again, err := os.Stat(path); err != nil || !os.SameFile(first, again) {
		t.Errorf("it was built again: %v, %v", again, err)
	}
	if _, err := build(root, "./cmd/bad"); err == nil || !strings.Contains(err.Error(), "function main is undeclared") {
		t.Errorf("a program that does not compile: %v", err)
	}
}

func goCache(t *testing.T) string {
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}

func TestModuleRoot(t *testing.T) {
	root, err := moduleRoot()
	if err != nil || filepath.Base(filepath.Dir(filepath.Dir(must2(os.Getwd())))) != filepath.Base(root) {
		t.Errorf("module root %s, %v", root, err)
	}
	t.Chdir(t.TempDir())
	if root, err := moduleRoot(); err == nil {
		t.Errorf("module root %s, outside of any", root)
	}
}

func must2[T any](v T, _ error) T { return v }
