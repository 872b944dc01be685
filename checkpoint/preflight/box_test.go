package preflight

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
	"crucible/container/testenv"
)

// A box is a container in miniature: this test binary in namespaces and on a
// root file system of its own, made the way that the real ones are, and
// holding one thing that is to be found.
//
//	test ── start ──> boxStage1: mounts the root, pivots, executes /box
//	                    └─ boxStage2: takes the thing, says so, waits
const (
	stageEnv = "CRUCIBLE_PREFLIGHT_STAGE"
	thingEnv = "CRUCIBLE_PREFLIGHT_THING"
	rootEnv  = "CRUCIBLE_PREFLIGHT_ROOT"
	layerEnv = "CRUCIBLE_PREFLIGHT_OVERLAY" // more mount options
	readyFD  = 3
	hostFD   = 4 // what was opened outside, for those who want it
)

func TestMain(m *testing.M) {
	switch os.Getenv(stageEnv) {
	case "1":
		boxMain(stage1)
	case "2":
		boxMain(stage2)
	case "child":
		boxMain(stageChild)
	default:
		os.Exit(m.Run())
	}
}

func boxMain(stage func() error) {
	if err := stage(); err != nil {
		fmt.Fprintf(os.NewFile(readyFD, "ready"), "ERROR %v", err)
		os.Exit(1)
	}
	for {
		_ = unix.Pause()
	}
}

// external are the mounts that the box gets from outside.
func external() []string { return []string{"/dev", "/dev/shm", "/tmp", "/run"} }

func stage1() error {
	if err := unix.CloseRange(hostFD+1, 1<<30, unix.CLOSE_RANGE_CLOEXEC); err != nil { // what the test itself was given
		return err
	}
	root := os.Getenv(rootEnv)
	steps := []struct{ source, target, kind, data string }{
		{"overlay", root, "overlay", "lowerdir=/,upperdir=" + root + "/../upper,workdir=" + root + "/../work" + os.Getenv(layerEnv)},
		{"tmpfs", root + "/dev", "tmpfs", "mode=755"},
		{"tmpfs", root + "/dev/shm", "tmpfs", ""}, {"tmpfs", root + "/tmp", "tmpfs", ""}, {"tmpfs", root + "/run", "tmpfs", ""},
		{"proc", root + "/proc", "proc", ""},
		{"devpts", root + "/dev/pts", "devpts", "newinstance,ptmxmode=0666"},
		{"mqueue", root + "/dev/mqueue", "mqueue", ""},
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, s := range steps {
		if err := os.MkdirAll(s.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(s.source, s.target, s.kind, 0, s.data); err != nil {
			return fmt.Errorf("mount %s: %w", s.target, err)
		}
	}
	for name, rdev := range map[string]uint64{"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "full": unix.Mkdev(1, 7), "fuse": unix.Mkdev(10, 229), "tun": unix.Mkdev(10, 200)} {
		if err := unix.Mknod(root+"/dev/"+name, unix.S_IFCHR|0o666, int(rdev)); err != nil {
			return err
		}
	}
	if err := os.Symlink("pts/ptmx", root+"/dev/ptmx"); err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(root+"/run/box", self, 0o755); err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup2(null, fd); err != nil {
			return err
		}
	}
	_ = unix.Close(null)
	keep := append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, stageEnv) }), stageEnv+"=2")
	return unix.Exec("/run/box", []string{"box"}, keep)
}

// held is what a thing says of itself.
type held struct {
	FD    int
	Path  string
	Child int // the process that it is about, as the box numbers them; 0 is the first
}

// stage2 takes the thing.
func stage2() error {
	unix.CloseOnExec(readyFD)
	unix.CloseOnExec(hostFD)
	name, arg, _ := strings.Cut(os.Getenv(thingEnv), ":")
	h, err := things()[name].take(arg)
	if err != nil {
		return err
	}
	if name != "host file" {
		_ = unix.Close(hostFD)
	}
	ready := os.NewFile(readyFD, "ready")
	if err := json.NewEncoder(ready).Encode(h); err != nil {
		return err
	}
	return ready.Close()
}

// stageChild is a process below the thing's. Its descriptor 3 is a pipe to say
// that it is ready.
func stageChild() error {
	name, arg, _ := strings.Cut(os.Getenv(thingEnv), ":")
	if err := children()[name](arg); err != nil {
		return err
	}
	return unix.Close(readyFD)
}

