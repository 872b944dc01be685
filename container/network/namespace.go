package network

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// NewNamespace makes a fresh network namespace whose loopback is up, and
// returns a descriptor that keeps it alive.
//
// It costs what the kernel's pernet operations cost (0.6 to 1.3 ms), so it is worth
// starting early. The thread on which it is made is thrown away: setting a
// thread back can fail, and a thread in the wrong namespace is the kind of
// mistake that is found months later.
func NewNamespace() (*os.File, error) {
	var ns *os.File
	err := onThread(func() (keep bool, err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return false, fmt.Errorf("unshare network namespace: %w", err)
		}
		if ns, err = openOwn(); err != nil {
			return false, err
		}
		if err := setUpFresh(); err != nil {
			ns.Close()
			return false, err
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// setUpFresh brings lo up in the calling thread's namespace, and settles two
// things that would otherwise depend on the host.
//
// addr_gen_mode: else each veth end would get an fe80 address, probe for
// duplicates for a second and solicit routers: frames that nobody asked for,
// and an address that is "tentative" just when a restored socket wants it. IPv6
// itself stays usable: lo has ::1 and a container may add addresses.
//
// ip_forward: a fresh namespace copies the first one's value
// (net.core.devconf_inherit_init_net), and we change that value ourselves.
func setUpFresh() error {
	for _, name := range []string{"ipv6/conf/default/addr_gen_mode=1", "ipv4/ip_forward=0"} {
		file, value, _ := strings.Cut(name, "=")
		if err := os.WriteFile(sysctlDir+"/"+file, []byte(value), 0); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("set up fresh namespace: %w", err)
		}
	}
	s, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer s.Close()
	// lo is the first link of every namespace: net/core/dev.c makes it with
	// LOOPBACK_IFINDEX (1) and BUG()s otherwise.
	if err := s.do(setLinkUp(1)); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// Enter moves the calling thread into the namespace. The caller has locked the
// thread and means to stay there.
func Enter(ns *os.File) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// Do runs f on a thread that is in the namespace; a thread that cannot be set
// back afterwards is discarded. A nil ns is where the caller is.
//
// f must not start goroutines that need the namespace. What it opens there (a
// socket) belongs to the namespace for good and may be used anywhere.
func Do(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	return onThread(func() (bool, error) {
		own, err := openOwn()
		if err != nil {
			return true, err
		}
		defer own.Close()
		if err := Enter(ns); err != nil {
			return true, err
		}
		err = f()
		return Enter(own) == nil, err
	})
}

// onThread runs f on a locked thread of its own goroutine. When f does not keep
// the thread, the goroutine ends while locked, and the runtime ends the thread.
//
// A goroutine of its own, because the caller may itself be locked to a thread
// for another reason. The runtime never clones a new thread from a locked one
// (proc.go, newm: it uses a template thread), so every unlocked thread is in the
// namespace in which the process was started.
//
// Never the main thread: the runtime cannot end that one, it parks it for good
// (proc.go, mexit), and the thread would keep the namespace alive with it.
func onThread(f func() (keep bool, err error)) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(f) // on another thread, as this one is locked
			runtime.UnlockOSThread()
			return
		}
		keep, err := f()
		if keep {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// openOwn opens the calling thread's namespace. /proc/self would be the main
// thread's, which the monitor moves.
func openOwn() (*os.File, error) {
	f, err := os.OpenFile("/proc/thread-self/ns/net", os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	return f, nil
}

// inode tells namespaces apart: two descriptors of one namespace share it.
func inode(ns *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat network namespace: %w", err)
	}
	return st.Ino, nil
}
