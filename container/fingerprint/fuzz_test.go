package fingerprint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// FuzzText: whatever stands in a file of /proc, there is no panic, and what
// becomes of it is no larger than it is, but for a small factor.
func FuzzText(f *testing.F) {
	files, err := filepath.Glob("testdata/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			f.Add(string(data))
		}
	}
	f.Add("35 0x1 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x401000")
	f.Add("key shmid perms\n 0 1 666\n")
	f.Fuzz(func(t *testing.T, text string) {
		tk := newTaker()
		rows, _ := parseKeyed(strings.NewReader(text))
		tk.takeInfo("process/1/fd/3", rows, len(rows)%2 == 0)
		for _, row := range rows {
			tk.put("s/"+row.key, tk.statusValue(row))
		}
		for _, row := range parseLimits(strings.NewReader(text)) {
			tk.put("l/"+row.key, row.value)
		}
		if values, err := parseStat(strings.NewReader(text)); err == nil {
			tk.statFacts("stat/", values)
		}
		if all, err := parseSmaps(strings.NewReader(text)); err == nil {
			for i := range all {
				tk.settle(&all[i])
			}
			for _, m := range together(all) {
				tk.mappingFacts("process/1", m)
			}
		}
		if table, err := parseTable(strings.NewReader(text)); err == nil {
			for _, row := range table {
				tk.put("t", strings.Join([]string{row["key"], row["shmid"]}, " "))
			}
		}
		if all, err := mountinfo.GetMountsFromReader(strings.NewReader(text), nil); err == nil {
			tk.mountFacts("", all)
		}
		_, _, _ = parseCall(text)
		size := 0
		for _, fact := range tk.fingerprint().Facts {
			size += len(fact.Key) + len(fact.Value)
		}
		if size > 4096+64*len(text)+len(text)*len(text)/8 {
			t.Errorf("%d bytes of facts of %d of text", size, len(text))
		}
	})
}

// FuzzDiagnosis: the answers of sock_diag.
func FuzzDiagnosis(f *testing.F) {
	f.Add(make([]byte, 72), make([]byte, 8))
	f.Add(append(make([]byte, 72), 8, 0, 4, 0, 1, 0, 0, 0, 12, 0, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8), []byte{1})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		tk := newTaker()
		tk.names[object{kind: "socket"}] = "socket/1:3"
		for _, one := range [][]byte{a, b} {
			_ = tk.inetFacts("TCP", one)
			_ = tk.unixFacts("unix", one)
			_ = tk.netlinkFacts("netlink", one)
			_ = tk.packetFacts("packet", one)
			maskRseq(append([]byte(nil), one...), 0x1000, 0x1010)
		}
		size := 0
		for _, fact := range tk.fingerprint().Facts {
			size += len(fact.Key) + len(fact.Value)
		}
		if size > 16384+64*(len(a)+len(b)) {
			t.Errorf("%d bytes of facts of %d", size, len(a)+len(b))
		}
	})
}
