package criu

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

// workEnv makes this test binary run a workload instead of the tests.
const workEnv = "CRUCIBLE_CRIU_WORKLOAD"

func TestMain(m *testing.M) {
	if name := os.Getenv(workEnv); name != "" {
		if mode, ok := strings.CutPrefix(name, "fake:"); ok {
			os.Exit(runFake(mode))
		}
		os.Exit(runWorkload(name))
	}
	// A killed tree's orphans are ours to wait for: as long as one of them is
	// a zombie, their session's number cannot be used by a restore.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	// What we inherited ourselves is not for the workloads.
	_ = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	os.Exit(m.Run())
}

// patience is how long anything may take that has no event to wait for.
const patience = 30 * time.Second

// theCRIU finds a CRIU that works here, or skips.
func theCRIU(t testing.TB) *CRIU {
	t.Helper()
	testenv.Root(t)
	c, err := Find("")
	if err != nil {
		testenv.Skip(t, "%v", err)
	}
	testenv.LeakCheck(t)
	checked.Do(func() { checkErr = c.Check(context.Background()) })
	if checkErr != nil {
		testenv.Skip(t, "%v", checkErr)
	}
	return c
}

var (
	checked  sync.Once
	checkErr error
)

// workload is a process tree to be dumped: this binary, re-executed, in a
// session of its own and with nothing open from outside.
type workload struct {
	t    testing.TB
	cmd  *exec.Cmd
	pid  int
	Dir  string // its current directory
	root string // of a boxed one
	tree []int  // all its processes
	once sync.Once
}

// startWorkload starts one and waits until it is ready, which it says by
// closing its descriptor 3.
func startWorkload(t testing.TB, name string, change ...func(*exec.Cmd)) *workload {
	t.Helper()
	dir := t.TempDir()
	ready, theirs, err := os.Pipe()
	fatal(t, err)
	defer ready.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	fatal(t, err)
	defer null.Close()
	cmd := exec.Command("/proc/self/exe")
	self, err := os.Executable()
	fatal(t, err)
	cmd.Path = self
	cmd.Dir = dir
	cmd.Env = []string{workEnv + "=" + name, "GOMAXPROCS=2"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, c := range change {
		c(cmd)
	}
	fatal(t, cmd.Start())
	theirs.Close()
	w := &workload{t: t, cmd: cmd, pid: cmd.Process.Pid, Dir: dir}
	t.Cleanup(w.kill)
	text, err := io.ReadAll(ready)
	fatal(t, err)
	if len(text) > 0 {
		w.kill()
		testenv.Skip(t, "workload %s: %s", name, text)
	}
	w.tree = tree(w.pid)
	return w
}

// tree lists a process and all below it.
func tree(pid int) []int {
	list := []int{pid}
	for _, child := range children(pid) {
		list = append(list, tree(child)...)
	}
	return list
}

func reap(pids []int) {
	for _, pid := range pids {
		_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
	}
}

// kill ends the whole session.
func (w *workload) kill() {
	w.once.Do(func() {
		pids := append(tree(w.pid), w.tree...)
		killTree(w.pid)
		for _, pid := range w.tree { // whose parent died before: it came to us
			if isChild(pid) {
				killTree(pid)
			}
		}
		_ = w.cmd.Wait()
		reap(pids)
	})
}

// gone says that a dump has killed it, and reaps it.
func (w *workload) gone() {
	w.once.Do(func() {
		_ = w.cmd.Wait()
		reap(w.tree[1:])
	})
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openDir makes a directory for images.
func openDir(t testing.TB, path string) *os.File {
	t.Helper()
	fatal(t, os.MkdirAll(path, 0o700))
	f, err := os.Open(path)
	fatal(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func start(t testing.TB, c *CRIU, o StartOptions) *Process {
	t.Helper()
	p, err := c.Start(context.Background(), o)
	fatal(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

// log reads CRIU's log, for a test that failed.
func logOf(dir *os.File) string {
	data, _ := os.ReadFile(filepath.Join(dir.Name(), "criu.log"))
	if len(data) > 2<<10 {
		data = data[len(data)-2<<10:]
	}
	return string(data)
}

// freezer is a cgroup to freeze in, of whichever kind the host has.
type freezer struct {
	dir string
	v2  bool
}

func newFreezer(t testing.TB) *freezer {
	t.Helper()
	for _, base := range []struct {
		dir, file string
		v2        bool
	}{
		{"/sys/fs/cgroup/freezer", "freezer.state", false},
		{"/sys/fs/cgroup", "cgroup.freeze", true},
	} {
		dir := filepath.Join(base.dir, testenv.Name(t))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, base.file)); err != nil {
			os.Remove(dir)
			continue
		}
		f := &freezer{dir: dir, v2: base.v2}
		t.Cleanup(f.remove)
		return f
	}
	testenv.Skip(t, "no freezer cgroup")
	return nil
}

func (f *freezer) write(file, value string) error {
	return os.WriteFile(filepath.Join(f.dir, file), []byte(value), 0)
}

// hold puts a tree into the group, to be thawed before it is killed.
func (f *freezer) hold(t testing.TB, w *workload) {
	t.Helper()
	for _, pid := range w.tree {
		fatal(t, f.add(pid))
	}
	t.Cleanup(f.thaw)
}

func (f *freezer) add(pid int) error { return f.write("cgroup.procs", strconv.Itoa(pid)) }

func (f *freezer) freeze() error {
	if f.v2 {
		if err := f.write("cgroup.freeze", "1"); err != nil {
			return err
		}
	} else if err := f.write("freezer.state", "FROZEN"); err != nil {
		return err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if f.frozen() {
			return nil
		}
	}
	return errors.New("does not freeze")
}

func (f *freezer) thaw() {
	if f.v2 {
		_ = f.write("cgroup.freeze", "0")
	} else {
		_ = f.write("freezer.state", "THAWED")
	}
}

func (f *freezer) frozen() bool {
	if f.v2 {
		data, _ := os.ReadFile(filepath.Join(f.dir, "cgroup.events"))
		return strings.Contains(string(data), "frozen 1")
	}
	data, _ := os.ReadFile(filepath.Join(f.dir, "freezer.state"))
	return strings.TrimSpace(string(data)) == "FROZEN"
}

// remove kills what is left in the group, which only this test put there.
func (f *freezer) remove() {
	f.thaw()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		data, _ := os.ReadFile(filepath.Join(f.dir, "cgroup.procs"))
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if err := os.Remove(f.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
}

// load reads a counter that another process writes.
func load(counters []uint64, i int) uint64 { return atomic.LoadUint64(&counters[i]) }

// reapTree ends a restored tree, whose root is our child.
func reapTree(pid int) {
	pids := tree(pid)
	killTree(pid)
	reap(pids)
}
