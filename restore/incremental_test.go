package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/checkpoint"
	"crucible/container/host"
	"crucible/container/testenv"
)

// TestIncremental makes images of which only the first holds all of the memory.
// It needs a kernel that most machines of developers do not have:
//
//	CGO_ENABLED=0 go test -c ./restore
//	CRUCIBLE_BINARY=/usr/bin/crucible crucible kernel exec --kernel debian:6.12 --memory 1g -- ./restore.test -test.run TestIncremental
func TestIncremental(t *testing.T) {
	testenv.Root(t)
	root := testenv.StateRoot(t)
	if err := os.Chmod(root, 0o711); err != nil { // for a user namespace's root
		t.Fatal(err)
	}
	testenv.LeakCheck(t)
	bin := testenv.Binary(t)
	for _, one := range []struct {
		name string
		test func(*testing.T, *env)
	}{
		{"chain", func(t *testing.T, e *env) { testChain(t, e) }},
		{"chain in a user namespace", testChainInUserNamespace},
		{"pre-dumps", testPreDumps},
		{"processes come and go", testNewProcesses},
		{"processes come and go meanwhile", testChurn},
		{"frozen", testPreDumpFrozen},
		{"damaged", testChainDamaged},
		{"parents", testParents},
	} {
		t.Run(one.name, func(t *testing.T) {
			if !host.TracksMemory() {
				testenv.Lacks(t, "soft-dirty memory", testenv.KernelOption("CONFIG_MEM_SOFT_DIRTY"))
			}
			one.test(t, &env{t: t, bin: bin, root: root})
		})
	}
	if !host.TracksMemory() {
		t.Run("refused", func(t *testing.T) { testUntracked(t, &env{t: t, bin: bin, root: root}) })
	}
}

// testUntracked: where the kernel does not tell what has changed, nothing is
// stopped and nothing is written.
func testUntracked(t *testing.T, e *env) {
	b := e.memory()
	one := b.checkpoint("-R")
	for _, flags := range [][]string{{"--pre-dump"}, {"--parent", one.Ref}, {"-R", "--parent", one.Ref}} {
		b.mustSay(1, "the kernel does not mark the memory that changes", append(append([]string{"checkpoint"}, flags...), b.name)...)
	}
	out, err := b.command(nil, "checkpoint", "--pre-dump", "--dry-run", b.name)
	if err == nil || !strings.Contains(out, "CONFIG_MEM_SOFT_DIRTY") {
		t.Errorf("dry run: %v, %q", err, out)
	}
	b.mustBe("running")
	if out := b.do("image", "list", b.name); strings.Count(out, b.name) != 1 {
		t.Errorf("images:\n%s", out)
	}
	b.mustHold("after refusals", map[string]int{"1": memoryPages})
}

// written is how many pages of memory an image holds itself.
func written(t testing.TB, c checkpoint.Result) (pages int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.Dir, "criu", "pages-*.img"))
	if err != nil || len(files) == 0 {
		t.Fatalf("pages of %s: %v, %v", c.Ref, files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		pages += int(info.Size()) / os.Getpagesize()
	}
	return pages
}

// mustWrite checks that an image holds what was changed, and not much more: the
// program's own housekeeping.
func mustWrite(t testing.TB, c checkpoint.Result, changed int) {
	t.Helper()
	const housekeeping = 4000
	n := written(t, c)
	t.Logf("%s: %d pages, %d changed by the test; frozen for %v", c.Ref, n, changed, c.Frozen)
	if n < changed || n > changed+housekeeping {
		t.Errorf("%s has %d pages, want %d and at most %d more", c.Ref, n, changed, housekeeping)
	}
}

// restoreOf brings the container back from one of its images.
func (b *box) restoreOf(ref string, flags ...string) {
	b.t.Helper()
	b.do(append([]string{"restore", ref}, flags...)...)
	b.reload()
}

func (b *box) stop() {
	b.t.Helper()
	b.do("stop", "--grace", "0s", b.name)
}

