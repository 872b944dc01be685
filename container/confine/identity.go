package confine

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Identity is who a program runs as and what it may ask of the kernel.
type Identity struct {
	User            specs.User
	Capabilities    *specs.LinuxCapabilities // nil: none
	NoNewPrivileges bool
	Filter          *Filter // nil: every system call
}

// Become takes the identity on, for the calling thread. After it the thread
// can still load the filter, and nothing is left to do but Exec. A change of
// user makes the process undumpable until the execve: /proc/self then belongs
// to root, so open before what is needed from there.
func (id Identity) Become() error {
	want, err := parseCapabilities(id.Capabilities)
	if err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	have, err := currentCapabilities()
	if err != nil {
		return err
	}
	if err := want.availableIn(have); err != nil {
		return err
	}
	if err := dropBounding(have.bounding, want.bounding); err != nil {
		return err
	}
	if err := setUser(id.User); err != nil {
		return err
	}
	if err := id.beforeFilter(want, have).set(); err != nil {
		return err
	}
	if err := want.setAmbient(); err != nil {
		return err
	}
	if id.NoNewPrivileges {
		return SetNoNewPrivileges()
	}
	return nil
}

// Needs are the capabilities, a bit each, that Become and Exec need: those of
// the program, and what the way there takes.
func (id Identity) Needs() (uint64, error) {
	want, err := parseCapabilities(id.Capabilities)
	if err != nil {
		return 0, fmt.Errorf("capabilities: %w", err)
	}
	needs := want.bounding | want.permitted | want.inheritable |
		1<<unix.CAP_SETPCAP | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	if id.Filter != nil && !id.NoNewPrivileges {
		needs |= 1 << unix.CAP_SYS_ADMIN
	}
	return uint64(needs), nil
}

// SetNoNewPrivileges keeps every later execve of this thread from giving more
// privileges than it has: no set-user-ID bit, no file capabilities.
func SetNoNewPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// beforeFilter adds the CAP_SYS_ADMIN that seccomp(2) asks for where there is
// no no_new_privs. It does not outlive the execve, being neither inheritable
// nor ambient, and for root not in the bounding set unless it was asked for
// (capabilities(7), "Transformation of capabilities during execve()"). Other
// runtimes load the filter before they change user and capabilities, and then
// every profile has to allow the calls for that; here it needs execve only.
func (id Identity) beforeFilter(want, have capabilities) capabilities {
	if id.Filter != nil && !id.NoNewPrivileges {
		want.permitted |= have.permitted & (1 << unix.CAP_SYS_ADMIN)
		want.effective |= have.permitted & (1 << unix.CAP_SYS_ADMIN)
	}
	return want
}

// setUser changes groups, then group, then user of the calling thread, and
// keeps the permitted capabilities. (The functions of package syscall change
// every thread, which costs a stop of the world and gains nothing: the other
// threads end with the execve.)
func setUser(user specs.User) error {
	if user.Umask != nil {
		if *user.Umask > 0o777 {
			return fmt.Errorf("set umask %#o: more than 0777", *user.Umask)
		}
		unix.Umask(int(*user.Umask))
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := setGroups(user.AdditionalGids); err != nil {
		return err
	}
	gid, uid := uintptr(user.GID), uintptr(user.UID)
	if _, _, errno := unix.RawSyscall(sysSetresgid, gid, gid, gid); errno != 0 {
		return fmt.Errorf("set group id %d: %w", user.GID, idError(errno))
	}
	if _, _, errno := unix.RawSyscall(sysSetresuid, uid, uid, uid); errno != 0 {
		return fmt.Errorf("set user id %d: %w", user.UID, idError(errno))
	}
	return nil
}

func setGroups(groups []uint32) error {
	list := make([]int, len(groups))
	for i, g := range groups {
		list[i] = int(g)
	}
	err := unix.Setgroups(list)
	// A user namespace may deny setgroups (user_namespaces(7)): harmless as
	// long as there is nothing to add or to drop.
	if err == unix.EPERM && len(list) == 0 {
		if have, e := unix.Getgroups(); e == nil && len(have) == 0 {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("set additional groups %v: %w", groups, idError(err))
	}
	return nil
}

// idError explains the one refusal that surprises.
func idError(err error) error {
	if err == unix.EINVAL {
		return fmt.Errorf("%w (the container's user namespace does not map this id)", err)
	}
	return err
}

// Exec loads the filter and executes the program; it returns only if that
// failed. Between filter and execve there is no other system call. After a failure the filter, if it got that far, is in force: the caller may
// find that even its error message cannot be written.
func (id Identity) Exec(path string, args, env []string) error {
	pathPtr, err := unix.BytePtrFromString(path)
	if err != nil {
		return fmt.Errorf("execute %q: %w", path, err)
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return fmt.Errorf("execute %q: argument: %w", path, err)
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return fmt.Errorf("execute %q: environment: %w", path, err)
	}
	restoreFileLimit()
	if id.Filter != nil {
		if err := id.Filter.Load(); err != nil {
			return err
		}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(pathPtr)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])))
	runtime.KeepAlive(pathPtr)
	runtime.KeepAlive(argv)
	runtime.KeepAlive(envv)
	return fmt.Errorf("execute %q: %w", path, errno)
}

// restoreFileLimit undoes what Go does at every start: it raises the soft
// RLIMIT_NOFILE to the hard one, and only syscall.Exec and os/exec give the
// inherited value back. So a syscall.Exec that must fail is used for it. A
// limit that SetRlimits has set stays: Go forgets the inherited value then.
func restoreFileLimit() {
	_ = syscall.Exec("", nil, nil)
}
