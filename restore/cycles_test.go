package restore_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crucible/restore"
)

// counter counts in memory, in its layer and to its output.
const counter = `
n = 0
def count():
    global n
    f = open("/srv/count", "w")
    while True:
        n += 1
        f.write(f"{n}\n")
        f.flush()
        time.sleep(0.002)
threading.Thread(target=count, daemon=True).start()
def look():
    lines = open("/srv/count").read().split()
    return {"n": n, "in order": all(int(l) == i + 1 for i, l in enumerate(lines)), "lines": len(lines)}
answer({"look": look})
`

type count struct {
	N       int
	Lines   int
	InOrder bool `json:"in order"`
}

// counted returns how far a container has counted, and checks the file.
func (b *box) counted() int {
	b.t.Helper()
	var c count
	b.ask("look", &c)
	if !c.InOrder || c.Lines < c.N-1 {
		b.t.Fatalf("container %s: %+v", b.name, c)
	}
	return c.N
}

// mustCountPast waits until the container has counted on.
func (b *box) mustCountPast(n int) {
	b.t.Helper()
	eventually(b.t, "count of "+b.name, func() error {
		if got := b.counted(); got <= n {
			return fmt.Errorf("%d, want more than %d", got, n)
		}
		return nil
	})
}

func (e *env) runCounter(flags ...string) *box {
	e.t.Helper()
	b := e.run(flags, python(e.t), "-c", ask(e.t)+counter)
	b.mustCountPast(0)
	return b
}

// testCycles: the same container again and again.
func testCycles(t *testing.T, e *env) {
	b := e.runCounter(bridge()...)
	for i := range 5 {
		before := b.counted()
		c := b.checkpoint()
		if want := fmt.Sprintf("%s@%d", b.name, i+1); c.Ref != want {
			t.Fatalf("image %s, want %s", c.Ref, want)
		}
		b.restore()
		b.mustCountPast(before)
	}
	b.do("stop", b.name)
	if l := b.list(); l.Status != "stopped" || l.ExitStatus == nil || *l.ExitStatus != 137 {
		t.Errorf("after stop: %+v", l)
	}
}

