package main

import (
	"path/filepath"
	"slices"
	"testing"

	"crucible/experiments/plan"
	"crucible/experiments/workload"
)

// The experiments that ship can be run, and the support map asks every case that
// is nothing but a program, but for those about a root filesystem of their own.
func TestShippedExperiments(t *testing.T) {
	files, err := filepath.Glob("../../experiments/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		p, err := plan.Read(file, experimentFlags())
		if err != nil {
			t.Error(err)
			continue
		}
		if filepath.Base(file) != "support-map.yaml" {
			continue
		}
		for _, c := range workload.Cases() {
			listed := slices.ContainsFunc(p.Cells, func(v plan.Values) bool { name, _ := v.Get("case"); return name == c.Name })
			if own := c.Name == "root-changes" || c.Name == "root-opaque-directory"; listed != (c.Alone() && !own) {
				t.Errorf("case %s: listed: %v", c.Name, listed)
			}
		}
	}
}
