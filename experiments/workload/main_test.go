package workload

import (
	"debug/elf"
	"os"
	"slices"
	"testing"
	"time"

	"crucible/checkpoint/criu"
	"crucible/container"
	"crucible/container/testenv"
	"crucible/restore"
)

// The test binary is crucible to the containers that it starts: their init,
// their monitor, and the programs in them, planted ones too.
func TestMain(m *testing.M) {
	container.MaybeInit()
	container.MaybeMonitor(map[string]container.Job{restore.JobName: restore.Job}, func(err error) container.Explanation {
		return container.Explanation{Hint: hint(err)}
	})
	maybeRun(func() []Case { return slices.Concat(Cases(), plantedCases()) })
	os.Exit(m.Run())
}

// options are those of a test that starts containers.
func options(t *testing.T) Options {
	t.Helper()
	testenv.Root(t)
	found, err := criu.Find("")
	if err != nil {
		testenv.Skip(t, "%v", err)
	}
	root := testenv.StateRoot(t)
	// A mapped root must be able to look below it.
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	testenv.LeakCheck(t)
	return Options{Root: container.Root(root), CRIU: found, Timeout: time.Minute, prefix: testenv.Name(t), volumes: libraries(t), Dir: t.TempDir()}
}

// libraries are the volumes without which a test binary that was linked with
// cgo does not run.
func libraries(t *testing.T) (volumes []string) {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, _ := f.ImportedLibraries(); len(libs) == 0 {
		return nil
	}
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib"} {
		if _, err := os.Stat(dir); err == nil {
			volumes = append(volumes, dir+":"+dir+":ro")
		}
	}
	return volumes
}
