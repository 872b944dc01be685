package fork

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crucible/container/testenv"

	"golang.org/x/sys/unix"
)

func TestInto(t *testing.T) {
	testenv.Root(t)
	all := []string{"user", "mnt", "pid", "uts", "ipc", "net", "cgroup", "time"}
	for name, tc := range map[string]struct {
		flags, enter uintptr
		pid          int
		not          []string // namespaces that are not entered
	}{
		"all but user and time": {flags: everything, pid: 2},
		"all":                   {flags: everything | unix.CLONE_NEWUSER | unix.CLONE_NEWTIME, pid: 2},
		"user alone":            {flags: unix.CLONE_NEWUSER},
		"time alone":            {flags: unix.CLONE_NEWTIME},
		"none":                  {},
		"only some":             {flags: everything, enter: unix.CLONE_NEWUTS | unix.CLONE_NEWIPC, not: []string{"mnt", "pid", "net", "cgroup"}},
	} {
		t.Run(name, func(t *testing.T) {
			// Ours are this thread's: the first one may be in another test's.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			target := target(t, tc.flags)
			placed := 0
			p, err := start(t, Options{Target: target, Namespaces: tc.enter, Exe: self(t), Args: []string{"a", "b c"},
				Env:   []string{helperEnv + "=report", "X=y"},
				Place: func(pid int) error { placed = pid; return nil }})
			if err != nil {
				t.Fatal(err)
			}
			got := p.report(t)
			for _, ns := range all {
				want := target
				if slices.Contains(tc.not, ns) {
					want = unix.Gettid()
				}
				if a, b := namespace(t, p.pid, ns), namespace(t, want, ns); a != b {
					t.Errorf("is in %s, want %s", a, b)
				}
			}
			if want := tc.pid; want != 0 && got.Pid != want && got.Pid < 2 || want == 0 && got.Pid != p.pid {
				t.Errorf("pid %d inside, %d outside", got.Pid, p.pid)
			}
			if placed != p.pid {
				t.Errorf("pid %d was placed, %d returned", placed, p.pid)
			}
			if got.UID != 0 || got.GID != 0 || tc.flags&unix.CLONE_NEWUSER != 0 && (len(got.Groups) != 0 || got.Effective != "000001ffffffffff") {
				t.Errorf("not root of its user namespace: %+v", got)
			}
			if !slices.Equal(got.Args, []string{"a", "b c"}) || !slices.Equal(got.Env, []string{helperEnv + "=report", "X=y"}) {
				t.Errorf("arguments %q, environment %q", got.Args, got.Env)
			}
			if got.Blocked != "0" || !slices.Equal(got.Descriptors, []int{0, 1, 2}) {
				t.Errorf("blocked signals %s, descriptors %v", got.Blocked, got.Descriptors)
			}
			if state := p.end(t); state.ExitCode() != 42 {
				t.Errorf("ended with %v, want 42", state)
			}
		})
	}
}

