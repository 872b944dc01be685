package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
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
