package criu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseLine(t *testing.T) {
	for _, x := range []struct {
		in   string
		want Line
	}{
		{"(00.012345) Error (criu/files.c:99): Can't do: No such file or directory\n",
			Line{At: 12345 * time.Microsecond, Timed: true, Level: Fault, Source: "criu/files.c:99", Text: "Can't do: No such file or directory"}},
		{"(01.000001)     58: Warn  (criu/x.c:1): hm", Line{At: time.Second + time.Microsecond, Timed: true, Pid: 58, Level: Warning, Source: "criu/x.c:1", Text: "hm"}},
		{"pie: 9554: Error (criu/pie/parasite.c:588): send_fds failed (-22)", Line{Pid: 9554, Level: Fault, Source: "criu/pie/parasite.c:588", Text: "send_fds failed (-22)"}},
		{"(100.12345) mnt: \tfine", Line{At: 100*time.Second + 123450*time.Microsecond, Timed: true, Text: "mnt: \tfine"}},
		{"Error (criu/a.c:1): no time at log level 2", Line{Level: Fault, Source: "criu/a.c:1", Text: "no time at log level 2"}},
		{"iptables-restore: line 1 failed", Line{Text: "iptables-restore: line 1 failed"}},
		{"", Line{}},
		{"(00.1", Line{Text: "(00.1"}},
		{"Error (half", Line{Text: "Error (half"}},
	} {
		if got := ParseLine(x.in); got != x.want {
			t.Errorf("%q\n got %+v\nwant %+v", x.in, got, x.want)
		}
	}
}