// testChain: three images, each of which is restored before and after the others.
func testChain(t *testing.T, e *env, flags ...string) {
	b := e.memory(flags...)
	one := b.checkpoint("-R")
	mustWrite(t, one, memoryPages)
	b.fill(2, 0, 100)
	two := b.checkpoint("-R", "--parent", one.Ref)
	mustWrite(t, two, 100)
	b.fill(3, 50, 150)
	three := b.checkpoint("--parent", b.name) // the newest
	mustWrite(t, three, 100)
	b.mustBe("stopped")
	b.do("image", "verify", three.Ref)

	want := map[string]map[string]int{
		one.Ref:   {"1": memoryPages},
		two.Ref:   {"1": memoryPages - 100, "2": 100},
		three.Ref: {"1": memoryPages - 150, "2": 50, "3": 100},
	}
	for _, ref := range []string{three.Ref, one.Ref, two.Ref, three.Ref} {
		b.restoreOf(ref)
		b.mustHold(ref, want[ref])
		b.stop()
	}
	if len(flags) == 0 { // a user namespace may have no userfaultfd
		b.restoreOf(two.Ref, "--lazy")
		b.mustHold(two.Ref+", lazily", want[two.Ref])
	} else {
		b.restoreOf(two.Ref)
	}
	twin := b.clone(three.Ref)
	twin.mustHold("clone of "+three.Ref, want[three.Ref])

	// What it was restored from is no parent: it has been another life.
	b.mustFail(1, "checkpoint", "-R", "--parent", two.Ref, b.name)
	four := b.checkpoint("-R")
	mustWrite(t, four, memoryPages)

	b.mustFail(6, "image", "rm", one.Ref)
	b.mustFail(6, "image", "rm", two.Ref)
	b.do("image", "rm", "--all", b.name)
}

// testChainInUserNamespace: its root may not look into the store, and has to find
// the parents.
func testChainInUserNamespace(t *testing.T, e *env) {
	user := []string{"--userns", "auto"}
	out, err := e.command(nil, append(append([]string{"run", "--rm"}, append(e.programRoot(), user...)...), "--", "/program", "-test.list", "none")...)
	if err != nil && strings.Contains(err.Error(), "id-mapped") {
		testenv.Lacks(t, "id-mapped mounts of tmpfs", func() (bool, error) {
			var at unix.Statfs_t
			var name unix.Utsname
			err := errors.Join(unix.Statfs(e.root, &at), unix.Uname(&name))
			release := unix.ByteSliceToString(name.Release[:])
			// Since Linux 6.3, which gave it to tmpfs.
			old := slices.ContainsFunc([]string{"5.", "6.0.", "6.1.", "6.2."}, func(s string) bool { return strings.HasPrefix(release, s) })
			return at.Type != unix.TMPFS_MAGIC || !old, err
		})
	}
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	testChain(t, e, user...)
}

// testPreDumps: memory is written twice while the program goes on, and a
// checkpoint has only the rest to write.
func testPreDumps(t *testing.T, e *env) {
	b := e.memory()
	one := b.checkpoint("--pre-dump")
	mustWrite(t, one, memoryPages)
	if one.Frozen <= 0 || !one.Left {
		t.Errorf("after a pre-dump: %+v", one)
	}
	b.mustBe("running")
	b.fill(2, 0, 1000)
	two := b.checkpoint("--pre-dump", "--parent", one.Ref)
	mustWrite(t, two, 1000)
	b.mustFail(6, "restore", "--name", b.name+"-x", two.Ref)
	b.fill(3, 1000, 1010)
	three := b.checkpoint("--parent", two.Ref)
	mustWrite(t, three, 10)
	if three.Frozen >= one.Frozen+two.Frozen {
		t.Logf("frozen for %v; the pre-dumps for %v and %v", three.Frozen, one.Frozen, two.Frozen)
	}
	b.restore()
	b.mustHold(three.Ref, map[string]int{"1": memoryPages - 1010, "2": 1000, "3": 10})
	b.mustFail(6, "restore", "--name", b.name+"-x", one.Ref)
	if l := (&box{env: e, name: b.name + "-x"}).list(); l.Status != "" {
		t.Errorf("left behind: %+v", l)
	}
}

// testNewProcesses: a process that is not in the parent is whole in the child.
func testNewProcesses(t *testing.T, e *env) {
	b := e.memory()
	var n int
	b.ask("child /run/old", &n)
	b.askAt("/run/old", "fill 4 0 256", &n)
	one := b.checkpoint("-R")
	b.ask("child /run/new", &n)
	b.askAt("/run/new", "fill 5 0 256", &n)
	b.askAt("/run/old", "fill 6 0 1", &n)
	two := b.checkpoint("--parent", one.Ref)
	if n := written(t, two); n > memoryPages/2 {
		t.Errorf("%s has %d pages", two.Ref, n)
	}
	b.restore()
	b.mustHold("the first", map[string]int{"1": memoryPages})
	for socket, want := range map[string]map[string]int{"/run/old": {"4": 255, "6": 1}, "/run/new": {"5": 256}} {
		var got map[string]int
		b.askAt(socket, "look", &got)
		if len(got) != len(want) || got["4"] != want["4"] || got["5"] != want["5"] || got["6"] != want["6"] {
			t.Errorf("%s: pages by value %v, want %v", socket, got, want)
		}
	}
}

