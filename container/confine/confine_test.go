package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container/testenv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// instructions lays instructions out as a Filter keeps them.
func instructions(list ...unix.SockFilter) []byte {
	var b []byte
	for _, i := range list {
		b = append(b, byte(i.Code), byte(i.Code>>8), i.Jt, i.Jf, byte(i.K), byte(i.K>>8), byte(i.K>>16), byte(i.K>>24))
	}
	return b
}

func helpRlimits(input string) error {
	var limits []specs.POSIXRlimit
	if err := json.Unmarshal([]byte(input), &limits); err != nil {
		return err
	}
	if err := SetRlimits(limits); err != nil {
		return err
	}
	return Identity{}.Exec("/bin/cat", []string{"cat", "/proc/self/limits"}, nil)
}

func TestRlimits(t *testing.T) {
	testenv.Root(t)
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	tooHigh := "(the hard limit is " + limit(now.Max) + " now; raising it needs CAP_SYS_RESOURCE, which this process lacks)"
	if hasCapability(unix.CAP_SYS_RESOURCE) {
		tooHigh = "(no more than the sysctl fs.nr_open allows)"
	}
	for name, tc := range map[string]struct {
		limits []specs.POSIXRlimit
		want   string
		err    string
	}{
		"files":   {limits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}, want: "Max open files 100 200 files"},
		"two":     {limits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 0, Hard: 0}, {Type: "RLIMIT_CPU", Soft: 50, Hard: 60}}, want: "Max cpu time 50 60 seconds"},
		"unknown": {limits: []specs.POSIXRlimit{{Type: "RLIMIT_PONIES"}}, err: `unknown limit "RLIMIT_PONIES"`},
		"twice":   {limits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}, err: "RLIMIT_CORE is given twice"},
		"order":   {limits: []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: unix.RLIM_INFINITY, Hard: 5}}, err: "RLIMIT_AS: soft limit unlimited is above the hard limit 5"},
		"raise":   {limits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 1 << 40}}, err: "set RLIMIT_NOFILE to 1:1099511627776: operation not permitted " + tooHigh},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(help(t, "rlimits", tc.limits, 0))
			wantError(t, err, tc.err)
			if got := strings.Join(strings.Fields(out), " "); !strings.Contains(got, tc.want) {
				t.Errorf("no %q in\n%s", tc.want, out)
			}
		})
	}
}

func helpOOM(input string) error {
	var scores []int
	if err := json.Unmarshal([]byte(input), &scores); err != nil {
		return err
	}
	for _, score := range scores {
		if err := SetOOMScoreAdj(score); err != nil {
			return err
		}
	}
	return Identity{}.Exec("/bin/cat", []string{"cat", "/proc/self/oom_score_adj"}, nil)
}

func TestOOMScoreAdj(t *testing.T) {
	testenv.Root(t)
	// In a pid namespace the host's /proc has the wrong numbers; ours has not.
	out, err := run(help(t, "oom", []int{17, 900}, unix.CLONE_NEWPID))
	wantError(t, err, "")
	if out != "900\n" {
		t.Errorf("got %q, want 900", out)
	}
	_, err = run(help(t, "oom", []int{1001}, 0))
	wantError(t, err, "oom_score_adj 1001: not between -1000 and 1000")
	if !hasCapability(unix.CAP_SYS_RESOURCE) {
		_, err = run(help(t, "oom", []int{-999}, 0))
		wantError(t, err, "below the value it was started with needs CAP_SYS_RESOURCE")
	}
}

func TestCheckSysctls(t *testing.T) {
	all := Private{IPC: true, Network: true, User: true, UTS: true}
	for name, tc := range map[string]struct {
		private Private
		err     string
	}{
		"net.ipv4.ip_forward":                    {private: all},
		"net/ipv4/conf/eth0.1/forwarding":        {private: all},
		"net.ipv4.conf.eth0/1.forwarding":        {private: all},
		"fs.mqueue.msg_max":                      {private: all},
		"kernel.shmmax":                          {private: all},
		"kernel.sem":                             {private: all},
		"kernel.domainname":                      {private: all},
		"user.max_net_namespaces":                {private: all},
		"net.core.somaxconn":                     {private: Private{IPC: true}, err: "shares its network namespace"},
		"kernel.msgmax":                          {private: Private{Network: true}, err: "shares its ipc namespace"},
		"user.max_user_namespaces":               {private: Private{UTS: true}, err: "shares its user namespace"},
		"kernel.hostname":                        {private: Private{User: true}, err: "shares its uts namespace"},
		"kernel.core_pattern":                    {private: all, err: "belongs to the host"},
		"kernel":                                 {private: all, err: "not a sysctl's name"},
		"kernel.shmmax.x":                        {private: all, err: "belongs to the host"},
		"fs.mqueue":                              {private: all, err: "belongs to the host"},
		"vm.overcommit_memory":                   {private: all, err: "belongs to the host"},
		"net/../kernel/core_pattern":             {private: all, err: "not a sysctl's name"},
		"net.//.kernel.core_pattern":             {private: all, err: "not a sysctl's name"},
		"net..kernel.core_pattern":               {private: all, err: "not a sysctl's name"},
		"/proc/sys/kernel/core_pattern":          {private: all, err: "not a sysctl's name"},
		"net.ipv4.conf.////.kernel.core_pattern": {private: all, err: "belongs to the host"},
		"":                                       {private: all, err: "not a sysctl's name"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "net.ipv4.conf.////.kernel.core_pattern" {
				// "////" is an interface called "....", which is odd and harmless.
				tc.err = ""
			}
			wantError(t, checkSysctls(map[string]string{name: "1"}, tc.private), tc.err)
		})
	}
}

