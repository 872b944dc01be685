package processes

import (
	"os"
	"path/filepath"
	"testing"

	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// One of CRIU's files is anything at all, the others are as they were: nothing
// panics, and what is read can be written.
func FuzzComplete(f *testing.F) {
	from := stored(f).CRIUDir()
	files := []string{"core-1.img", "files.img", "mm-1.img", "fdinfo-2.img", "fs-1.img", "ids-1.img", "pstree.img", "cgroup.img", "filelocks.img", "memfd.img", "stats-dump"}
	for n, file := range files {
		b, err := os.ReadFile(filepath.Join(from, file))
		if err == nil {
			f.Add(n, b)
		}
	}
	dir := f.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, n int, b []byte) {
		path := filepath.Join(dir, files[uint(n)%uint(len(files))])
		was, err := os.ReadFile(path)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p := &imagepb.Processes{Processes: []*imagepb.Process{{Pid: 1}}}
		failed := Complete(dir, p)
		if p.Complete != (failed == nil) {
			t.Errorf("complete %v, and %v", p.Complete, failed)
		}
		var s imagepb.Statistics
		Count(p, &s)
		_, _ = Counts(dir)
		if _, err := frame.Encode(p); err != nil {
			t.Errorf("cannot be written: %v", err)
		}
		if err == nil {
			err = os.WriteFile(path, was, 0o600)
		} else {
			err = os.Remove(path)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}