// testChurn: CRIU stops the tasks of a pre-dump by itself, one after the other,
// while some are born and others end.
func testChurn(t *testing.T, e *env) {
	b := e.memory()
	var n int
	b.ask("churn", &n)
	last := b.checkpoint("--pre-dump")
	for range 10 {
		last = b.checkpoint("--pre-dump", "--parent", last.Ref)
	}
	b.fill(2, 0, 10)
	b.checkpoint("--parent", last.Ref)
	b.restore()
	b.mustHold("after 11 pre-dumps", map[string]int{"1": memoryPages - 10, "2": 10})
}

// testPreDumpFrozen: a container that the user has frozen stays so.
func testPreDumpFrozen(t *testing.T, e *env) {
	b := e.memory()
	b.do("freeze", b.name)
	one := b.checkpoint("--pre-dump")
	b.mustBe("frozen")
	two := b.checkpoint("-R", "--parent", one.Ref)
	b.mustBe("frozen")
	mustWrite(t, two, 0)
	b.do("thaw", b.name)
	b.mustHold("thawed", map[string]int{"1": memoryPages})
	b.clone(two.Ref).mustHold("a clone", map[string]int{"1": memoryPages})
}

// testChainDamaged: what is wrong with a member is said of that member, and
// nothing is restored from those that need it.
func testChainDamaged(t *testing.T, e *env) {
	b := e.memory()
	one := b.checkpoint("-R")
	two := b.checkpoint("--parent", one.Ref)
	pages, err := filepath.Glob(filepath.Join(one.Dir, "criu", "pages-*.img"))
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	flip(t, pages[0])
	b.mustSay(6, "image "+one.Ref+": criu/pages", "restore", two.Ref)
	b.mustFail(6, "restore", "--lazy", "--name", b.name+"-x", two.Ref)
	out, err := b.command(nil, "image", "verify", two.Ref)
	if err == nil || !strings.Contains(out, "image "+one.Ref+": criu/pages") {
		t.Errorf("image verify: %v, %q", err, out)
	}
	if err := os.Rename(one.Dir, one.Dir+"-away"); err != nil {
		t.Fatal(err)
	}
	b.mustSay(6, "builds on "+one.Ref+", which is not there", "restore", two.Ref)
	b.mustBe("stopped")
}

// testParents: an image that does not tell what the memory was when the kernel
// began to mark what changes is no parent.
func testParents(t *testing.T, e *env) {
	b := e.memory()
	one := b.checkpoint("-R")
	two := b.checkpoint("-R")
	b.fill(2, 0, 10)
	b.mustSay(1, "not the latest", "checkpoint", "-R", "--parent", one.Ref, b.name)
	b.mustSay(1, "--parent "+two.Ref, "checkpoint", "-R", "--parent", one.Ref, b.name)
	// A checkpoint that fails half-way may have cleared the marks.
	var r checkpoint.Result
	b.read(&r, "checkpoint", "--dry-run", "--json", "--parent", two.Ref, b.name)
	b.mustFail(1, "checkpoint", "-R", "--criu-option", "no-such-option", b.name)
	b.mustSay(1, "a later checkpoint, which has failed", "checkpoint", "-R", "--parent", two.Ref, b.name)
	three := b.checkpoint("-R")
	mustWrite(t, three, memoryPages)
	// So does one whose image is removed.
	four := b.checkpoint("-R", "--parent", three.Ref)
	mustWrite(t, four, 0)
	b.do("image", "rm", four.Ref)
	b.mustSay(1, "a later checkpoint, which has failed", "checkpoint", "-R", "--parent", three.Ref, b.name)

	other := e.memory()
	b.mustSay(1, "another container", "checkpoint", "-R", "--parent", other.checkpoint("-R").Ref, b.name)
	b.mustFail(3, "checkpoint", "--parent", b.name+"@77", b.name)
	b.mustFail(2, "checkpoint", "--parent", "@", b.name)

	five := b.checkpoint() // stopped: nobody goes on from there
	b.restore()
	b.mustSay(1, "not asked to mark", "checkpoint", "--parent", five.Ref, b.name)
	b.mustSay(1, "started or restored since", "checkpoint", "--parent", three.Ref, b.name)
	b.mustHold("after all that", map[string]int{"1": memoryPages - 10, "2": 10})
}

// mustSay checks a failure's exit status, and its words.
func (b *box) mustSay(code int, words string, args ...string) {
	b.t.Helper()
	_, err := b.command(nil, args...)
	var f *failure
	if !errors.As(err, &f) || f.Code != code || !strings.Contains(f.Message, words) {
		b.t.Errorf("crucible %s: %v, want exit status %d and %q", strings.Join(args, " "), err, code, words)
	}
}
