package inspect

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/images"
	"crucible/images/inspect/criufile"
	"crucible/proto/imagepb"
)

var update = flag.Bool("update", false, "write the golden files")

// zoo is an image with what CRIU wrote of criufile/testdata/zoo.py. In place of
// its memory there is one page with arguments and environment. The files that
// are given are put in place of those.
func zoo(t testing.TB, files map[string]string) *images.Image {
	t.Helper()
	paths, err := filepath.Glob("criufile/testdata/zoo/*")
	if err != nil || len(paths) == 0 {
		t.Fatalf("find the zoo: %v", err)
	}
	d, err := images.Store{Dir: t.TempDir()}.Draft(t.Context(), "zoo")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Discard() }()
	put := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(d.CRIUDir(), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range paths {
		if name := filepath.Base(path); !strings.HasPrefix(name, "pagemap") {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			put(name, content)
		}
	}
	page := make([]byte, 4096)
	copy(page[0x10:], "sleep\x001000\x00")
	copy(page[0x100:], "HOME=/root\x00ODD=\x1b[31m\x00")
	put("pages-1.img", page)
	for _, pid := range []int{1, 6} {
		put(fmt.Sprintf("pagemap-%d.img", pid), encoded(t, `{"magic":"PAGEMAP","entries":[{"pages_id":1},{"vaddr":"0x7000","compat_nr_pages":0,"flags":4,"nr_pages":1}]}`))
		put(fmt.Sprintf("mm-%d.img", pid), encoded(t, `{"magic":"MM","entries":[{"mm_arg_start":"0x7010","mm_arg_end":"0x701b","mm_env_start":"0x7100","mm_env_end":"0x7115","exe_file_id":1}]}`))
	}
	for name, text := range files {
		put(name, encoded(t, text))
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func encoded(t testing.TB, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := criufile.Encode(t.Context(), &out, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it): got\n%swant\n%s", path, got, want)
	}
}

func TestProcesses(t *testing.T) {
	c, err := Read(zoo(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, p := range c.Processes {
		fmt.Fprintf(&out, "%d below %d, group %d, session %d: %s %s, uid %d, %d bytes: %s\n\texe %s, cwd %s, root %s\n", p.Pid, p.Parent, p.Group, p.Session,
			p.State, p.Ended, p.UID, p.Memory, p.Command(), p.Exe, p.Directory, p.Root)
		for _, thread := range p.Threads {
			fmt.Fprintf(&out, "\tthread %d %s: %s, nice %d\n", thread.Tid, thread.Comm, thread.Policy, thread.Nice)
		}
	}
	golden(t, "processes.golden", out.String())
}

// Every kind of file of the zoo, with who has the other end.
func TestDescriptors(t *testing.T) {
	c, err := Read(zoo(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, d := range c.Process(6).Descriptors {
		fmt.Fprintf(&out, "%d %v %s %s: %s\n", d.FD, d.CloseOnExec, d.File.Access, d.File.Kind, d.File.Name())
	}
	golden(t, "descriptors.golden", out.String())
}

func TestEnvironment(t *testing.T) {
	i := zoo(t, nil)
	all, err := Environment(i, 6)
	if err != nil || fmt.Sprintf("%q", all) != `["HOME=/root" "ODD=\x1b[31m"]` {
		t.Errorf("environment is %q, %v", all, err)
	}
	if _, err := Environment(i, 9); !errors.Is(err, images.Damaged) {
		t.Errorf("environment of nobody: %v", err)
	}
}

// What lies in a file that is mapped, or was never written, is not in the image.
func TestEnvironmentAbsent(t *testing.T) {
	i := zoo(t, map[string]string{"mm-6.img": `{"magic":"MM","entries":[{"mm_env_start":"0x8000","mm_env_end":"0x8010","mm_arg_start":"0x9000","mm_arg_end":"0x9010","exe_file_id":1}]}`})
	if all, err := Environment(i, 6); err == nil || !strings.Contains(err.Error(), "environment of process 6") {
		t.Errorf("environment is %q, %v", all, err)
	}
	c, err := Read(i)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Process(6).Command(); got != "[python3]" {
		t.Errorf("the command line is %q", got)
	}
}

func TestIPC(t *testing.T) {
	all, err := ReadIPC(zoo(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(*all); got != "{[{4660 0 5001}] [{4660 0 3}] [{4660 0 2}]}" {
		t.Errorf("ipc is %s", got)
	}
}

func TestStats(t *testing.T) {
	s, err := ReadStats(zoo(t, nil))
	if err != nil || s.CRIU != nil || s.Memory.Here != 2*4096 || s.Memory.Before != 0 {
		t.Errorf("stats are %+v, %v", s, err)
	}
	s, err = ReadStats(zoo(t, map[string]string{"stats-dump": `{"magic":"STATS","entries":[{"dump":{"freezing_time":1500,"frozen_time":2000,
		"memdump_time":3,"memwrite_time":4,"pages_scanned":10,"pages_skipped_parent":2,"pages_written":8,"pages_lazy":0}}]}`}))
	if err != nil || s.CRIU == nil || s.CRIU.Freezing.String() != "1.5ms" || s.CRIU.Written != 8 {
		t.Errorf("stats are %+v, %+v, %v", s, s.CRIU, err)
	}
}

func TestDamaged(t *testing.T) {
	i := zoo(t, map[string]string{"files.img": `{"magic":"FILES","entries":[]}`})
	if _, err := Read(i); !errors.Is(err, images.Damaged) || !strings.Contains(err.Error(), "has no file") {
		t.Errorf("read an image without files: %v", err)
	}
	if err := os.Remove(filepath.Join(i.CRIUDir(), "core-5.img")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(i); !errors.Is(err, images.Damaged) || !strings.Contains(err.Error(), "core-5.img is missing") {
		t.Errorf("read an image without a thread: %v", err)
	}
	d, err := images.Store{Dir: t.TempDir()}.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	pre, err := d.Commit(t.Context(), &imagepb.Manifest{Traits: &imagepb.Traits{PreDump: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(pre); !errors.Is(err, images.PreDump) {
		t.Errorf("read a pre-dump: %v", err)
	}
}

// Things that the zoo does not have.
func TestNames(t *testing.T) {
	opts := `"fown":{"uid":0,"euid":0,"signum":0,"pid_type":0,"pid":0}`
	i := zoo(t, map[string]string{
		"fdinfo-3.img": `{"magic":"FDINFO","entries":[` +
			strings.Join([]string{fd(1, 1), fd(2, 2), fd(3, 3), fd(4, 4), fd(5, 5), fd(6, 6), fd(7, 7), fd(8, 8), fd(9, 9), fd(10, 10)}, ",") + `]}`,
		"files.img": `{"magic":"FILES","entries":[
			{"type":"REG","id":1,"reg":{"id":1,"flags":"0x401","pos":5,` + opts + `,"name":"/var/log/x","mode":33188}},
			{"type":"REG","id":2,"reg":{"id":2,"flags":"0x200000","pos":0,` + opts + `,"name":"/etc","mode":16877}},
			{"type":"UNIXSK","id":3,"usk":{"id":3,"ino":9,"type":5,"state":1,"flags":"0x802","uflags":"0x1","backlog":0,"peer":10,"name":"","name_dir":"/run"}},
			{"type":"PIDFD","id":4,"pidfd":{"id":4,"flags":2,"nspid":6}},
			{"type":"TUNF","id":5,"tunf":{"id":5,"netdev":"tap0"}},
			{"type":"FANOTIFY","id":6,"ffy":{"id":6,"flags":2,"faflags":0,"evflags":0,"mark":[{"id":6,"type":"MOUNT","mflags":0,"mask":"0x20","ignored_mask":0,"s_dev":1,"me":{"mnt_id":1,"path":"/"}}]}},
			{"type":"TIMERFD","id":7,"tfd":{"id":7,"flags":2,"clockid":7,"ticks":3,"settime_flags":0,"vsec":0,"vnsec":0,"isec":0,"insec":0}},
			{"type":"EVENTPOLL","id":8,"epfd":{"id":8,"flags":2}},
			{"type":"INETSK","id":9,"isk":{"id":9,"ino":4,"family":10,"type":3,"proto":58,"state":7,"src_port":0,"dst_port":0,"flags":2,"backlog":0,"src_addr":[33022,0,0,16777216],"dst_addr":[0,0,0,0],"ifname":"eth0"}},
			{"type":"EXT","id":10,"ext":{"id":10}}]}`,
		"fdinfo-2.img": `{"magic":"FDINFO","entries":[]}`,
	})
	c, err := Read(i)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, d := range c.Process(6).Descriptors {
		fmt.Fprintf(&out, "%d %s %s %s %s\n", d.FD, d.File.Access, d.File.Kind, d.File.Flags, d.File.Name())
	}
	golden(t, "names.golden", out.String())
}

func fd(n, id int) string { return fmt.Sprintf(`{"id":%d,"flags":1,"type":"UND","fd":%d}`, id, n) }
