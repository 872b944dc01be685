package proc

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const statLine = "31118 (a) (b) c) S 31111 31110 2148 34817 31118 4194304 100 1 2 3 4 5 0 0 20 -5 3 0 215495 3133440 380 18446744073709551615 94221022302208 94221022322089 140735810502672 0 0 0 0 0 0 0 0 0 17 1 0 2 0 0 0 94221022338096 94221022339712 94221648424960 140735810505123 140735810505179 140735810505179 140735810506731 0\n"

func TestParseStat(t *testing.T) {
	got, err := ParseStat(strings.NewReader(statLine))
	if err != nil {
		t.Fatal(err)
	}
	want := Stat{
		PID: 31118, Comm: "a) (b) c", State: "S", PPID: 31111, Flags: 4194304, UTicks: 4, STicks: 5, Threads: 3, StartTicks: 215495,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "1", "1 (x", "x (y) S 1", "1 (x) S 1 2", "1 )x( S", strings.Replace(statLine, "31111", "31x11", 1)} {
		if _, err := ParseStat(strings.NewReader(bad)); err == nil {
			t.Errorf("ParseStat(%q): no error", bad)
		}
	}
}

const statusText = `Name:	a\nb\\c
Umask:	0022
State:	S (sleeping)
Tgid:	7
Pid:	8
PPid:	1
TracerPid:	0
Uid:	1	2	3	4
Gid:	5	6	7	8
FDSize:	256
Groups:	10 20 
NStgid:	7	1
NSpid:	8	2
NSpgid:	7	1
NSsid:	0	0
Kthread:	0
VmPeak:	    3061 kB
VmSize:	    3060 kB
VmRSS:	    1740 kB
RssAnon:	     112 kB
RssFile:	    1628 kB
RssShmem:	       1 kB
VmSwap:	       2 kB
HugetlbPages:	       3 kB
Threads:	4
SigQ:	0/96365
SigPnd:	0000000000000001
ShdPnd:	0000000000000002
SigBlk:	0000000000000004
SigIgn:	0000000000000008
SigCgt:	fffffffe7ffbfeff
CapInh:	0000000000000000
CapPrm:	000001fffeffffff
CapEff:	000001fffeffffff
CapBnd:	000001fffeffffff
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	1
Cpus_allowed:	3
Cpus_allowed_list:	0-1
Mems_allowed_list:	0
voluntary_ctxt_switches:	5
nonvoluntary_ctxt_switches:	6
A_line_of_a_later_kernel:	whatever
`

func TestParseStatus(t *testing.T) {
	got, err := ParseStatus(strings.NewReader(statusText))
	if err != nil {
		t.Fatal(err)
	}
	want := Status{
		Name: "a\nb\\c", State: "S", TGID: 7, PID: 8, PPID: 1,
		UIDs: [4]uint32{1, 2, 3, 4}, GIDs: [4]uint32{5, 6, 7, 8},
		NSPID: []int{8, 2}, NSPGID: []int{7, 1}, NSSID: []int{0, 0},
		VmSize: 3060 << 10, RSS: 1740 << 10, Threads: 4, CPUs: "0-1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "x", "Pid:\tx\n", "Uid:\t1 2 3\n", "VmRSS:\t1 MB\n", "VmRSS:\t99999999999999999 kB\n", "Threads:\t-1\n"} {
		if _, err := ParseStatus(strings.NewReader(bad)); err == nil {
			t.Errorf("ParseStatus(%q): no error", bad)
		}
	}
	long := "Pid:\t1\nGroups:\t" + strings.Repeat("4294967295 ", 65536) + "\n"
	if s, err := ParseStatus(strings.NewReader(long)); err != nil || s.PID != 1 {
		t.Errorf("65,536 groups: %+v, %v", s, err)
	}
}

