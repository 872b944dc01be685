package container

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/confine"
	"crucible/container/mount"
)

// step is one thing that the container's init does. Show is what a person
// would type to do the same, and what an error is blamed on.
type step struct {
	Show  string
	apply func(*inside) error
}

// insidePlan is all that happens between the birth of the container's init and
// its program, in order. For a program that exec starts (no root) the
// namespaces and mounts are there already.
//
//	private copy of the monitor's mounts
//	└─ ROOT (overlay, made outside)      -> pivot_root -> /
//	   ├─ dev, dev/shm, tmp, run, sys .. (made outside)
//	   └─ proc, dev/pts, dev/mqueue      (made here: they show our namespaces)
func insidePlan(c *initConfig) []step {
	var plan []step
	add := func(show string, apply func(*inside) error) { plan = append(plan, step{show, apply}) }
	if c.Root != "" {
		planRoot(c, add)
	} else {
		// We have more rights than the container until the program starts:
		// nobody in it may look into us (CVE-2016-9962).
		add("prctl(PR_SET_DUMPABLE, 0)", func(*inside) error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) })
	}
	p := c.Process
	if p.Terminal {
		add("open a terminal in /dev/pts", (*inside).openTerminal)
		if s := p.ConsoleSize; s != nil {
			add(fmt.Sprintf("stty rows %d cols %d", s.Height, s.Width), func(*inside) error {
				return unix.IoctlSetWinsize(0, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(s.Height), Col: uint16(s.Width)})
			})
		}
	} else if c.Root != "" {
		add("open the FIFOs in "+mount.StdioDir+" as standard streams", (*inside).openStdio)
	} else {
		add("setsid", func(*inside) error { _, err := unix.Setsid(); return ignore(err, unix.EPERM) })
	}
	if c.Wait {
		add("wait for start", (*inside).waitForGo)
	}
	if c.Namespaces.Cgroup && c.Root != "" {
		add("unshare --cgroup", func(*inside) error { return unix.Unshare(unix.CLONE_NEWCGROUP) })
	}
	if c.Namespaces.Time && c.Root != "" {
		add("unshare --time", (*inside).unshareTime)
	}
	if p.OOMScoreAdj != nil {
		add(fmt.Sprintf("echo %d > /proc/self/oom_score_adj", *p.OOMScoreAdj), func(*inside) error { return confine.SetOOMScoreAdj(*p.OOMScoreAdj) })
	}
	for _, r := range p.Rlimits {
		add(fmt.Sprintf("prlimit %s=%d:%d", r.Type, r.Soft, r.Hard), func(*inside) error { return confine.SetRlimits([]specs.POSIXRlimit{r}) })
	}
	if p.Cwd != "" {
		add("cd "+p.Cwd, func(*inside) error { return changeDir(p.Cwd) })
	}
	if c.Tasks {
		add("echo $$ > TASKS of its pids cgroup", (*inside).enterTasks)
	}
	add("close every other descriptor", func(*inside) error { return confine.CloseFDs(3) })
	what := "set user, groups and capabilities"
	if p.NoNewPrivileges {
		what += ", no_new_privs"
	}
	add(what, func(in *inside) error { return in.identity().Become() })
	if c.Seccomp != nil {
		add("install the seccomp filter with the exec", func(*inside) error { return nil })
	}
	add("exec "+strings.Join(p.Args, " "), (*inside).exec)
	return plan
}

// planRoot are the steps that make the container's view of the file system.
func planRoot(c *initConfig, add func(string, func(*inside) error)) {
	if c.Hostname != "" {
		add("hostname "+c.Hostname, func(*inside) error { return unix.Sethostname([]byte(c.Hostname)) })
	}
	if c.Domainname != "" {
		add("domainname "+c.Domainname, func(*inside) error { return unix.Setdomainname([]byte(c.Domainname)) })
	}
	if !c.Namespaces.User {
		if c.Namespaces.Net {
			add("enter the network namespace", (*inside).enterNetwork)
		}
		add("unshare --mount", func(*inside) error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS) })
	}
	add("mount --make-rprivate /", func(*inside) error {
		return unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
	})
	if c.Namespaces.User {
		// What a less privileged mount namespace inherits is locked, and
		// pivot_root(2) refuses a locked root: a fresh bind of it is not.
		add("mount --rbind ROOT ROOT", func(*inside) error {
			return unix.Mount(c.Root, c.Root, "", unix.MS_BIND|unix.MS_REC, "")
		})
	}
	add("open ROOT", (*inside).openRoot)
	for _, m := range c.Mounts {
		add(m.String(), func(in *inside) error { return m.Apply(in.root) })
	}
	if len(c.Sysctls) > 0 {
		add(sysctlCommand(c.Sysctls), func(*inside) error { return confine.WriteSysctls(c.Sysctls) })
	}
	for _, p := range c.ReadOnly {
		add("mount -o bind,ro ROOT"+p, func(in *inside) error { return confine.ReadonlyPath(in.root, p) })
	}
	for _, p := range c.Masked {
		add("mask ROOT"+p, func(in *inside) error { return in.mask(p) })
	}
	add("pivot_root ROOT", (*inside).pivot)
}

