package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inFreezer starts a tree of n processes in a freezer cgroup.
func inFreezer(t *testing.T, n int) (*workload, *freezer, []uint64) {
	t.Helper()
	f := newFreezer(t) // first, to be removed last
	w := startWorkload(t, fmt.Sprint("beat:", n))
	f.hold(t, w)
	beats, err := openBeats(filepath.Join(w.Dir, "beats"))
	fatal(t, err)
	return w, f, beats
}

// freezing freezes the group at pre-dump, and then asks next.
func (f *freezer) freezing(next func(Event) error) func(Event) error {
	return func(e Event) error {
		if e.Script == PreDump {
			if err := f.freeze(); err != nil {
				return err
			}
		}
		if next != nil {
			return next(e)
		}
		return nil
	}
}

// What doc.go says of a dump that fails or leaves its tasks running: they
// live, and a group that was frozen before is frozen after.
func TestGroupAfterDump(t *testing.T) {
	c := theCRIU(t)
	w, f, beats := inFreezer(t, 3)
	no := errors.New("no")
	for _, x := range []struct {
		name   string
		refuse string
	}{{"left running", ""}, {"refused at query-ext-files", QueryExternalFiles}, {"refused at post-dump", PostDump}} {
		t.Run(x.name, func(t *testing.T) {
			images := openDir(t, t.TempDir())
			var seized bool
			refuse := func(e Event) error {
				if e.Script == PostDump {
					seized = !f.frozen() // CRIU has thawed the group, ptrace holds the tasks
				}
				if e.Script == x.refuse {
					return no
				}
				return nil
			}
			o := DumpOptions{Common: Common{Images: images}, Pid: w.pid, FreezeCgroup: f.dir, LeaveRunning: x.refuse == ""}
			_, err := start(t, c, StartOptions{}).Dump(t.Context(), o, f.freezing(refuse))
			if (x.refuse != "") != errors.Is(err, no) {
				t.Fatalf("%v\n%s", err, logOf(images))
			}
			if x.refuse != QueryExternalFiles && !seized {
				t.Error("the group was frozen at post-dump")
			}
			if !f.frozen() {
				t.Error("the group is not frozen again")
			}
			f.thaw()
			mustBeat(t, beats, 3)
		})
	}
}

func TestRefusedBeforeFreeze(t *testing.T) {
	c := theCRIU(t)
	w, f, beats := inFreezer(t, 2)
	no := errors.New("no")
	_, err := start(t, c, StartOptions{}).Dump(t.Context(), DumpOptions{Common: Common{Images: openDir(t, t.TempDir())},
		Pid: w.pid, FreezeCgroup: f.dir}, func(Event) error { return no })
	if !errors.Is(err, no) || f.frozen() {
		t.Errorf("%v, frozen %v", err, f.frozen())
	}
	mustBeat(t, beats, 2)
}

// A cancelled context never harms the tasks, whenever it comes.
func TestCancelDump(t *testing.T) {
	c := theCRIU(t)
	w, f, beats := inFreezer(t, 3)
	count := map[bool]int{}
	for range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(40*time.Millisecond))))
		p, err := c.Start(ctx, StartOptions{})
		if err == nil {
			o := DumpOptions{Common: Common{Images: openDir(t, t.TempDir())}, Pid: w.pid, FreezeCgroup: f.dir, LeaveRunning: true}
			_, err = p.Dump(ctx, o, f.freezing(nil))
			p.Close()
		}
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		count[err == nil]++
		f.thaw()
		mustBeat(t, beats, 3)
	}
	t.Logf("%d in spite of it, %d cancelled", count[true], count[false])
}