// spawn starts a child of the box and waits until it is ready.
func spawn(name string, change ...func(*exec.Cmd)) (int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/run/box")
	cmd.Env = []string{stageEnv + "=child", thingEnv + "=" + name, "GOMAXPROCS=1"}
	cmd.ExtraFiles = []*os.File{w}
	for _, c := range change {
		c(cmd)
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	w.Close()
	defer r.Close()
	text, err := io.ReadAll(r)
	if err == nil && len(text) > 0 {
		err = fmt.Errorf("child: %s", text)
	}
	return cmd.Process.Pid, err
}

// box is one that runs.
type box struct {
	t    testing.TB
	pid  int
	held held
	net  *os.File
}

// startBox makes a box that holds a thing.
func startBox(t testing.TB, thing string, change ...func(*exec.Cmd)) *box {
	t.Helper()
	testenv.Root(t)
	dir, err := os.MkdirTemp("/dev/shm", "crucible-preflight-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"upper", "work", "root"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	outside, err := os.Open("/etc/passwd")
	must(t, err)
	defer outside.Close()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = []string{stageEnv + "=1", thingEnv + "=" + thing, rootEnv + "=" + dir + "/root", "GOMAXPROCS=1", "PATH=" + os.Getenv("PATH")}
	cmd.ExtraFiles = []*os.File{w, outside}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	for _, c := range change {
		c(cmd)
	}
	must(t, cmd.Start())
	w.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	b := &box{t: t, pid: cmd.Process.Pid}
	text, err := io.ReadAll(r)
	must(t, err)
	if rest, failed := strings.CutPrefix(string(text), "ERROR "); failed {
		noSuchThing(t, thing, rest)
	}
	must(t, json.Unmarshal(text, &b.held))
	if wait := things()[thing].wait; wait != nil {
		pid := b.hostPid(b.held.Child)
		eventually(t, thing, func() bool {
			s, err := proc.Root.Status(pid)
			return err == nil && wait(s)
		})
	}
	b.net, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", b.pid))
	must(t, err)
	t.Cleanup(func() { b.net.Close() })
	return b
}

// noSuchThing skips what a kernel was built without: there is nothing to find.
// Any other trouble is one of the test.
func noSuchThing(t testing.TB, thing, why string) {
	t.Helper()
	if option := options()[thing]; option != "" {
		t.Logf("cannot hold %s: %s", thing, why)
		testenv.Lacks(t, thing, testenv.KernelOption(option))
	}
	testenv.Skip(t, "cannot hold %s: %s", thing, why)
}

// options are those that a kernel can hold a thing by, and may well be without.
func options() map[string]string {
	return map[string]string{
		"io_uring": "CONFIG_IO_URING", "mapped io_uring": "CONFIG_IO_URING", "userfaultfd": "CONFIG_USERFAULTFD",
		"landlock": "CONFIG_SECURITY_LANDLOCK", "perf": "CONFIG_PERF_EVENTS", "bpf program": "CONFIG_BPF_SYSCALL",
		"seccomp listener": "CONFIG_SECCOMP_FILTER", "secret memory": "CONFIG_SECRETMEM", "mapped secret memory": "CONFIG_SECRETMEM",
		"fuse device": "CONFIG_FUSE_FS", "tun device": "CONFIG_TUN", "overlay": "CONFIG_OVERLAY_FS",
		"mptcp": "CONFIG_MPTCP", "vsock": "CONFIG_VSOCKETS", "xdp": "CONFIG_XDP_SOCKETS", "signed connection": "CONFIG_TCP_MD5SIG",
		"nested time namespace": "CONFIG_TIME_NS", "nested user namespace": "CONFIG_USER_NS",
	}
}

// pids are all processes in the box's pid namespace.
func (b *box) pids() []int {
	tree, err := proc.Root.Tree(b.pid)
	must(b.t, err)
	var all []int
	for _, p := range tree.All() {
		all = append(all, p.PID)
	}
	return all
}

func (b *box) subject() Subject {
	return Subject{Init: b.pid, Pids: b.pids(), NetNS: b.net, External: external()}
}

func (b *box) inspect(given Options) Report {
	b.t.Helper()
	s := b.subject()
	s.Given = given
	r, err := Inspect(b.t.Context(), s)
	must(b.t, err)
	return r
}

// hostPid translates a number of the box's pid namespace.
func (b *box) hostPid(inside int) int {
	for _, pid := range b.pids() {
		s, err := proc.Root.Status(pid)
		if err == nil && len(s.NSPID) > 1 && s.NSPID[1] == inside {
			return pid
		}
	}
	b.t.Fatalf("the box has no process %d", inside)
	return 0
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what has no event to wait for.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s does not happen", what)
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