func FuzzSysctlParts(f *testing.F) {
	f.Add("net.ipv4.conf.eth0/1.forwarding")
	f.Add("net/../x")
	f.Fuzz(func(t *testing.T, name string) {
		parts, err := sysctlParts(name)
		if err != nil {
			return
		}
		if joined := strings.Join(parts, "/"); filepath.Clean("/"+joined) != "/"+joined {
			t.Errorf("%q is the path %q", name, joined)
		}
	})
}

// sysctls writes them where /proc/sys is a trap: something else is mounted
// over what should be written, as an image could arrange (CVE-2025-52881).
func helpSysctls(input string) error {
	var values map[string]string
	if err := json.Unmarshal([]byte(input), &values); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for trap, bait := range map[string]string{
		"/proc/sys/net/ipv4":      "/proc/sys/kernel",        // of the same procfs
		"/proc/sys/kernel/shmall": "/proc/sys/kernel/shmmax", // the same
		"/proc/sys/kernel/shmmax": "/dev/null",               // of another file system
	} {
		if err := unix.Mount(bait, trap, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("set trap %s: %w", trap, err)
		}
	}
	if err := WriteSysctls(values); err != nil {
		return err
	}
	if err := checkPlainProc(); err != nil {
		return err
	}
	for _, trap := range []string{"/proc/sys/net/ipv4", "/proc/sys/kernel/shmmax"} {
		if err := unix.Unmount(trap, 0); err != nil {
			return err
		}
	}
	return Identity{}.Exec("/bin/cat", []string{"cat", "/proc/sys/kernel/shmmax", "/proc/sys/net/ipv4/ip_forward",
		"/proc/sys/kernel/domainname"}, nil)
}

// checkPlainProc: the fallbacks see the traps, and refuse them.
func checkPlainProc() error {
	root, err := os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	plain := &Proc{root}
	defer plain.Close()
	for _, trap := range []string{"sys/kernel/shmmax", "sys/kernel/shmall", "sys/net/ipv4/shmmni"} {
		if f, err := plain.open(trap, unix.O_WRONLY); !errors.Is(err, unix.EXDEV) {
			f.Close()
			return fmt.Errorf("openat2: opened the trap %s: %w", trap, err)
		}
	}
	if fd, err := plain.openEach("sys/kernel/shmmax", unix.O_WRONLY); err != unix.EXDEV {
		unix.Close(fd)
		return fmt.Errorf("each: opened the trap: %w", err)
	}
	fd, err := plain.openEach("sys/kernel/sem", unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("each: %w", err)
	}
	return unix.Close(fd)
}

func TestWriteSysctls(t *testing.T) {
	testenv.Root(t)
	const private = unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWPID
	for name, namespaces := range map[string]uintptr{"plain": private, "user namespace": private | unix.CLONE_NEWUSER} {
		t.Run(name, func(t *testing.T) {
			out, err := run(help(t, "sysctls", map[string]string{
				"kernel.shmmax": "123456", "net.ipv4.ip_forward": "1", "kernel.domainname": "crucible.test"}, namespaces))
			wantError(t, err, "")
			if want := "123456\n1\ncrucible.test\n"; out != want {
				t.Errorf("got %q, want %q", out, want)
			}
			_, err = run(help(t, "sysctls", map[string]string{"net.ipv4.no_such": "1"}, namespaces))
			wantError(t, err, "sysctl net.ipv4.no_such: this kernel does not have it")
			_, err = run(help(t, "sysctls", map[string]string{"net.ipv4.ip_forward": "x"}, namespaces))
			wantError(t, err, `sysctl net.ipv4.ip_forward = "x": invalid argument`)
		})
	}
}

func helpClose(input string) error {
	var byHand bool
	if err := json.Unmarshal([]byte(input), &byHand); err != nil {
		return err
	}
	closeAll := CloseFDs
	if byHand {
		closeAll = closeEach
	}
	if err := closeAll(5); err != nil {
		return err
	}
	return Identity{}.Exec("/bin/ls", []string{"ls", "/proc/self/fd/"}, nil)
}

// CVE-2024-21626: descriptors that were opened outside reach the program.
func TestCloseFDs(t *testing.T) {
	testenv.Root(t)
	for name, byHand := range map[string]bool{"close_range": false, "each": true} {
		t.Run(name, func(t *testing.T) {
			cmd := help(t, "close", byHand, 0)
			root, err := os.Open("/")
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			for range 20 {
				cmd.ExtraFiles = append(cmd.ExtraFiles, root)
			}
			out, err := run(cmd)
			wantError(t, err, "")
			// 3 and 4 may stay; 5 is what ls itself opened.
			if got, want := strings.Fields(out), "0 1 2 3 4 5"; strings.Join(got, " ") != want {
				t.Errorf("open descriptors %v, want %s", got, want)
			}
		})
	}
}

func helpCwd(input string) error {
	var dir string
	if err := json.Unmarshal([]byte(input), &dir); err != nil {
		return err
	}
	if err := CheckCwd(); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	// Through a descriptor the working directory can be what no path reaches.
	leak, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(dir), unix.Fchdir(leak)); err != nil {
		return err
	}
	return CheckCwd()
}

func TestCheckCwd(t *testing.T) {
	testenv.Root(t)
	_, err := run(help(t, "cwd", t.TempDir(), 0))
	wantError(t, err, `working directory: "(unreachable)/`)
	cmd := help(t, "cwd", "/", 0)
	_, err = run(cmd)
	wantError(t, err, "")
	dir := t.TempDir() + "/gone"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd = help(t, "cwd", "/", 0)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "cd " + dir + "; rmdir " + dir + "; exec " + selfPath(t)}
	_, err = run(cmd)
	wantError(t, err, "before: working directory: no such file or directory (removed, or outside of the container's root)")
}

func selfPath(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}
