package criu

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const boxFlags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET

// boxed is a workload in namespaces of its own, on a root file system of its
// own: a directory that holds this binary, /proc and /dev/null.
type boxed struct {
	*workload
	Root string
}

func startBoxed(t testing.TB, inner string) *boxed {
	t.Helper()
	root := newRoot(t)
	w := startWorkload(t, "box:"+inner, func(cmd *exec.Cmd) {
		cmd.Path = filepath.Join(root, "w")
		cmd.Dir = root
		cmd.SysProcAttr.Cloneflags = boxFlags
	})
	w.root = root
	return &boxed{workload: w, Root: root}
}

// newRoot makes a root file system, which is a mount point as CRIU wants it.
func newRoot(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"proc", "dev", "dev/pts", "tmp", "work"} {
		fatal(t, os.Mkdir(filepath.Join(root, dir), 0o755))
	}
	self, err := os.Executable()
	fatal(t, err)
	fatal(t, os.Link(self, filepath.Join(root, "w")))
	for _, library := range libraries(t, self) {
		fatal(t, os.MkdirAll(filepath.Join(root, filepath.Dir(library)), 0o755))
		data, err := os.ReadFile(library)
		fatal(t, err)
		fatal(t, os.WriteFile(filepath.Join(root, library), data, 0o755))
	}
	fatal(t, unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	fatal(t, unix.Mknod(filepath.Join(root, "dev/ptmx"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))))
	fatal(t, unix.Mount(root, root, "", unix.MS_BIND, ""))
	fatal(t, unix.Mount("", root, "", unix.MS_PRIVATE, ""))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	return root
}

// libraries lists what this binary needs beside itself, if it was built with
// cgo: its interpreter, and what that has mapped.
func libraries(t testing.TB, self string) []string {
	t.Helper()
	program, err := elf.Open(self)
	fatal(t, err)
	defer program.Close()
	section := program.Section(".interp")
	if section == nil {
		return nil
	}
	interp, err := section.Data()
	fatal(t, err)
	list := []string{strings.TrimRight(string(interp), "\x00")}
	maps, err := os.ReadFile("/proc/self/maps")
	fatal(t, err)
	for _, line := range strings.Split(string(maps), "\n") {
		if at := strings.Index(line, "/"); at > 0 && strings.Contains(line[at:], ".so") && !slices.Contains(list, line[at:]) {
			list = append(list, line[at:])
		}
	}
	return list
}

// boxWork moves into the root file system it was started in, and executes
// what it was given.
func boxWork(inner string) (func(), error) {
	for i, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount("proc", "proc", "proc", 0, "") },
		func() error { return unix.Mount("devpts", "dev/pts", "devpts", 0, "newinstance,ptmxmode=0666") },
		func() error { return unix.PivotRoot(".", ".") },
		func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		func() error { return unix.Chdir("/work") },
		reopen,
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("step %d: %w", i, err)
		}
	}
	if _, err := unix.FcntlInt(3, unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, err
	}
	if program, ok := strings.CutPrefix(inner, "exec:"); ok {
		return nil, syscall.Exec(program, []string{program}, nil) // which closes descriptor 3
	}
	if _, err := unix.FcntlInt(3, unix.F_SETFD, 0); err != nil {
		return nil, err
	}
	env := []string{workEnv + "=" + inner, "GOMAXPROCS=2"}
	return nil, syscall.Exec("/w", []string{"/w"}, env)
}

