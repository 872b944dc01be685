package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"crucible/container/confine"

	"crucible/container/testenv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// With this set the test binary loads the filter and executes its arguments.
const filterEnv = "CRUCIBLE_SECCOMP_FILTER"

func TestMain(m *testing.M) {
	text := os.Getenv(filterEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	var filter confine.Filter
	err := json.Unmarshal([]byte(text), &filter)
	if err == nil && os.Args[1] == "x32" {
		err = callX32(&filter)
	} else if err == nil {
		id := confine.Identity{User: specs.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, NoNewPrivileges: true, Filter: &filter}
		if err = confine.SetNoNewPrivileges(); err == nil {
			err = id.Exec(os.Args[1], os.Args[1:], nil)
		}
	}
	fmt.Println(err)
	os.Exit(99)
}

// callX32 makes a system call of x32, here and now.
func callX32(filter *confine.Filter) error {
	if err := errors.Join(confine.SetNoNewPrivileges(), filter.Load()); err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall(unix.SYS_GETPID|x32Bit, 0, 0, 0)
	return errno
}

// under runs a program under a profile.
func under(t *testing.T, profile specs.LinuxSeccomp, args ...string) (output string, status syscall.WaitStatus) {
	t.Helper()
	filter, err := Compile(&profile)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(filter)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), filterEnv+"="+string(text))
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal("did not start")
	}
	return string(out), cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// Real processes, each of them stopped by the one thing its profile is about.
func TestProcesses(t *testing.T) {
	all := func(rules ...specs.LinuxSyscall) specs.LinuxSeccomp {
		return specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: rules}
	}
	mkdir := func(action specs.LinuxSeccompAction, errno *uint, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat", "no_such_call"}, Action: action, ErrnoRet: errno, Args: args}
	}
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		profile specs.LinuxSeccomp
		output  string
		exit    int
		signal  syscall.Signal
	}{
		"allowed":           {profile: all()},
		"logged":            {profile: specs.LinuxSeccomp{DefaultAction: specs.ActLog, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}}},
		"errno":             {profile: all(mkdir(specs.ActErrno, nil)), exit: 1, output: "Operation not permitted"},
		"errno with number": {profile: all(mkdir(specs.ActErrno, number(28))), exit: 1, output: "No space left on device"},
		"trace untraced":    {profile: all(mkdir(specs.ActTrace, nil)), exit: 1, output: "Function not implemented"},
		"kill":              {profile: all(mkdir(specs.ActKill, nil)), signal: syscall.SIGSYS},
		"kill thread":       {profile: all(mkdir(specs.ActKillThread, nil)), signal: syscall.SIGSYS},
		"kill process":      {profile: all(mkdir(specs.ActKillProcess, nil)), signal: syscall.SIGSYS},
		"trap":              {profile: all(mkdir(specs.ActTrap, nil)), signal: syscall.SIGSYS},
		// mkdir -m 700 passes 0700, mkdir passes 0777.
		"argument matches":     {profile: all(mkdir(specs.ActErrno, number(122), specs.LinuxSeccompArg{Index: 1, Op: specs.OpEqualTo, Value: 0o777})), exit: 1, output: "Disk quota exceeded"},
		"argument differs":     {profile: all(mkdir(specs.ActErrno, number(122), specs.LinuxSeccompArg{Index: 1, Op: specs.OpNotEqual, Value: 0o777}))},
		"argument under mask":  {profile: all(mkdir(specs.ActErrno, number(122), specs.LinuxSeccompArg{Index: 1, Op: specs.OpMaskedEqual, Value: 0o070, ValueTwo: 0o070})), exit: 1, output: "Disk quota exceeded"},
		"everything forbidden": {profile: specs.LinuxSeccomp{DefaultAction: specs.ActKillProcess}, signal: syscall.SIGSYS},
		"execve forbidden":     {profile: all(specs.LinuxSyscall{Names: []string{"execve"}, Action: specs.ActErrno, ErrnoRet: number(7)}), exit: 99, output: "argument list too long"},
	} {
		t.Run(name, func(t *testing.T) {
			out, status := under(t, tc.profile, "/bin/mkdir", filepath.Join(dir, name))
			if !strings.Contains(out, tc.output) || (tc.signal != 0) != status.Signaled() ||
				status.Signaled() && status.Signal() != tc.signal || status.Exited() && status.ExitStatus() != tc.exit {
				t.Errorf("status %#x, output %q", status, out)
			}
			_, err := os.Stat(filepath.Join(dir, name))
			if worked := err == nil; worked != (tc.exit == 0 && tc.signal == 0) {
				t.Errorf("directory: %v", err)
			}
		})
	}
}

