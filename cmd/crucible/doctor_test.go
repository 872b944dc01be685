package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container/host"
	"crucible/container/testenv"
)

func TestDiagnosisText(t *testing.T) {
	d := diagnosis{Rows: []host.Row{
		{Group: "criu", Name: "program", State: host.Good, Detail: "4.2.1", Required: true},
		{Group: "memory", Name: "soft-dirty", State: host.Missing, Detail: "no marks", Costs: "no pre-copy", Remedy: "rebuild"},
		{Group: "memory", Name: "pagemap", State: host.Unknown, Required: true},
	}}
	want := `CRIU
  good     program     4.2.1
MEMORY
  missing  soft-dirty  no marks
                       costs: no pre-copy
                       remedy: rebuild
  unknown  pagemap

Could not tell whether containers can be checkpointed and restored here, for: memory/pagemap.
`
	if got := d.text(false); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	d.Rows[1].Required = true
	if got, want := d.verdict(), "Containers cannot be checkpointed and restored here. Missing: memory/soft-dirty."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	d.Rows[1].Required = false
	colourful := d.text(true)
	for _, part := range []string{"\x1b[32mgood   \x1b[0m", "\x1b[33mmissing\x1b[0m", "\x1b[31munknown\x1b[0m"} {
		if !strings.Contains(colourful, part) {
			t.Errorf("no %q in\n%s", part, colourful)
		}
	}
}

func TestCacheRow(t *testing.T) {
	yes := func(string) (bool, error) { return true, nil }
	no := func(string) (bool, error) { return false, nil }
	for _, test := range []struct {
		name    string
		prepare func(rundir string) error
		tmpfs   func(string) (bool, error)
		want    host.State
		detail  string
	}{
		{"in order", func(string) error { return nil }, yes, host.Good, "criu.kdat"},
		{"not there", os.Remove, host.OnTmpfs, host.Missing, "is not there"},
		{"on a disk", func(string) error { return nil }, no, host.Missing, "not on a tmpfs"},
		{"everybody's", func(dir string) error { return os.Chmod(dir, 0o777) }, yes, host.Missing, "not root's alone"},
		{"left over", func(dir string) error { return os.WriteFile(filepath.Join(dir, "criu.kdat.tmp"), nil, 0o600) }, yes, host.Missing, "left over"},
	} {
		t.Run(test.name, func(t *testing.T) {
			testenv.Root(t)
			prefix := t.TempDir()
			rundir := filepath.Join(prefix, "cache")
			if err := os.Mkdir(rundir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(prefix, "rundir"), []byte(rundir+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := test.prepare(rundir); err != nil {
				t.Fatal(err)
			}
			row := cacheRow(filepath.Join(prefix, "bin", "criu"), test.tmpfs)
			if row.State != test.want || !strings.Contains(row.Detail, test.detail) {
				t.Errorf("%+v", row)
			}
		})
	}
}

// Where the tests run, containers can be checkpointed.
func TestDiagnose(t *testing.T) {
	testenv.Root(t)
	a := &app{rootDir: t.TempDir()}
	d := a.diagnose(context.Background())
	if !d.Works {
		t.Error(d.text(false))
	}
}

// A CRIU that is not there or is none makes the diagnosis a no.
func TestDiagnoseWithoutCRIU(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "criu"), "/bin/true"} {
		rows := (&app{criuPath: path}).criuRows(context.Background())
		if len(rows) != 1 || rows[0].State != host.Missing || !rows[0].Required || rows[0].Remedy == "" {
			t.Errorf("%s: %+v", path, rows)
		}
	}
}
