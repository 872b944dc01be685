package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container/testenv"
	"crucible/experiments/lab/archive"
)

// A toy kernel tree: its `make` takes the kernel that the commit names. The bad
// one is real: CRIU 4.1.1 cannot dump a TCP connection on Linux 6.18, for want
// of a socket option of MPTCP. One commit on the way does not build, and one
// does not boot: git must step over both.
const toyMakefile = `olddefconfig:
	@test -e .config
.DEFAULT_GOAL := all
all:
	@mkdir -p arch/x86/boot
	@rm -rf modules.order kernel
	@. ./commit; test "$$build" != no
	@. ./commit; cp "$$image" arch/x86/boot/bzImage; \
		if [ -n "$$modules" ]; then cp -r "$$modules/kernel" kernel; \
		cp "$$modules/modules.builtin" .; find kernel -name '*.ko' >modules.order; fi
`

func TestBisect(t *testing.T) {
	if testing.Short() {
		testenv.Skip(t, "boots machines")
	}
	for _, program := range []string{"qemu-system-x86_64", "git", "make"} {
		if _, err := exec.LookPath(program); err != nil {
			testenv.Skip(t, "%v: run scripts/setup --tests", err)
		}
	}
	store, err := archive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	kernels := map[string]archive.Kernel{}
	for _, version := range []string{"6.12", "6.18"} {
		k, err := store.Kernel(t.Context(), version)
		var away *archive.Unreachable
		var none *archive.NoApt
		if errors.As(err, &away) || errors.As(err, &none) {
			testenv.Skip(t, "no kernel to boot: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		kernels[version] = k
	}
	tree := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", tree, "-c", "user.name=toy", "-c", "user.email=toy@localhost"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "-q", ".")
	write("Makefile", toyMakefile)
	write(".config", "CONFIG_MODULES=y\n")
	write(".gitignore", "arch\nkernel\nmodules.*\n")
	old, bad := kernels["6.12"], kernels["6.18"]
	commits := []string{
		fmt.Sprintf("image=%s modules=%s", old.Image, old.Modules),
		fmt.Sprintf("image=%s modules=%s # 2", old.Image, old.Modules),
		"build=no",
		fmt.Sprintf("image=%s modules=%s # 4", old.Image, old.Modules),
		fmt.Sprintf("image=%s modules=%s # the bad one", bad.Image, bad.Modules),
		fmt.Sprintf("image=%s modules= # does not get its modules: no veth", bad.Image),
		fmt.Sprintf("image=%s modules=%s # 7", bad.Image, bad.Modules),
	}
	for i, text := range commits {
		write("commit", text+"\n")
		git("add", "-A")
		git("commit", "-q", "-m", fmt.Sprintf("commit %d", i+1))
	}
	git("bisect", "start", "HEAD", "HEAD~6")
	out := git("bisect", "run", testenv.Binary(t), "kernel", "test", "--criu", "4.1.1", "--case", "tcp-established", "--jobs", "1")
	if !strings.Contains(out, "is the first bad commit") || !strings.Contains(out, "commit 5") {
		t.Errorf("git bisect says:\n%s", out)
	}
}