func TestLineErrno(t *testing.T) {
	for text, want := range map[string]syscall.Errno{
		"Can't get rlimit 0: Operation not permitted": syscall.EPERM,
		"bfd: x: No space left on device":             syscall.ENOSPC,
		"send_fds failed (-22)":                       syscall.EINVAL,
		"failed with -1":                              0,
		"failed (-1)":                                 0,
		"no errno: at all":                            0,
	} {
		if got := lineErrno(text); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, x := range []struct {
		pattern, text, want string
		ok                  bool
	}{
		{"lookup mount={mount} for fd={fd} path={path}", "Can't lookup mount=7 for fd=0 path=/a b", "mount 7|fd 0|path /a b", true},
		{"file {path} of {bytes} size", "Can't dump ghost file /x of 99 size, increase", "path /x|bytes 99", true},
		{"plain", "a plain text", "", true},
		{"{check} failed when", "kerndat_x failed when initializing", "check kerndat_x", true},
		{"({_}) on fd {fd}", "(tty) on fd 3", "fd 3", true},
		{"lookup mount={mount} for", "lookup mount=7", "", false},
		{"nothing", "else", "", false},
		{"{a}{b}x", "abx", "", false},
	} {
		fields, ok := match(x.pattern, x.text)
		if ok != x.ok || strings.Join(fields, "|") != x.want {
			t.Errorf("%q in %q: %q %v", x.pattern, x.text, fields, ok)
		}
	}
}

// TestFindCause reads logs that CRIU wrote when it was made to fail
// (TestProvokeDump, TestProvokeRestore with -update), named for what must be
// found in them.
func TestFindCause(t *testing.T) {
	names, err := filepath.Glob("testdata/logs/*.log")
	fatal(t, err)
	rules := map[string]bool{}
	var golden strings.Builder
	for _, name := range names {
		f, err := os.Open(name)
		fatal(t, err)
		c, err := FindCause(f)
		f.Close()
		fatal(t, err)
		base := strings.TrimSuffix(filepath.Base(name), ".log")
		_, kind, _ := strings.Cut(base, "-")
		kind, _, _ = strings.Cut(kind, ".")
		if c.Kind != kind {
			t.Errorf("%s: kind %q", name, c.Kind)
		}
		if c.Remedy == "" {
			t.Errorf("%s: no remedy", name)
		}
		if k := lookup(causes(), c.Text); k != nil {
			rules[k.Pattern] = true
		}
		fmt.Fprintf(&golden, "%s\n\ttext   %s\n\tobject %s\n\tpid    %d\n\terrno  %d\n\tsource %s\n", base, c.Text, c.Object, c.Pid, c.Errno, c.Source)
	}
	t.Logf("%d rules of %d have a log that was provoked", len(rules), len(causes()))
	if len(rules) < 60 {
		t.Errorf("only %d rules have a log", len(rules))
	}
	const file = "testdata/causes.golden"
	if *update {
		fatal(t, os.WriteFile(file, []byte(golden.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	fatal(t, err)
	if golden.String() != string(want) {
		t.Errorf("what is found is not as in %s:\n%s", file, golden.String())
	}
}

func TestFindCauseWithoutTable(t *testing.T) {
	for _, x := range []struct{ name, log, want string }{
		{"the first of the last errors", `Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
Error (criu/a.c:1): the reason nobody knows
Error (criu/b.c:1): Dump core (pid: 5) failed with -1
Error (criu/cr-dump.c:1): Dumping FAILED.
`, "the reason nobody knows"},
		{"an early error that did no harm", `(00.01) Error (criu/a.c:1): something early
(00.02) 1
(00.02) 2
(00.02) 3
(00.02) 4
(00.02) 5
(00.02) 6
(00.02) 7
(00.02) 8
(00.02) 9
(00.03) Error (criu/b.c:1): the reason
(00.03) Error (criu/c.c:1): and what it led to
(00.03) Error (criu/cr-dump.c:1): Dumping FAILED.
`, "the reason"},
		{"a helper's last word", `iptables-restore: line 2 failed
Error (criu/x.c:1): cannot do it
`, "cannot do it (iptables-restore: line 2 failed)"},
		{"only consequences", `Error (criu/x.c:1): 12 exited, status=1
Error (criu/cr-restore.c:1): Restoring FAILED.
`, "12 exited, status=1"},
		{"no error", "(00.01) fine\n", ""},
		{"empty", "", ""},
	} {
		c, err := FindCause(strings.NewReader(x.log))
		if err != nil || c.Text != x.want {
			t.Errorf("%s: %q, want %q (%v)", x.name, c.Text, x.want, err)
		}
	}
}

func TestCausesTable(t *testing.T) {
	kinds := map[string]bool{}
	seen := map[string]bool{}
	for _, k := range causes() {
		if k.Kind == "" || k.Pattern == "" || k.Remedy == "" {
			t.Errorf("not complete: %+v", k)
		}
		if strings.HasSuffix(k.Remedy, ".") || strings.Contains(k.Remedy, "\n") {
			t.Errorf("remedy of %s: not one unfinished sentence: %q", k.Kind, k.Remedy)
		}
		if seen[k.Pattern] {
			t.Errorf("twice: %s", k.Pattern)
		}
		if consequence(k.Pattern) || harmless(k.Pattern) {
			t.Errorf("known, and yet passed over: %s", k.Pattern)
		}
		seen[k.Pattern], kinds[k.Kind] = true, true
		// Nothing that stands before it may take what is its.
		if first := lookup(causes(), strings.NewReplacer("{", "<", "}", ">").Replace(k.Pattern)); first == nil || first.Kind != k.Kind {
			t.Errorf("%s is taken by %+v", k.Pattern, first)
		}
	}
	if len(kinds) < 30 {
		t.Errorf("only %d kinds", len(kinds))
	}
	t.Logf("%d patterns, %d kinds", len(seen), len(kinds))
}

func FuzzFindCause(f *testing.F) {
	names, _ := filepath.Glob("testdata/logs/*.log")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err == nil {
			f.Add(string(data))
		}
	}
	f.Add("(00.1) pie: 3: Error (x): y (-22)\n")
	f.Fuzz(func(t *testing.T, log string) {
		c, err := FindCause(strings.NewReader(log))
		if err != nil {
			t.Fatal(err)
		}
		e := &Error{Op: "dump"}
		e.fill(c)
		if strings.Contains(e.Error(), "\n") {
			t.Errorf("more than one line: %q", e.Error())
		}
		if c.Pid < 0 {
			t.Errorf("pid %d", c.Pid)
		}
	})
}