func sysctlCommand(set map[string]string) string {
	words := []string{"sysctl -w"}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		words = append(words, key+"="+set[key])
	}
	return strings.Join(words, " ")
}

// enterNetwork enters the namespace that came with the config; in a user
// namespace the init is born in it.
func (in *inside) enterNetwork() error {
	if in.net == nil {
		return errors.New("the monitor sent no network namespace")
	}
	defer in.net.Close()
	return unix.Setns(int(in.net.Fd()), unix.CLONE_NEWNET)
}

func (in *inside) openRoot() (err error) {
	in.root, err = os.OpenFile(in.config.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

func (in *inside) mask(path string) error {
	empty, err := os.OpenFile(in.config.Empty, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer empty.Close()
	return confine.MaskPath(in.root, path, empty)
}

// pivot makes ROOT the only thing that can be seen. The old root is stacked
// under the new one for a moment, so no directory is needed to keep it in.
func (in *inside) pivot() error {
	if err := unix.Fchdir(int(in.root.Fd())); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}

func changeDir(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	// A working directory outside of the root would be a way out (CVE-2024-21626).
	return confine.CheckCwd()
}

// openStdio opens the FIFOs that the monitor listens at. Standard input is
// /dev/null unless somebody may write to it: the FIFO's mode says so.
func (in *inside) openStdio() error {
	if _, err := unix.Setsid(); err != nil {
		return err
	}
	for fd, name := range []string{"stdin", "stdout", "stderr"} {
		path, flags := mount.StdioDir+"/"+name, unix.O_WRONLY
		if fd == 0 {
			flags = unix.O_RDONLY
			if !in.config.Input {
				path = "/dev/null"
			}
		}
		f, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		if err := unix.Dup3(f, fd, 0); err != nil && !(errors.Is(err, unix.EINVAL) && f == fd) {
			return err
		}
	}
	return nil
}

// openTerminal opens a terminal of the container's own devpts, makes it the
// controlling one, and hands its master to the monitor.
func (in *inside) openTerminal() error {
	master, err := openMaster()
	if err != nil {
		return err
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock terminal: %w", err)
	}
	// By descriptor and not by name: the name could be somebody else's (ioctl_tty(2), TIOCGPTPEER).
	slave, err := ptyPeer(master)
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	if _, err := unix.Setsid(); err != nil && in.config.Root != "" {
		return err
	}
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("make terminal controlling: %w", err)
	}
	if err := unix.Fchown(slave, int(in.config.Process.User.UID), -1); err != nil {
		return fmt.Errorf("own terminal: %w", err)
	}
	if err := unix.Sendmsg(in.socket, []byte{sayTerminal}, unix.UnixRights(master), nil, 0); err != nil {
		return fmt.Errorf("hand terminal over: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil && fd != slave {
			return err
		}
	}
	return nil
}

// openMaster makes a terminal of the devpts at /dev/pts. An image, or a program
// in the container, may have put anything there (CVE-2025-52565): what counts
// is what was opened.
func openMaster() (int, error) {
	pts, err := unix.Open("/dev/pts", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/pts", Err: err}
	}
	defer unix.Close(pts)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(pts, &fs); err != nil {
		return -1, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return -1, errors.New("/dev/pts is not a devpts file system; mount one there")
	}
	master, err := unix.Openat(pts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/pts/ptmx", Err: err}
	}
	if err := isMaster(master, pts); err != nil {
		unix.Close(master)
		return -1, err
	}
	return master, nil
}

// isMaster says whether a file is the ptmx of a devpts, and not something that
// is mounted over it.
func isMaster(master, pts int) error {
	var st, fs unix.Stat_t
	if err := errors.Join(unix.Fstat(master, &st), unix.Fstat(pts, &fs)); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	rdev := uint64(st.Rdev) // uint32 on some architectures
	// Documentation/admin-guide/devices.txt: 5 char, 2 = /dev/ptmx
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(rdev) != 5 || unix.Minor(rdev) != 2 || st.Dev != fs.Dev {
		return errors.New("/dev/pts/ptmx is not the terminal multiplexer of the devpts there")
	}
	return nil
}

// ptyPeer is TIOCGPTPEER, whose argument is the open flags.
func ptyPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// unshareTime makes the time namespace that the program enters by execve(2)
// (see host.EntersTime): clone cannot do it with offsets.
func (in *inside) unshareTime() error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return err
	}
	if in.config.TimeOffsets == "" {
		return nil
	}
	// The file stands for the process's first thread only.
	if unix.Gettid() != unix.Getpid() {
		return errors.New("the init does not run on its first thread")
	}
	fd, err := unix.Open("/proc/self/timens_offsets", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(in.config.TimeOffsets))
	return err
}

func ignore(err error, harmless unix.Errno) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}