// Neither the child nor what it executes has more than it was to keep.
func TestCapabilities(t *testing.T) {
	testenv.Root(t)
	const keep = 1<<unix.CAP_SETPCAP | 1<<unix.CAP_CHOWN | 1<<unix.CAP_BPF
	for name, flags := range map[string]uintptr{"host's": everything, "user namespace": everything | unix.CLONE_NEWUSER} {
		t.Run(name, func(t *testing.T) {
			p, err := start(t, Options{Target: target(t, flags), Capabilities: keep, Exe: self(t), Args: []string{"a"},
				Env: []string{helperEnv + "=report"}, Place: func(pid int) error {
					checkCapabilities(t, pid, "before the execve", keep)
					return nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			p.report(t)
			checkCapabilities(t, p.pid, "after it", keep)
			p.end(t)
		})
	}
}

func checkCapabilities(t *testing.T, pid int, when string, want uint64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if line := fmt.Sprintf("%s:\t%016x\n", set, want); !strings.Contains(string(status), line) {
			t.Errorf("%s: no %q in\n%s", when, line, status)
		}
	}
}

// A network namespace that belongs to the host, around a user namespace: the
// shape of every container here.
func TestForeignNetwork(t *testing.T) {
	testenv.Root(t)
	outer := target(t, unix.CLONE_NEWNET)
	errs := make(chan error)
	pids := make(chan int)
	go func() {
		runtime.LockOSThread() // ends with the goroutine, being in a namespace
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", outer))
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err != nil {
			errs <- err
			return
		}
		pids <- target(t, everything&^unix.CLONE_NEWNET|unix.CLONE_NEWUSER)
	}()
	select {
	case err := <-errs:
		t.Fatal(err)
	case pid := <-pids:
		p, err := start(t, Options{Target: pid, Exe: self(t), Args: []string{"a"}, Env: []string{helperEnv + "=report"}})
		if err != nil {
			t.Fatal(err)
		}
		if p.report(t); namespace(t, p.pid, "net") != namespace(t, outer, "net") {
			t.Error("not in the network namespace")
		}
		p.end(t)
	}
}

func TestErrors(t *testing.T) {
	testenv.Root(t)
	flags := uintptr(everything | unix.CLONE_NEWUSER)
	text := t.TempDir() + "/text"
	if err := os.WriteFile(text, []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	textFile, err := os.Open(text)
	if err != nil {
		t.Fatal(err)
	}
	defer textFile.Close()
	refused := errors.New("no room in the cgroup")
	for name, tc := range map[string]struct {
		o    Options
		is   error
		step string
	}{
		"no process":      {o: Options{Target: 1 << 30}, is: unix.ESRCH},
		"no program":      {o: Options{Target: target(t, flags), Exe: textFile}, is: unix.ENOEXEC, step: "execute the program"},
		"no such flags":   {o: Options{Target: target(t, flags), Namespaces: 1}, is: unix.EINVAL, step: "setns"},
		"same user":       {o: Options{Target: target(t, everything), Namespaces: unix.CLONE_NEWUSER}, is: unix.EINVAL, step: "setns"},
		"not placed":      {o: Options{Target: target(t, flags), Place: func(int) error { return refused }}, is: refused},
		"dead namespace":  {o: Options{Target: dead(t)}, is: unix.ESRCH},
		"nul in argument": {o: Options{Target: target(t, flags), Args: []string{"a\x00"}}, is: unix.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.o.Exe == nil {
				tc.o.Exe = self(t)
			}
			if tc.o.Args == nil {
				tc.o.Args = []string{"a"}
			}
			before := children(t)
			p, err := start(t, tc.o)
			if err == nil {
				p.end(t)
			}
			var e *Error
			if !errors.Is(err, tc.is) || (tc.step != "") != errors.As(err, &e) || tc.step != "" && e.Step != tc.step {
				t.Errorf("error %v, want %v in step %q", err, tc.is, tc.step)
			}
			sameChildren(t, before)
		})
	}
}

// dead is a process that is gone.
func dead(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// children are all that we have to wait for, zombies among them.
func children(t testing.TB) []string {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		testenv.Skip(t, "a kernel without CONFIG_PROC_CHILDREN")
	}
	var pids []string
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(data))...)
	}
	slices.Sort(pids)
	return pids
}

// sameChildren complains about a process that was started and not waited for.
func sameChildren(t testing.TB, before []string) {
	t.Helper()
	if after := children(t); !slices.Equal(before, after) {
		t.Errorf("children %v before, %v after", before, after)
	}
}

// Born in its cgroup, it need not be moved there, which takes the kernel long.
func TestCgroup(t *testing.T) {
	testenv.Root(t)
	top := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			top = dir
		}
	}
	if top == "" {
		testenv.Skip(t, "no cgroup v2 is mounted")
	}
	dir := filepath.Join(top, testenv.Name(t))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	p, err := start(t, Options{Target: target(t, everything|unix.CLONE_NEWUSER), Exe: self(t), Args: []string{"a"},
		Env: []string{helperEnv + "=report"}, Cgroup: group})
	if err != nil {
		t.Fatal(err)
	}
	defer p.end(t)
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid))
	if err != nil || !strings.Contains(string(data), "0::/"+filepath.Base(dir)+"\n") {
		t.Errorf("%v: it is in\n%s", err, data)
	}
}

