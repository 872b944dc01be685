package restore_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint/criu"
)

// testLazyCheckpoint: an image that is made at once after a lazy restore has
// what was not loaded yet.
func testLazyCheckpoint(t *testing.T, e *env) {
	const bytes = 512 << 20
	b := e.run(nil, python(t), "-c", ask(t)+fmt.Sprintf(`
m = bytearray(b"x") * %d
answer({"count": lambda: [m.count(b"x")]})`, bytes))
	var whole []int
	b.ask("count", &whole)
	b.checkpoint()
	b.restore("--lazy")
	b.cycle()
	b.ask("count", &whole)
	if len(whole) != 1 || whole[0] != bytes {
		t.Errorf("%v bytes are as they were, of %d", whole, bytes)
	}
}

// testLoaderKilled: a container that has lost the loader of its memory does not
// go on with wrong memory.
func testLoaderKilled(t *testing.T, e *env) {
	b := e.run(nil, python(t), "-c", ask(t)+hoard)
	b.checkpoint()
	left := b.stopLoader()
	// Nor may its pages be removed.
	if _, err := b.command(nil, "image", "rm", b.name+"@1"); err == nil {
		t.Error("an image is removed that is being loaded")
	}
	for _, pid := range left {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	eventually(t, "the container ends", func() error {
		// By our SIGKILL, or by what it met in its memory before that.
		if l := b.list(); l.Status != "stopped" || l.ExitStatus == nil || *l.ExitStatus == 0 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
}

// testLoaderEnds: a container that has ended has no loader any more, and leaves
// its image to others.
func testLoaderEnds(t *testing.T, e *env) {
	b := e.run(nil, python(t), "-c", ask(t)+hoard)
	b.checkpoint()
	b.stopLoader()
	b.do("kill", b.name)
	b.do("wait", b.name)
	if left := b.loaders(); len(left) > 0 {
		t.Errorf("the loader is left: %v", left)
	}
	b.do("image", "rm", b.name+"@1")
}

// testLoaderOfKilled: a monitor that is killed in the middle of a lazy restore
// leaves a loader that nobody will ever ask for a page; the next command ends it.
func testLoaderOfKilled(t *testing.T, e *env) {
	b := e.run(nil, python(t), "-c", ask(t)+hoard)
	b.checkpoint()
	found, err := criu.Find("")
	if err != nil {
		t.Fatal(err)
	}
	// The CRIU that is to restore waits until the other one is written down, and
	// ends the monitor, its parent.
	state := filepath.Join(b.root, "containers", b.name, "state.json")
	deadly := filepath.Join(t.TempDir(), "criu")
	script := fmt.Sprintf(`#!/bin/sh
case "$*" in *swrk*)
	for i in $(seq 500); do grep -q '"loader": *{' %s && break; sleep 0.01; done
	kill -9 $PPID
	exit 1
esac
exec %s "$@"
`, state, found.Path)
	if err := os.WriteFile(deadly, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := b.command(nil, "restore", "--lazy", "--criu", deadly, b.name); err == nil {
		t.Fatal("restored without a monitor")
	}
	b.do("list")
	eventually(t, "the loader ends", func() error {
		if left := b.loaders(); len(left) > 0 {
			return fmt.Errorf("processes %v", left)
		}
		return nil
	})
}

// hoard is a program with memory that takes a while to load.
const hoard = `
m = bytearray(b"x") * (256 << 20)
answer({"hello": lambda: [os.getpid()]})`

func (b *box) loaders() (pids []int) {
	for _, pid := range processesWith(b.t, "lazy-pages", filepath.Join(b.root, "logs", b.name)) {
		n, _ := strconv.Atoi(pid)
		pids = append(pids, n)
	}
	return pids
}

// stopLoader restores the container and stops its loader before that is done.
func (b *box) stopLoader() []int {
	b.t.Helper()
	found, err := criu.Find("")
	if err != nil {
		b.t.Fatal(err)
	}
	// The busier the machine, the longer we look, and the slower it loads.
	slow := filepath.Join(b.t.TempDir(), "criu")
	script := "#!/bin/sh\ncase \"$*\" in *lazy-pages*) nice='nice -n 19';; esac\nexec $nice " + found.Path + ` "$@"` + "\n"
	if err := os.WriteFile(slow, []byte(script), 0o755); err != nil {
		b.t.Fatal(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); { // it may be done before we find it
		// It is looked for meanwhile: to look takes as long as it may have to do.
		restored, met := make(chan struct{}), make(chan []int, 1)
		go func() {
			var pids []int
			for over := false; len(pids) == 0 && !over; pids = b.loaders() {
				select {
				case <-restored:
					over = true
				default:
				}
			}
			met <- pids
		}()
		b.restore("--lazy", "--criu", slow)
		close(restored)
		for _, pid := range <-met {
			_ = unix.Kill(pid, unix.SIGSTOP)
		}
		if left := b.loaders(); len(left) > 0 {
			return left
		}
		b.do("stop", "--grace", "0s", b.name)
	}
	b.t.Fatal("the loader was never met")
	return nil
}

// testLazy: the container runs before its memory is there, all of it comes, and
// the container outlives the process that brought it.
func testLazy(t *testing.T, e *env) {
	const megabytes = 96
	b := e.run(nil, python(t), "-c", ask(t)+fmt.Sprintf(`
import hashlib, mmap
size = %d << 20
m = mmap.mmap(-1, size)
for at in range(0, size, 4096):
    m[at:at + 8] = at.to_bytes(8, "little")
def look():
    return [hashlib.sha256(m).hexdigest(), all(m[at:at + 8] == at.to_bytes(8, "little") for at in range(0, size, 4096))]
answer({"hello": lambda: [os.getpid()], "look": look})`, megabytes))
	var before, after []any
	b.ask("look", &before)
	b.checkpoint()
	b.restore("--lazy")
	b.ask("hello", &after) // before all of its memory is there
	b.ask("look", &after)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("memory: %v, before %v", after, before)
	}
	eventually(t, "the loader ends", func() error {
		if pids := processesWith(t, "lazy-pages", filepath.Join(b.root, "logs", b.name)); len(pids) > 0 {
			return fmt.Errorf("processes %v", pids)
		}
		return nil
	})
	b.ask("look", &after)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("memory after the loader's end: %v, before %v", after, before)
	}
	b.cycle()
	b.ask("look", &after)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("memory after another cycle: %v, before %v", after, before)
	}
}

// processesWith finds processes with a word in their command line that have a
// directory open below dir.
func processesWith(t testing.TB, word, dir string) (pids []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		data, err := os.ReadFile(line)
		if err != nil || !bytes.Contains(data, []byte(word)) {
			continue // it has ended, or is another
		}
		fds, _ := filepath.Glob(filepath.Dir(line) + "/fd/*")
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, dir) {
				pids = append(pids, filepath.Base(filepath.Dir(line)))
				break
			}
		}
	}
	return pids
}