// A caller that dies leaves CRIU behind, which finds nobody to ask, gives up,
// and freezes the group again. The end of what it holds tells when.
func TestCallerGone(t *testing.T) {
	c := theCRIU(t)
	w, f, beats := inFreezer(t, 3)
	for i := range 6 {
		r, hold, err := os.Pipe()
		fatal(t, err)
		p := start(t, c, StartOptions{Hold: []*os.File{hold}})
		hold.Close()
		sock, err := unix.Dup(p.sock) // p.sock is closed when it is done
		fatal(t, err)
		defer unix.Close(sock)
		gone := func() { _ = unix.Shutdown(sock, unix.SHUT_RDWR) }
		leave := func(e Event) error {
			if e.Script == PreDump {
				poll := []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}
				if n, _ := unix.Poll(poll, 0); n != 0 {
					t.Error("CRIU does not hold what it was given")
				}
				if i == 0 {
					gone()
				} else {
					time.AfterFunc(time.Duration(rand.Int64N(int64(20*time.Millisecond))), gone)
				}
			}
			return nil
		}
		o := DumpOptions{Common: Common{Images: openDir(t, t.TempDir())}, Pid: w.pid, FreezeCgroup: f.dir, LeaveRunning: true}
		if _, err = p.Dump(t.Context(), o, f.freezing(leave)); err == nil && i == 0 {
			t.Error("no error")
		}
		if _, err := io.ReadAll(r); err != nil { // until CRIU's end
			t.Error(err)
		}
		r.Close()
		if !f.frozen() {
			t.Error("the group is not frozen: a guard must know")
		}
		f.thaw()
		mustBeat(t, beats, 3)
	}
}

// restoreFrom dumps a tree to death and says how to restore it.
func restoreFrom(t *testing.T, c *CRIU, name string) (RestoreOptions, *workload, []uint64) {
	t.Helper()
	w := startWorkload(t, name)
	beats, err := openBeats(filepath.Join(w.Dir, "beats"))
	fatal(t, err)
	images := openDir(t, t.TempDir())
	p := start(t, c, StartOptions{})
	if _, err := p.Dump(t.Context(), DumpOptions{Common: Common{Images: images}, Pid: w.pid}, nil); err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	p.Close()
	w.gone()
	return RestoreOptions{Common: Common{Images: images, logLevel: 4}, Sibling: true}, w, beats
}

// nothingLeft sees to it that no process of a restore lives. Its orphans come
// to us, the subreaper, and are waited for here; the root task must have been.
func nothingLeft(t *testing.T, root int) {
	t.Helper()
	if root > 0 && isChild(root) {
		t.Fatalf("nobody has waited for the root task %d", root)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		left := children(os.Getpid())
		for _, pid := range left {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", left[0]))
			t.Fatalf("left: %s", data)
		}
	}
}

