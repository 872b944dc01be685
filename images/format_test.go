package images

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"crucible/proto/frame"
)

// formats are the stored images, by their edition: see testdata/README.
func formats(t *testing.T) map[int]Store {
	t.Helper()
	dirs, err := filepath.Glob("testdata/format-*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]Store{}
	for _, dir := range dirs {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "format-"))
		if err != nil {
			t.Fatal(err)
		}
		all[n] = Store{Dir: dir}
	}
	return all
}

// Every image that crucible ever wrote can be opened: there is one of each
// edition, and of the newest, which this code writes.
func TestFormats(t *testing.T) {
	all := formats(t)
	for n := 1; n <= frame.Edition; n++ {
		if _, ok := all[n]; !ok {
			t.Errorf("testdata has no image of edition %d", n)
		}
	}
	for n, s := range all {
		list, err := s.List("")
		if err != nil || len(list) == 0 {
			t.Fatalf("list images of edition %d: %v, %v", n, list, err)
		}
		for _, i := range list {
			if int(i.Manifest.Format) != n {
				t.Errorf("%s in %s is of edition %d", i.Ref(), s.Dir, i.Manifest.Format)
			}
			checkStored(t, i)
		}
	}
}

func checkStored(t *testing.T, i *Image) {
	t.Helper()
	if err := i.Verify(t.Context(), VerifyOptions{}); err != nil {
		t.Error(err)
	}
	if unknown, err := i.Unknown(); err != nil || len(unknown) > 0 {
		t.Errorf("%s: unknown: %v, %v", i.Ref(), unknown, err)
	}
	for _, file := range []string{Namespaces, Mounts, Processes, Timeline, Filesystem} {
		m := record(file)
		if err := i.Get(file, m); err != nil {
			t.Error(err)
		}
		empty := true
		for range m.ProtoReflect().Range {
			empty = false
		}
		if empty {
			t.Errorf("%s: %s says nothing", i.Ref(), file)
		}
	}
	spec, _, err := i.Spec()
	if err != nil || spec.Hostname != "format-"+strconv.Itoa(int(i.Manifest.Format)) {
		t.Errorf("%s: %v, %v", i.Ref(), spec, err)
	}
	// Files that git does not keep (empty directories) are of no use to anybody.
	if entries, err := os.ReadDir(i.CRIUDir()); err != nil || len(entries) < 10 {
		t.Errorf("%s: CRIU's files: %v, %v", i.Ref(), entries, err)
	}
}
