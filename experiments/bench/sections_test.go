package main

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"crucible/container/testenv"
)

// The test binary is also what the bench starts in containers.
func TestMain(m *testing.M) {
	dispatch(os.Args)
	os.Exit(m.Run())
}

// TestSections asks every question once, in its smallest form: each system must
// answer what it is asked, and nothing may stay behind.
func TestSections(t *testing.T) {
	testenv.Root(t)
	for _, name := range []string{"runc", "lxc-execute"} {
		if _, err := exec.LookPath(name); err != nil {
			testenv.Skip(t, "%s is not installed: scripts/setup --tests", name)
		}
	}
	testenv.LeakCheck(t)
	o, err := parseOptions([]string{"--crucible", testenv.Binary(t), "--prefix", "tbench", "--sizes", "4", "--clones", "2", "--idle", "2"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.check(); err != nil {
		testenv.Skip(t, "%v", err)
	}
	g, err := newRig(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(g.dir); err == nil {
			t.Errorf("%s is still there", g.dir)
		}
	}()
	var r results
	for _, s := range sections() {
		if err := s.run(t.Context(), g, &r, rounds{0, 1}); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	for _, s := range r.Series {
		if s.Failure != "" {
			t.Errorf("%s, %s: %s", s.Section, s.System, s.Failure)
		}
	}
	for section, systems := range map[string][]string{
		"launch":     {nameCrucible, nameRunc, nameLXC},
		"cycle":      {nameCrucible, nameRunc, nameLXC, nameCRIU},
		"frozen":     {nameCrucible, nameRunc, nameLXC, nameCRIU},
		"memory":     {nameCrucible, nameCRIU},
		"connection": {nameCrucible, nameRunc, nameLXC},
		"lazy":       {nameCrucible, nameLazy},
		"decode":     {nameCrucible},
		"look":       {nameCrucible},
		"clones":     {nameCrucible, nameRunc, nameCRIU},
		"idle":       {nameCrucible, nameRunc, nameLXC},
	} {
		for _, system := range systems {
			if !slices.ContainsFunc(r.Series, func(s series) bool {
				return s.Section == section && s.System == system && len(s.Samples) > 0 && s.Samples[0] > 0
			}) {
				t.Errorf("%s: no number for %s", section, system)
			}
		}
	}
}