func TestParseCgroups(t *testing.T) {
	got, err := ParseCgroups(strings.NewReader("9:name=a:b:/x:/y\n4:cpu,cpuacct:/\n0::/c:d\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Cgroup{{9, []string{"name=a:b"}, "/x:/y"}, {4, []string{"cpu", "cpuacct"}, "/"}, {0, nil, "/c:d"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"x\n", "1:cpu\n", "x:cpu:/\n", "1:cpu:relative\n"} {
		if _, err := ParseCgroups(strings.NewReader(bad)); err == nil {
			t.Errorf("ParseCgroups(%q): no error", bad)
		}
	}
}

func TestParseNamespace(t *testing.T) {
	got, err := ParseNamespace("net:[4026531833]")
	if err != nil || got != (Namespace{"net", 4026531833}) {
		t.Errorf("ParseNamespace = %v, %v", got, err)
	}
	for _, bad := range []string{"", "net", "net:[]", "net:[x]", ":[1]", "net:[1", "net:1]"} {
		if n, err := ParseNamespace(bad); err == nil {
			t.Errorf("ParseNamespace(%q) = %v, no error", bad, n)
		}
	}
}

func TestParseFDInfo(t *testing.T) {
	got, err := ParseFDInfo(strings.NewReader("pos:\t-1\nflags:\t02100000\nmnt_id:\t24\nino:\t3\nlock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF\ninotify wd:3 ino:9e7e\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := FDInfo{Flags: 0o2100000, MntID: 24, More: []Detail{
		{"lock", "1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF"}, {"inotify", "wd:3 ino:9e7e"},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"x\n", "flags:\t8\n", "mnt_id:\t-1\n"} {
		if _, err := ParseFDInfo(strings.NewReader(bad)); err == nil {
			t.Errorf("ParseFDInfo(%q): no error", bad)
		}
	}
}

func TestOwnFiles(t *testing.T) {
	pid := os.Getpid()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fds, err := Root.FDs(pid)
	if err != nil || fds[int(f.Fd())] != "/dev/null" {
		t.Errorf("FDs: descriptor %d is %q: %v", f.Fd(), fds[int(f.Fd())], err)
	}
	args, err := Root.Args(pid)
	if err != nil || !slices.Equal(args, os.Args) {
		t.Errorf("Args = %q, %v; are %q", args, err, os.Args)
	}
	if exe, err := Root.Exe(pid); err != nil || !strings.HasSuffix(exe, "proc.test") {
		t.Errorf("Exe = %q, %v", exe, err)
	}
	if _, err := Root.Stat(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of no process: %v", err)
	}
}

// A process that has been reaped while its files were open gives ESRCH.
func TestGone(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(Root.path(cmd.Process.Pid, "status"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_, err = f.Read(make([]byte, 1))
	if errors.Is(err, fs.ErrNotExist) || !errors.Is(gone(err), fs.ErrNotExist) {
		t.Errorf("read = %v, after gone %v", err, gone(err))
	}
}

func TestTree(t *testing.T) {
	// The shell stays because of the second command; it has one child.
	cmd := exec.Command("sh", "-c", "sleep 100; :")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		tree, err := Root.Tree(cmd.Process.Pid)
		if err == nil {
			for _, p := range tree.All() {
				if proc, err := os.FindProcess(p.PID); err == nil {
					_ = proc.Kill()
				}
			}
		}
		_ = cmd.Wait()
	}()
	want := []string{"sh", "sleep"}
	var got []string
	for range 1000 { // until both have executed their program
		tree, err := Root.Tree(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, p := range tree.All() {
			if s, err := Root.Stat(p.PID); err == nil {
				got = append(got, s.Comm)
			}
		}
		if slices.Equal(got, want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("tree is %q, not %q", got, want)
	}
	ours, err := Root.Tree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(ours.Children, func(p *Process) bool { return p.PID == cmd.Process.Pid }) {
		t.Errorf("the shell is not among our children: %v", ours.Children)
	}
	if _, err := Root.Tree(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Tree of no process: %v", err)
	}
}

// Without CONFIG_PROC_CHILDREN there is no file "children".
func TestTreeByParent(t *testing.T) {
	dir := t.TempDir()
	for pid, ppid := range map[int]int{5: 1, 7: 5, 8: 7, 9: 1} {
		line := strings.Replace(strings.Replace(statLine, "31118", strconv.Itoa(pid), 1), "31111", strconv.Itoa(ppid), 1)
		if err := os.MkdirAll(filepath.Join(dir, strconv.Itoa(pid)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(pid), "stat"), []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := FS(dir).Tree(5)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, p := range tree.All() {
		got = append(got, p.PID)
	}
	if !slices.Equal(got, []int{5, 7, 8}) {
		t.Errorf("tree is %v", got)
	}
}