func TestRefuseRestore(t *testing.T) {
	c := theCRIU(t)
	o, w, beats := restoreFrom(t, c, "beat:3")
	no := errors.New("no")
	for _, script := range []string{PreRestore, PostRestore} {
		_, err := start(t, c, StartOptions{}).Restore(t.Context(), o, func(e Event) error {
			if e.Script == script {
				return no
			}
			return nil
		})
		if !errors.Is(err, no) {
			t.Errorf("%s: %v", script, err)
		}
		nothingLeft(t, w.pid)
	}
	// What comes after is too late for a no.
	res, err := start(t, c, StartOptions{}).Restore(t.Context(), o, func(e Event) error {
		if e.Script == PreResume || e.Script == PostResume {
			return no
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustBeat(t, beats, 3)
	reapTree(res.Pid)
}

// killAlone kills CRIU and nothing else of its process group, as the kernel
// does when it is short of memory.
func killAlone(t *testing.T, p *Process) func() {
	t.Helper()
	fd, err := unix.PidfdOpen(p.Pid(), 0)
	fatal(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return func() { _ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) }
}

// leftMountPoints removes what killed CRIUs left in /tmp during a test.
func leftMountPoints(t *testing.T) {
	t.Helper()
	const pattern = "/tmp/.criu.mntns.*"
	before, _ := filepath.Glob(pattern)
	t.Cleanup(func() {
		after, _ := filepath.Glob(pattern)
		for _, dir := range after {
			if !slices.Contains(before, dir) && !mounted(dir) {
				_ = os.Remove(dir) // empty ones only
			}
		}
	})
}

// mounted says whether a directory is a mount point in any namespace: a CRIU
// that somebody else has started is using it.
func mounted(dir string) bool {
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	return slices.ContainsFunc(tables, func(table string) bool {
		data, _ := os.ReadFile(table)
		return strings.Contains(string(data), " "+dir+" ")
	})
}

// However and whenever a restore is stopped, nothing of it is left.
func TestStopRestore(t *testing.T) {
	c := theCRIU(t)
	leftMountPoints(t)
	plain, _, _ := restoreFrom(t, c, "beat:3")
	spaces := boxedFrom(t, c, "beat:3")
	for i := range 30 {
		how := []string{"cancelled", "killed by us", "killed by another"}[i%3]
		o, what := spaces, "namespaces"
		var options StartOptions
		if i%2 == 0 && i%3 != 2 { // see Restore for what is not promised without namespaces
			o, what = plain, "none"
		} else {
			options.NetNS = freshNetNS(t)
		}
		p := start(t, c, options)
		ctx, cancel := context.WithCancel(t.Context())
		stop := []func(){cancel, p.Kill, killAlone(t, p)}[i%3]
		after := rand.N(25 * time.Millisecond)
		timer := time.AfterFunc(after, stop)
		var root int
		res, err := p.Restore(ctx, o, func(e Event) error {
			root = max(root, e.Pid)
			return nil
		})
		timer.Stop()
		p.Close()
		cancel()
		if err == nil {
			reapTree(res.Pid)
		}
		t.Logf("%s, %s after %v: %v", what, how, after, err)
		nothingLeft(t, root)
	}
}

// CRIU dies when it has just made the root task, and told nobody its number.
func TestKilledUnnamed(t *testing.T) {
	c := theCRIU(t)
	leftMountPoints(t)
	o := boxedFrom(t, c, "beat:2")
	for range 5 {
		p := start(t, c, StartOptions{NetNS: freshNetNS(t)})
		kill := killAlone(t, p)
		res, err := p.Restore(t.Context(), o, func(e Event) error {
			if e.Script == PreRestore {
				go func() {
					for end := time.Now().Add(patience); len(children(os.Getpid())) < 2 && time.Now().Before(end); {
					}
					kill()
				}()
			}
			return nil
		})
		if err == nil {
			reapTree(res.Pid)
			t.Fatal("no error")
		}
		nothingLeft(t, 0)
	}
}

// boxedFrom dumps a boxed tree to death and says how to restore it.
func boxedFrom(t *testing.T, c *CRIU, name string) RestoreOptions {
	t.Helper()
	b := startBoxed(t, name)
	images := openDir(t, t.TempDir())
	p := start(t, c, StartOptions{NetNS: netns(t, b.pid)})
	if _, err := p.Dump(t.Context(), DumpOptions{Common: Common{Images: images}, Pid: b.pid}, nil); err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	p.Close()
	b.gone()
	return RestoreOptions{Common: Common{Images: images, logLevel: 4}, Sibling: true, Root: b.Root}
}

// CRIU 4.2.1 reads a page image that is too short for ever
// (criu/pie/restorer.c: preadv gives 0). The context's end helps.
func TestRestoreSpins(t *testing.T) {
	c := theCRIU(t)
	o, w, _ := restoreFrom(t, c, "beat:2")
	names, _ := filepath.Glob(filepath.Join(o.Images.Name(), "pages-*.img"))
	for _, name := range names {
		fatal(t, os.Truncate(name, 8192))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := start(t, c, StartOptions{}).Restore(ctx, o, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	nothingLeft(t, w.pid)
}
