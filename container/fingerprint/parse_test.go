package fingerprint

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
)

var update = flag.Bool("update", false, "write the golden files")

// TestCanonicalForm: what the kernel says, as text, and what it becomes. Whoever
// changes the form raises Form, too.
func TestCanonicalForm(t *testing.T) {
	read := func(name string) *strings.Reader {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.NewReader(string(data))
	}
	tk := newTaker()
	rows, err := parseKeyed(read("status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		tk.put("process/1/status/"+row.key, tk.statusValue(row))
	}
	stat, err := parseStat(read("stat"))
	if err != nil {
		t.Fatal(err)
	}
	tk.statFacts("process/1/stat/", stat)
	for _, row := range parseLimits(read("limits")) {
		tk.put("process/1/limits/"+row.key, row.value)
	}
	mounts, err := mountinfo.GetMountsFromReader(read("mountinfo"), nil)
	if err != nil {
		t.Fatal(err)
	}
	tk.mounts = map[string]string{}
	tk.mountFacts("", mounts)
	for fd, name := range []string{"fdinfo-file", "fdinfo-eventpoll", "fdinfo-inotify", "fdinfo-timerfd", "fdinfo-pidfd", "fdinfo-later-kernel"} {
		rows, err := parseKeyed(read(name))
		if err != nil {
			t.Fatal(err)
		}
		tk.takeInfo(fmt.Sprintf("process/1/fd/%d", fd), rows, false)
	}
	all, err := parseSmaps(read("smaps"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		tk.settle(&all[i])
	}
	for _, m := range together(all) {
		tk.mappingFacts("process/1", m)
	}
	var out strings.Builder
	fmt.Fprintln(&out, "form", Form)
	for _, f := range tk.fingerprint().Facts {
		fmt.Fprintf(&out, "%s = %s\n", f.Key, f.Value)
	}
	golden := filepath.Join("testdata", "canonical.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Error(d)
	}
}

func newTaker() *taker {
	return &taker{facts: newFacts(), inside: map[int]int{4711: 1, 4712: 7}, mounts: map[string]string{"24": "mount[/]"}, names: map[object]string{}}
}

func TestParseCall(t *testing.T) {
	for line, want := range map[string]callState{
		"-1 0x7ffd0 0x7f12":                            {number: -1, pc: 0x7f12, args: []string{}},
		"35 0x1 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x401000\n": {number: 35, pc: 0x401000, args: []string{"0x1", "0x0", "0x0", "0x0", "0x0", "0x0"}},
	} {
		got, running, err := parseCall(line)
		if err != nil || running || got.number != want.number || got.pc != want.pc || !cmp.Equal(got.args, want.args) {
			t.Errorf("parseCall(%q) = %+v, %v, %v", line, got, running, err)
		}
	}
	if _, running, err := parseCall("running"); !running || err != nil {
		t.Errorf("running: %v, %v", running, err)
	}
	for _, bad := range []string{"", "1", "x 1 2", "1 2 x"} {
		if _, _, err := parseCall(bad); err == nil {
			t.Errorf("parseCall(%q): no error", bad)
		}
	}
}

func TestTogether(t *testing.T) {
	const text = "1000-2000 rw-p 00000000 00:00 0 \nVmFlags: rd wr ac \n" +
		"2000-3000 rw-p 00000000 00:00 0 \nVmFlags: rd wr sd \n" + // the same, in two pieces
		"3000-4000 rw-p 00001000 08:01 5 /f\nVmFlags: rd wr \n" +
		"4000-5000 rw-p 00002000 08:01 5 /f\nVmFlags: rd wr \n" + // goes on in the file
		"5000-6000 rw-p 00002000 08:01 5 /f\nVmFlags: rd wr \n" + // does not
		"6000-7000 rw-p 00000000 00:00 0 \nVmFlags: rd wr lo \n"
	all, err := parseSmaps(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	tk := newTaker()
	for i := range all {
		tk.settle(&all[i])
	}
	var got []string
	for _, m := range together(all) {
		got = append(got, fmt.Sprintf("%x %s", m.start, m.String()))
	}
	want := []string{"1000 to 3000 rw-p", "3000 to 5000 rw-p offset 1000", "5000 to 6000 rw-p offset 2000", "6000 to 7000 rw-p"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"x\n", "Rss: 4 kB\n", "2000-1000 rw-p 0 0:0 0\n", "1000-2000 rw-p\n"} {
		if _, err := parseSmaps(strings.NewReader(bad)); err == nil {
			t.Errorf("parseSmaps(%q): no error", bad)
		}
	}
}

func TestMaskRseq(t *testing.T) {
	const at, head = 0x10000, 0x10200
	area := func(cpu, cid byte) []byte {
		piece := make([]byte, 4096)
		for i := range piece {
			piece[i] = 0xaa
		}
		clear(piece[0x240:0x260])
		piece[0x240], piece[0x244], piece[0x258] = cpu, cpu, cid
		return piece
	}
	one, other := area(0, 0), area(3, 1)
	maskRseq(one, at, head)
	maskRseq(other, at, head)
	if !cmp.Equal(one, other) {
		t.Error("the number of the processor is still in it")
	}
	if one[0x23f] != 0xaa || one[0x260] != 0xaa {
		t.Error("what lies beside it was changed")
	}
	different := area(0, 0)
	different[0x248] = 1 // rseq_cs is the program's
	maskRseq(different, at, head)
	if cmp.Equal(one, different) {
		t.Error("what the program has written is gone")
	}
	far := area(3, 1)
	maskRseq(far, at+1<<20, head)
	if far[0x240] != 3 {
		t.Error("memory far from the thread's was changed")
	}
}
