package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/checkpoint/criu"
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
	text := d.text(false)
	for _, row := range d.Rows {
		if row.Costs != "" && row.Remedy == "" || row.State != host.Good && (row.Costs == "" || row.Remedy == "") {
			t.Errorf("no costs or no remedy: %+v", row)
		}
		for _, part := range []string{row.Name, row.Detail, row.Costs, row.Remedy} {
			if !strings.Contains(text, part) {
				t.Errorf("%s/%s: the text lacks %q", row.Group, row.Name, part)
			}
		}
	}
}

func TestLockRow(t *testing.T) {
	for _, test := range []struct {
		locks  []criu.Row
		state  host.State
		detail string
	}{
		{[]criu.Row{{Name: "nftables", State: criu.Have}, {Name: "iptables", State: criu.Have}, {Name: "skip", State: criu.Have}},
			host.Good, "can be used: nftables, iptables, skip"},
		{[]criu.Row{{Name: "nftables", State: criu.Have}, {Name: "iptables", State: criu.HaveNot, Detail: "no iptables-restore in $PATH"}, {Name: "skip", State: criu.Have}},
			host.Good, "can be used: nftables, skip; cannot: iptables (no iptables-restore in $PATH)"},
		{[]criu.Row{{Name: "nftables", State: criu.HaveNot, Detail: "none"}, {Name: "skip", State: criu.Have}},
			host.Missing, "can be used: skip; cannot: nftables (none)"},
		{[]criu.Row{{Name: "nftables", State: criu.Unknown, Detail: "killed"}}, host.Unknown, "can be used: -; cannot: nftables (killed)"},
	} {
		row := lockRow(test.locks)
		if row.State != test.state || row.Detail != test.detail || (row.Costs == "") != (row.State == host.Good) {
			t.Errorf("%+v: %+v", test.locks, row)
		}
	}
}

// A lack is told once: by CRIU's name for it only if no other row is about it.
func TestDropTold(t *testing.T) {
	names := func(rows []host.Row) (all string) {
		for _, row := range dropTold(rows) {
			all += " " + row.Name
		}
		return strings.TrimSpace(all)
	}
	feature := func(name string) host.Row { return host.Row{Group: groupCRIU, Name: name, State: host.Missing} }
	rows := []host.Row{feature("mem_dirty_track"), feature("network_lock_nftables"), feature("apparmor_stacking"), feature("of tomorrow"),
		{Group: "memory", Name: "soft-dirty", State: host.Missing}}
	if got, want := names(rows), "apparmor_stacking of tomorrow soft-dirty"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	rows[4].State = host.Good
	if got, want := names(rows), "mem_dirty_track apparmor_stacking of tomorrow soft-dirty"; got != want {
		t.Errorf("where the two disagree: got %q, want %q", got, want)
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