// netns opens the network namespace of a process.
func netns(t testing.TB, pid int) *os.File {
	t.Helper()
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	fatal(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// freshNetNS makes one.
func freshNetNS(t testing.TB) *os.File {
	t.Helper()
	got := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			got <- nil
			return
		}
		f, _ := os.Open("/proc/thread-self/ns/net")
		got <- f
	}()
	f := <-got
	if f == nil {
		t.Fatal("no network namespace")
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// inode tells namespaces apart.
func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	fatal(t, unix.Stat(path, &st))
	return st.Ino
}

func TestBoxed(t *testing.T) {
	c := theCRIU(t)
	f := newFreezer(t)
	b := startBoxed(t, "beat:2")
	f.hold(t, b.workload)
	images := openDir(t, t.TempDir())
	var events []string
	freeze := func(e Event) error {
		events = append(events, e.Script)
		if e.Script == PreDump {
			return f.freeze()
		}
		return nil
	}
	before := inode(t, "/proc/thread-self/ns/net")
	p := start(t, c, StartOptions{NetNS: netns(t, b.pid)})
	if inode(t, "/proc/"+strconv.Itoa(p.Pid())+"/ns/net") != inode(t, "/proc/"+strconv.Itoa(b.pid)+"/ns/net") {
		t.Error("CRIU is not in the network namespace")
	}
	if inode(t, "/proc/thread-self/ns/net") != before {
		t.Error("the calling thread did not go back")
	}
	_, err := p.Dump(t.Context(), DumpOptions{Common: Common{Images: images, logLevel: 4}, Pid: b.pid, FreezeCgroup: f.dir}, freeze)
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	p.Close()
	b.gone()
	t.Log(events)

	fresh := freshNetNS(t)
	root := newRoot(t)
	beats, err := openBeats(filepath.Join(root, "work/beats"))
	fatal(t, err)
	events = nil
	var pid int
	note := func(e Event) error {
		events = append(events, e.Script)
		if e.Script == SetupNamespaces {
			pid = e.Pid
			return f.add(e.Pid)
		}
		return nil
	}
	p = start(t, c, StartOptions{NetNS: fresh})
	res, err := p.Restore(t.Context(), RestoreOptions{Common: Common{Images: images, logLevel: 4}, Sibling: true, Root: root}, note)
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	defer reapTree(res.Pid)
	t.Log(events)
	if pid != res.Pid {
		t.Errorf("setup-namespaces told of pid %d, the answer of %d", pid, res.Pid)
	}
	mustBeat(t, beats, 2)
	if len(tree(res.Pid)) != 2 {
		t.Error("not all restored")
	}
}

// terminalWork lives on a terminal: descriptor 10 is its master until it
// reads "close" there; to "ping" it answers "pong".
func terminalWork(string) (func(), error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	slave, err := unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Dup2(master, 10); err != nil {
		return nil, err
	}
	unix.Close(master)
	return func() {
		buf := make([]byte, 100)
		for {
			n, _ := unix.Read(slave, buf)
			switch string(buf[:max(n, 0)]) {
			case "close\n":
				unix.Close(10)
				_, _ = unix.Write(slave, []byte("closed"))
			case "ping\n":
				_, _ = unix.Write(slave, []byte("pong"))
			}
		}
	}, nil
}

// converse writes to a terminal's master and reads until there is an answer.
func converse(t *testing.T, master *os.File, say, want string) {
	t.Helper()
	_, err := master.WriteString(say)
	fatal(t, err)
	var got string
	for !strings.Contains(got, want) {
		buf := make([]byte, 100)
		poll := []unix.PollFd{{Fd: int32(master.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 2000); n == 0 {
			t.Fatalf("no answer to %q, but %q (%v)", say, got, err)
		}
		n, err := unix.Read(int(master.Fd()), buf)
		fatal(t, err)
		got += string(buf[:n])
	}
}

// A terminal whose master is outside of the container: the restored one is
// handed over.
func TestOrphanTerminal(t *testing.T) {
	c := theCRIU(t)
	b := startBoxed(t, "terminal")
	pidfd, err := unix.PidfdOpen(b.pid, 0)
	fatal(t, err)
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 10, 0)
	fatal(t, err)
	master := os.NewFile(uintptr(fd), "master")
	defer master.Close()
	converse(t, master, "close\n", "closed")

	images := openDir(t, t.TempDir())
	p := start(t, c, StartOptions{NetNS: netns(t, b.pid)})
	common := Common{Images: images, logLevel: 4, OrphanPTSMaster: true}
	if _, err := p.Dump(t.Context(), DumpOptions{Common: common, Pid: b.pid}, nil); err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	p.Close()
	b.gone()

	var events []string
	var restored *os.File
	p = start(t, c, StartOptions{NetNS: freshNetNS(t)})
	res, err := p.Restore(t.Context(), RestoreOptions{Common: common, Root: b.Root, Sibling: true}, func(e Event) error {
		events = append(events, e.Script)
		if e.Script == OrphanPTSMaster {
			restored, e.Files[0] = e.Files[0], nil
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, logOf(images))
	}
	defer reapTree(res.Pid)
	t.Log(events)
	if restored == nil {
		t.Fatal("no master came")
	}
	defer restored.Close()
	converse(t, restored, "ping\n", "pong")
}

// CRIU is forked from the calling thread, and so has its namespaces.
func TestCallersThread(t *testing.T) {
	c := theCRIU(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
				return err
			}
			p, err := c.Start(t.Context(), StartOptions{})
			if err != nil {
				return err
			}
			defer p.Close()
			for _, kind := range []string{"mnt", "net"} {
				if inode(t, "/proc/thread-self/ns/"+kind) != inode(t, fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), kind)) {
					return fmt.Errorf("CRIU is in another %s namespace than the calling thread", kind)
				}
			}
			_, err = p.Version(t.Context())
			return err
		}()
	}()
	fatal(t, <-done)
}
