package conformance

import (
	"errors"
	"os/exec"
	"testing"

	"crucible/container/testenv"
	"crucible/experiments/lab"
	"crucible/experiments/lab/archive"
	"crucible/experiments/workload"
)

// targets finds kernels of the archive, each with this host's CRIU and the
// cgroup layouts.
func targets(t *testing.T, kernels, cgroups []string) []Target {
	t.Helper()
	if testing.Short() {
		testenv.Skip(t, "boots machines")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		testenv.Skip(t, "%v: run scripts/setup --tests", err)
	}
	store, err := archive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	criu, err := lab.FindCRIU(t.Context(), store, "")
	if err != nil {
		testenv.Skip(t, "%v", err)
	}
	var list []Target
	for _, name := range kernels {
		kernel, err := lab.FindKernel(t.Context(), store, name)
		var away *archive.Unreachable
		var none *archive.NoApt
		if errors.As(err, &away) || errors.As(err, &none) {
			testenv.Skip(t, "no kernel to boot: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, layout := range cgroups {
			list = append(list, Target{Kernel: kernel, CRIU: criu, Cgroup: layout})
		}
	}
	return list
}

func options(t *testing.T, names ...string) Options {
	t.Helper()
	qemu, err := lab.FindQEMU(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := Options{QEMU: qemu, Parallel: 2, Keep: t.TempDir(), program: testenv.Binary(t)}
	for _, name := range names {
		c, err := workload.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		o.Cases = append(o.Cases, c)
	}
	return o
}