func TestCancelled(t *testing.T) {
	testenv.Root(t)
	pid := target(t, everything)
	before := children(t)
	ctx, cancel := context.WithCancel(t.Context())
	child := 0
	_, err := Into(ctx, Options{Target: pid, Exe: self(t), Args: []string{"a"}, Place: func(pid int) error {
		child = pid
		// Stopped, it will not execute anything.
		cancel()
		return unix.Kill(pid, unix.SIGSTOP)
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := unix.Kill(child, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the child is still there: %v", err)
	}
	sameChildren(t, before)
}

// CVE-2016-9962: whoever is root inside takes what the entering process holds
// of the host. Before the execve it holds nothing but what the program gets,
// and its memory is out of reach: the files of an undumpable process in /proc
// belong to the host's root (proc(5)).
func TestNothingToTake(t *testing.T) {
	testenv.Root(t)
	leak, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	var st unix.Stat_t
	var links []string
	p, err := start(t, Options{Target: target(t, everything|unix.CLONE_NEWUSER), Exe: self(t), Args: []string{"a"}, Env: []string{helperEnv + "=report"},
		Place: func(pid int) error {
			proc := fmt.Sprintf("/proc/%d/", pid)
			if err := unix.Stat(proc+"fd", &st); err != nil {
				return err
			}
			fds, err := os.ReadDir(proc + "fd")
			for _, fd := range fds {
				link, _ := os.Readlink(proc + "fd/" + fd.Name())
				links = append(links, strings.Split(link, ":")[0])
			}
			return err
		}})
	if err != nil {
		t.Fatal(err)
	}
	p.end(t)
	if st.Uid != 0 {
		t.Errorf("/proc/PID/fd belongs to %d", st.Uid)
	}
	links[2] = "stderr" // ours, whatever it is
	exe, _ := os.Executable()
	if want := []string{"pipe", "pipe", "stderr", exe, "anon_inode", "socket"}; !slices.Equal(links, want) {
		t.Errorf("descriptors %q, want %q", links, want)
	}
}

// The program gets the soft limit of open files that we were started with,
// and we keep the one that Go raised.
func TestFileLimit(t *testing.T) {
	testenv.Root(t)
	if os.Getenv("CRUCIBLE_FORK_LIMIT") == "" {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "ulimit -S -n 345; exec /proc/"+fmt.Sprint(os.Getpid())+"/exe -test.run TestFileLimit -test.v")
		cmd.Env = append(os.Environ(), "CRUCIBLE_FORK_LIMIT=345")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	var before, after unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &before)
	cat, err := os.Open("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	p, err := start(t, Options{Target: target(t, unix.CLONE_NEWUTS), Exe: cat, Args: []string{"cat", "/proc/self/limits"}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(p.out)
	if err != nil {
		t.Fatal(err)
	}
	p.end(t)
	if f := strings.Fields(string(out)[strings.Index(string(out), "Max open files"):]); f[3] != "345" {
		t.Errorf("soft limit %s, want 345", f[3])
	}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &after)
	if before != after || before.Cur == 345 {
		t.Errorf("our own limit was %v, is %v", before, after)
	}
}

// A thousand times, from several goroutines, while others allocate, start
// processes and receive signals.
func TestMany(t *testing.T) {
	testenv.Root(t)
	total := 1000
	if testing.Short() {
		total = 100
	}
	pid := target(t, everything|unix.CLONE_NEWUSER|unix.CLONE_NEWTIME)
	before := children(t)
	ctx, cancel := context.WithCancel(t.Context())
	var noise, work sync.WaitGroup
	for range 20 {
		noise.Go(func() {
			var keep [][]byte
			for ctx.Err() == nil {
				if keep = append(keep, make([]byte, 10000)); len(keep) > 100 {
					keep = nil
				}
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	noise.Go(func() {
		for ctx.Err() == nil {
			runtime.GC()
			time.Sleep(time.Millisecond)
			_ = unix.Kill(os.Getpid(), unix.SIGURG)
		}
	})
	noise.Go(func() {
		for ctx.Err() == nil {
			_ = exec.Command("/bin/true").Run()
			time.Sleep(time.Millisecond)
		}
	})
	program, err := os.Open("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	const workers = 4
	for range workers {
		work.Go(func() {
			for range total / workers {
				child, err := Into(ctx, Options{Target: pid, Exe: program, Args: []string{"true"}})
				if err != nil {
					t.Error(err)
					return
				}
				var status unix.WaitStatus
				if _, err := unix.Wait4(child, &status, 0, nil); err != nil || status != 0 {
					t.Errorf("child: %v, status %#x", err, status)
					return
				}
			}
		})
	}
	work.Wait()
	cancel()
	noise.Wait()
	sameChildren(t, before)
}

func BenchmarkInto(b *testing.B) {
	testenv.Root(b)
	pid := target(b, everything|unix.CLONE_NEWUSER|unix.CLONE_NEWTIME)
	program, err := os.Open("/bin/true")
	if err != nil {
		b.Fatal(err)
	}
	defer program.Close()
	for b.Loop() {
		child, err := Into(b.Context(), Options{Target: pid, Exe: program, Args: []string{"true"}})
		if err != nil {
			b.Fatal(err)
		}
		_, _ = unix.Wait4(child, nil, 0, nil)
	}
}

func BenchmarkExec(b *testing.B) {
	for b.Loop() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	}
}