// testLeaveRunning: -R writes an image and the container goes on; the image
// becomes a clone beside it.
func testLeaveRunning(t *testing.T, e *env) {
	b := e.runCounter(bridge()...)
	pid, before := b.pid, b.counted()
	c := b.checkpoint("-R")
	b.mustBe("running")
	b.reload()
	if b.pid != pid || !c.Left {
		t.Errorf("pid %d, before %d; %+v", b.pid, pid, c)
	}
	after := b.counted()
	b.mustCountPast(after)
	twin := b.clone(c.Ref)
	if twin.address == b.address || twin.address == "" {
		t.Errorf("the twin's address is %q, the original's %q", twin.address, b.address)
	}
	if n := twin.counted(); n < before {
		t.Errorf("the twin has counted to %d, the original to %d before", n, before)
	}
	b.mustCountPast(b.counted())
	twin.mustCountPast(twin.counted())
	// What one writes is not the other's.
	if err := os.WriteFile(twin.path("/srv/mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.path("/srv/mine")); err == nil {
		t.Error("the clone's file is in the original")
	}
	// Both can be checkpointed again.
	twin.cycle()
	b.cycle()
	twin.mustCountPast(twin.counted())
	b.mustCountPast(b.counted())
}

// testOlderImage: each image is one moment, whatever came later.
func testOlderImage(t *testing.T, e *env) {
	b := e.runCounter()
	first := b.checkpoint("-R")
	if err := os.WriteFile(b.path("/srv/later"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.mustCountPast(b.counted() + 200)
	second := b.checkpoint()

	var r restore.Result
	b.read(&r, "restore", "--json", first.Ref)
	b.pid = r.Pid
	old := b.counted()
	if _, err := os.Stat(b.path("/srv/later")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of later: %v", err)
	}
	newer := b.clone(second.Ref)
	if n := newer.counted(); n < old+150 {
		t.Errorf("the older image is at %d, the newer at %d", old, n)
	}
	if _, err := os.Stat(newer.path("/srv/later")); err != nil {
		t.Error(err)
	}
}

// testClones: several from one image, at once, each with an address and a life
// of its own.
func testClones(t *testing.T, e *env) {
	b := e.runCounter(bridge()...)
	c := b.checkpoint()
	var results []restore.Result
	b.read(&results, "restore", "--json", "--count", "3", c.Ref)
	if len(results) != 3 {
		t.Fatalf("%d clones", len(results))
	}
	seen := map[string]bool{}
	for i, r := range results {
		one := &box{env: b.env, name: r.Name, pid: r.Pid, address: r.Address}
		one.willDelete()
		if want := fmt.Sprintf("%s-%d", b.name, i+1); r.Name != want {
			t.Errorf("clone %s, want %s", r.Name, want)
		}
		if r.Address == "" || seen[r.Address] {
			t.Errorf("clone %s has the address %q", r.Name, r.Address)
		}
		seen[r.Address] = true
		one.mustCountPast(one.counted())
	}
	b.restore() // beside them
	b.mustCountPast(b.counted())
}

// testOneWinner: of several restores of a container at the same time one
// brings it back, and the others say that it is not stopped.
func testOneWinner(t *testing.T, e *env) {
	b := e.runCounter()
	before := b.counted()
	b.checkpoint()
	codes := make([]int, 6)
	var all sync.WaitGroup
	for i := range codes {
		all.Go(func() {
			_, err := b.command(nil, "restore", b.name)
			var f *failure
			if errors.As(err, &f) {
				codes[i] = f.Code
			} else if err != nil {
				codes[i] = -1
			}
		})
	}
	all.Wait()
	slices.Sort(codes)
	if want := []int{0, 4, 4, 4, 4, 4}; !slices.Equal(codes, want) {
		t.Fatalf("exit statuses %v, want %v", codes, want)
	}
	b.reload()
	b.mustCountPast(before)
	if pids := b.pids(); len(pids) != 1 {
		t.Errorf("processes in the container: %v", pids)
	}
	b.cycle()
}

func (b *box) pids() (all []int) {
	b.t.Helper()
	var rows []struct{ Pid int }
	b.read(&rows, "ps", "--json", b.name)
	for _, r := range rows {
		all = append(all, r.Pid)
	}
	return all
}

// interrupted starts a command, and sends a signal once it has come so far.
func (b *box) interrupted(signal os.Signal, begun func() bool, args ...string) {
	b.t.Helper()
	c := exec.CommandContext(b.t.Context(), b.bin, append([]string{"--root", b.root}, args...)...)
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for !begun() {
		select {
		case err := <-ended:
			b.t.Logf("crucible %s ended before the signal: %v", shorten(args), err)
			return
		case <-time.After(time.Millisecond):
		}
	}
	_ = c.Process.Signal(signal)
	select {
	case err := <-ended:
		b.t.Logf("crucible %s: %v", shorten(args), err)
	case <-time.After(patience):
		b.t.Fatalf("crucible %s does not end after %v", shorten(args), signal)
	}
}

// drafted tells whether a checkpoint is under way: its log of CRIU exists.
func (b *box) drafted() bool {
	_, err := os.Stat(filepath.Join(b.root, "logs", b.name, "checkpoint.log"))
	return err == nil
}

// testInterrupted: whatever ends the command, the container is either whole in
// an image or goes on, and no half image stays behind.
func testInterrupted(t *testing.T, e *env, signal os.Signal) {
	b := e.runCounter(bridge()...)
	before := b.counted()
	b.interrupted(signal, b.drafted, "checkpoint", b.name)
	// The monitor thaws as soon as it sees that nobody is left.
	eventually(t, "status", func() error {
		if l := b.list(); l.Status != "running" && l.Status != "stopped" {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	if b.list().Status == "stopped" { // the image was whole by then
		b.restore()
	}
	b.mustCountPast(before)
	b.cycle()
	b.mustCountPast(before)
	drafts, err := filepath.Glob(filepath.Join(b.root, "images", ".drafts", b.name+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range drafts {
		if info, err := os.Stat(d); err == nil && info.IsDir() {
			t.Errorf("a draft is left: %s", d)
		}
	}
}

// testMeanwhile: of two commands that both want the container, one gets it, and
// nothing hangs.
func testMeanwhile(t *testing.T, e *env, args ...string) {
	b := e.runCounter(bridge()...)
	before := b.counted()
	ended := make(chan error, 1)
	go func() {
		_, err := b.command(nil, "checkpoint", b.name)
		ended <- err
	}()
	for !b.drafted() && len(ended) == 0 {
		time.Sleep(time.Millisecond)
	}
	_, other := b.command(nil, append(args, b.name)...)
	checkpoint := <-ended
	t.Logf("checkpoint: %v; %s: %v", checkpoint, args[0], other)
	if checkpoint != nil && other != nil {
		t.Error("neither got it")
	}
	if args[0] != "delete" {
		eventually(t, "it stops", func() error {
			if l := b.list(); l.Status != "stopped" {
				return fmt.Errorf("%+v", l)
			}
			return nil
		})
	}
	if checkpoint == nil {
		b.restore()
		b.mustCountPast(before)
	}
}

// testRefused: what cannot be is said, with the exit status for it, and leaves
// everything as it was.
func testRefused(t *testing.T, e *env) {
	b := e.runCounter()
	for _, refuse := range []struct {
		args []string
		code int
	}{
		{[]string{"restore", b.name}, 3}, // no image
		{[]string{"checkpoint", "no-such-container"}, 3},
		{[]string{"restore", b.name + "@7"}, 3},
	} {
		b.mustFail(refuse.code, refuse.args...)
	}
	c := b.checkpoint("-R")
	b.mustFail(4, "restore", b.name) // it runs
	b.mustFail(2, "restore", "--name", b.name+"-x", "--ip", "10.77.0.9", c.Ref)
	b.mustCountPast(b.counted())
	b.do("stop", "--grace", "0s", b.name)
	b.mustFail(4, "checkpoint", b.name)
	// An image with a flipped bit is not restored, and the container that would
	// have come from it is not there.
	pages, err := filepath.Glob(filepath.Join(c.Dir, "criu", "pages-*.img"))
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	flip(t, pages[0])
	b.mustFail(6, "restore", "--name", b.name+"-y", c.Ref)
	b.mustFail(6, "restore", "--lazy", "--name", b.name+"-z", c.Ref)
	for _, name := range []string{"-x", "-y", "-z"} {
		if l := (&box{env: e, name: b.name + name}).list(); l.Status != "" {
			t.Errorf("left behind: %+v", l)
		}
	}
}

func flip(t testing.TB, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], 1234); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], 1234); err != nil {
		t.Fatal(err)
	}
}

func (b *box) mustFail(code int, args ...string) {
	b.t.Helper()
	_, err := b.command(nil, args...)
	var f *failure
	if !errors.As(err, &f) || f.Code != code {
		b.t.Errorf("crucible %s: %v, want exit status %d", strings.Join(args, " "), err, code)
	}
}
