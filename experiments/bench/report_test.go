package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the tables that the tests make to testdata")

func sample() *results {
	spread := func(x float64) []float64 { return []float64{x * 0.9, x * 1.2, x, x * 0.95, x * 1.05} }
	return &results{
		Machine: machine{
			When: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Kernel: "6.18.1", CPU: "Some CPU", Processors: 2,
			MemoryMiB: 8192, Filesystem: "ext4", Load: "0.10 0.20 0.30", LoadAfter: "1.00 0.40 0.35",
			Versions: map[string]string{"crucible": "v1", "criu": "4.2.1", "runc": "1.1.5", "lxc": "5.0.2"},
		},
		Series: []series{
			{Section: "launch", What: "run", System: nameCrucible, Unit: "ms", Samples: spread(8)},
			{Section: "launch", What: "run", System: nameRunc, Unit: "ms", Samples: spread(20)},
			{Section: "launch", What: "run", System: nameLXC, Unit: "ms", Samples: spread(7.9)},
			{Section: "cycle", System: nameLXC, Failure: "no CRIU"},
			{Section: "cycle", What: "checkpoint, no network", System: nameCrucible, Unit: "ms", Samples: spread(123.456)},
			{Section: "frozen", What: "sleep, by crucible's own clock", System: nameCrucible, Unit: "ms", Samples: spread(4.9)},
			{Section: "connection", What: "checkpoint and restore: longest pause", System: nameCrucible, Unit: "ms", Samples: spread(80)},
			{Section: "connection", What: "checkpoint and restore: longest pause", System: nameLXC, Unit: "ms", Samples: spread(300)},
			{Section: "memory", What: "restore, 1024 MiB", System: nameCrucible, Unit: "ms", Samples: []float64{1000}},
			{Section: "memory", What: "restore, 1024 MiB", System: nameCRIU, Unit: "ms", Samples: []float64{990}},
			{Section: "lazy", What: "1024 MiB, first answer", System: nameCrucible, Unit: "ms", Samples: spread(800)},
			{Section: "lazy", What: "1024 MiB, first answer", System: nameLazy, Unit: "ms", Samples: spread(90)},
		},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant (-update writes it anew):\n%s", name, got, want)
	}
}

func TestTables(t *testing.T) {
	var out strings.Builder
	r := sample()
	out.WriteString(machineText(r.Machine) + "\n")
	if err := r.tables(&out, ""); err != nil {
		t.Fatal(err)
	}
	golden(t, "tables.txt", out.String())
}

func TestMarkdown(t *testing.T) {
	var out strings.Builder
	if err := sample().markdown(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.md", out.String())
}

func TestMarkdownFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "README.md")
	r := sample()
	if err := os.WriteFile(file, []byte("# Title\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.markdownFile(file); err == nil {
		t.Error("a file without a place for the table is written to")
	}
	if err := os.WriteFile(file, []byte("# Title\n"+markBegin+"old\n"+markEnd+"\nEnd\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it replaces what the first has written
		if err := r.markdownFile(file); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	text := string(data)
	if err != nil || !strings.HasPrefix(text, "# Title\n"+markBegin+"| target") || !strings.HasSuffix(text, markEnd+"\nEnd\n") ||
		strings.Contains(text, "old") || strings.Count(text, "| target") != 1 {
		t.Errorf("%v, wrote:\n%s", err, text)
	}
}

func TestSaveAndLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	r := sample()
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	back, err := load(file)
	if err != nil {
		t.Fatal(err)
	}
	var before, after strings.Builder
	if err := r.markdown(&before); err != nil {
		t.Fatal(err)
	}
	if err := back.markdown(&after); err != nil || before.String() != after.String() {
		t.Errorf("%v, another table than before:\n%s", err, &after)
	}
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		x    ratio
		want string
	}{
		{ratio{0.5, 0.4, 0.6}, "yes"}, {ratio{0.9, 0.7, 1.3}, "yes, within the noise"},
		{ratio{1.1, 0.9, 1.2}, "no, within the noise"}, {ratio{2, 1.5, 2.5}, "no"},
	} {
		if got := judge(test.x, 1); got != test.want {
			t.Errorf("%v: %q, want %q", test.x, got, test.want)
		}
	}
}

// TestTargets: a section that does not exist would leave its row out for ever.
func TestTargets(t *testing.T) {
	for _, x := range targets() {
		if _, err := parseSections(x.section); err != nil {
			t.Errorf("%s: %v", x.text, err)
		}
	}
}
