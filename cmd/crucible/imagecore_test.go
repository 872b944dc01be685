package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"crucible/container"
	"crucible/container/testenv"
)

// gdb sees in a core file where each thread of the process was, as the kernel
// says it of the process itself.
func TestImageCore(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		testenv.Skip(t, "compares the registers of x86-64")
	}
	for _, tool := range []string{"gcc", "gdb"} {
		if _, err := exec.LookPath(tool); err != nil {
			testenv.Skip(t, "no %s: scripts/setup --tests", tool)
		}
	}
	s := newStage(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if out, err := exec.Command("gcc", "-g", "-O1", "-pthread", "-o", program, "testdata/core.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	s.do("run", "-d", "--name", s.name, "-v", dir+":"+dir, "--", program)
	s.until("the program is ready", func() bool { return strings.Contains(s.do("logs", s.name), "ready") })
	box, err := container.Root(s.root).Open(s.name)
	if err != nil {
		t.Fatal(err)
	}
	var threads []position
	s.until("both threads wait", func() bool { threads = waiting(t, box.State.Init.Pid); return len(threads) == 2 })
	s.do("checkpoint", s.name)
	core := filepath.Join(dir, "core")
	s.do("image", "core", "--pid", "1", "-o", core, s.name)

	script := []string{"-batch", "-nx", "-ex", "print *record", "-ex", "thread apply all -s info registers rip rsp"}
	out, err := exec.Command("gdb", append(script, "-ex", "thread apply all bt", program, core)...).CombinedOutput()
	if err != nil {
		t.Fatalf("gdb: %v: %s", err, out)
	}
	said := string(out)
	for _, want := range []string{
		`= \{number = 4711, ratio = 0\.25, name = "in the heap(\\000)+"\}`,
		`(?s)#\d+ .* waits \(depth=.*who=.*"second"\) at .*core\.c:\d+\n(#\d+ .* waits .*"second".*\n){3}#\d+ .* second \(who=`,
		`(?s)#\d+ .* waits \(depth=.*who=.*"main"\) at .*core\.c:\d+\n(#\d+ .* waits .*"main".*\n){2}#\d+ .* main \(\)`,
	} {
		if !regexp.MustCompile(want).MatchString(said) {
			t.Errorf("gdb does not say %s", want)
		}
	}
	for _, at := range threads {
		// The call is made again: see package core.
		if !regexp.MustCompile(fmt.Sprintf(`rip +%#x `, at.pc-2)).MatchString(said) || !regexp.MustCompile(fmt.Sprintf(`rsp +%#x `, at.sp)).MatchString(said) {
			t.Errorf("no thread is at %#x with its stack at %#x", at.pc-2, at.sp)
		}
	}
	if t.Failed() {
		t.Logf("gdb said:\n%s", said)
	}
}

type position struct{ pc, sp uint64 }

// waiting says where the threads of a process are that are in pause(2), system
// call 34: the last two fields of /proc/PID/task/TID/syscall are stack pointer
// and program counter.
func waiting(t *testing.T, pid int) (all []position) {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(text))
		if len(fields) != 9 || fields[0] != "34" {
			continue
		}
		sp, err1 := strconv.ParseUint(fields[7], 0, 64)
		pc, err2 := strconv.ParseUint(fields[8], 0, 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%s: %q", file, text)
		}
		all = append(all, position{pc, sp})
	}
	return all
}