// A shell under the profile that other engines give every container.
func TestDefaultProfileProcess(t *testing.T) {
	data, err := os.ReadFile("testdata/default.json")
	if err != nil {
		t.Fatal(err)
	}
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal(data, &profile); err != nil {
		t.Fatal(err)
	}
	const script = `set -e; ls -l /proc/self >/dev/null; echo a | cat; (sleep 0.01 & wait); date >/dev/null; echo fine; exec unshare -U true`
	out, status := under(t, profile, "/bin/sh", "-c", script)
	if !strings.Contains(out, "a\nfine\n") || !strings.Contains(out, "unshare failed: Operation not permitted") || status.ExitStatus() != 1 {
		t.Errorf("status %#x, output %q", status, out)
	}
}

// program32 is an executable for i386 that makes one system call and exits
// with the error number it got.
func program32(t *testing.T, number, argument uint32) string {
	t.Helper()
	le := binary.LittleEndian
	var code []byte
	code = le.AppendUint32(append(code, 0xbb), argument) // mov ebx, argument
	code = append(code, 0x31, 0xc9)                      // xor ecx, ecx
	code = le.AppendUint32(append(code, 0xb8), number)   // mov eax, number
	code = append(code, 0xcd, 0x80)                      // int 0x80
	code = append(code, 0xf7, 0xd8, 0x89, 0xc3)          // neg eax; mov ebx, eax
	code = le.AppendUint32(append(code, 0xb8), 1)        // mov eax, exit
	code = append(code, 0xcd, 0x80)                      // int 0x80
	const base, headers = 0x8048000, 52 + 32
	file := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	half := func(values ...uint16) {
		for _, v := range values {
			file = le.AppendUint16(file, v)
		}
	}
	word := func(values ...uint32) {
		for _, v := range values {
			file = le.AppendUint32(file, v)
		}
	}
	half(2, 3)                            // ET_EXEC, EM_386
	word(1, base+headers, 52, 0, 0)       // version, entry, program headers, sections, flags
	half(52, 32, 1, 0, 0, 0)              // sizes and counts
	size := uint32(headers + len(code))   //
	word(1, 0, base, base, size, size, 5) // PT_LOAD, readable and executable
	word(4096)
	name := filepath.Join(t.TempDir(), "program32")
	if err := os.WriteFile(name, append(file, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// 32-bit system calls on a 64-bit machine are another way to the same kernel.
func TestOtherArchitectures(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		testenv.Lacks(t, "the instructions of amd64", func() (bool, error) { return runtime.GOARCH == "amd64", nil })
	}
	const getpid, socketcall, socket = 20, 102, 1
	if err := exec.Command(program32(t, getpid, 0)).Run(); errors.Is(err, unix.ENOEXEC) {
		testenv.Lacks(t, "32-bit programs", testenv.KernelOption("CONFIG_IA32_EMULATION"))
	}
	rules := []specs.LinuxSyscall{
		{Names: []string{"getpid"}, Action: specs.ActErrno, ErrnoRet: number(7)},
		{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: number(8)},
	}
	native := specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: rules}
	both := native
	both.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	for name, tc := range map[string]struct {
		profile specs.LinuxSeccomp
		args    []string
		exit    int
		output  string
	}{
		"i386 not named":  {profile: native, args: []string{program32(t, getpid, 0)}, exit: -1},
		"i386 named":      {profile: both, args: []string{program32(t, getpid, 0)}, exit: 7},
		"i386 socketcall": {profile: both, args: []string{program32(t, socketcall, socket)}, exit: 8},
		"i386 other":      {profile: both, args: []string{program32(t, socketcall, 99)}, exit: int(unix.EINVAL)},
		"x32 not named":   {profile: native, args: []string{"x32"}, exit: -1},
		"x32 named":       {profile: both, args: []string{"x32"}, exit: 99, output: "argument list too long"},
	} {
		t.Run(name, func(t *testing.T) {
			out, status := under(t, tc.profile, tc.args...)
			if status.ExitStatus() != tc.exit || !strings.Contains(out, tc.output) {
				t.Errorf("status %#x, output %q", status, out)
			}
			if tc.exit < 0 && status.Signal() != syscall.SIGSYS {
				t.Errorf("ended by %v, want SIGSYS", status.Signal())
			}
		})
	}
}
