package processes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"crucible/images"
	"crucible/proto/imagepb"
)

// stored is the image that images/testdata keeps.
func stored(t testing.TB) *images.Image {
	t.Helper()
	i, err := images.Store{Dir: "../../testdata/format-1"}.Open("tick@1")
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// The record of an old image is completed when it is read.
func TestRead(t *testing.T) {
	all, err := Read(stored(t))
	if err != nil || !all.Complete || all.Incomplete != "" || len(all.Processes) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	p := all.Processes[0]
	if p.Comm != "tick" || p.Cwd != "/" || p.Root != "/" || p.Umask != 0o22 || p.GetCredentials().GetNoNewPrivs() != true || p.Cgroup != "/crucible/tick" {
		t.Errorf("process is %v", p)
	}
	if len(p.Tasks) != 1 || p.Tasks[0].Tid != 1 || p.Tasks[0].Comm != "tick" || p.Tasks[0].AltstackFlags != 2 {
		t.Errorf("threads are %v", p.Tasks)
	}
	if len(p.Limits) != 16 || p.Limits[3].Resource != "stack" || p.Limits[3].Soft != 8<<20 || p.Limits[3].Hard != ^uint64(0) {
		t.Errorf("limits are %v", p.Limits)
	}
	files := map[uint32]*imagepb.OpenFile{}
	for _, f := range all.Files {
		files[f.Id] = f
	}
	var words []string
	for _, d := range p.Descriptors {
		words = append(words, files[d.File].Kind+" "+files[d.File].Path)
	}
	if got := strings.Join(words, ", "); got != "file /count, fifo /dev/crucible/stdout, fifo /dev/crucible/stderr" {
		t.Errorf("descriptors are %s", got)
	}
	words = nil
	for _, m := range p.Mappings {
		words = append(words, strings.TrimSpace(m.Kind+" "+m.Path))
	}
	if got := strings.Join(words, ", "); got != "file /tick, file /tick, vvar, vdso, stack, vsyscall" {
		t.Errorf("mappings are %s", got)
	}
	if a := p.GetAddressSpace(); a.EnvironmentEnd <= a.EnvironmentStart || a.EnvironmentStart != a.ArgumentsEnd {
		t.Errorf("address space is %v", a)
	}
}

// CRIU's files may be damaged: that is said, and nothing panics.
func TestDamaged(t *testing.T) {
	from := stored(t).CRIUDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, e.Name())
		if err := os.WriteFile(path, []byte("\x00\x01\x02\x03 garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		read := strings.Contains("core-1.img files.img fs-1.img fdinfo-2.img ids-1.img mm-1.img pstree.img cgroup.img", e.Name())
		p := &imagepb.Processes{Processes: []*imagepb.Process{{Pid: 1}}}
		if err := Complete(dir, p); (err != nil) != read || p.Complete == read {
			t.Errorf("%s: %v, complete %v", e.Name(), err, p.Complete)
		}
	}
	if err := Complete(t.TempDir(), &imagepb.Processes{Processes: []*imagepb.Process{{Pid: 1}}}); err == nil {
		t.Error("a process without a file is complete")
	}
}

// Prepare meets every message that a record can have.
func TestOneOfEach(t *testing.T) {
	want, have := map[protoreflect.FullName]bool{}, map[protoreflect.FullName]bool{}
	var can func(d protoreflect.MessageDescriptor)
	can = func(d protoreflect.MessageDescriptor) {
		if want[d.FullName()] || d.IsMapEntry() {
			return
		}
		want[d.FullName()] = true
		for n := range d.Fields().Len() {
			if m := d.Fields().Get(n).Message(); m != nil {
				can(m)
			}
		}
	}
	var has func(m protoreflect.Message)
	has = func(m protoreflect.Message) {
		have[m.Descriptor().FullName()] = true
		for f, v := range m.Range {
			switch {
			case f.Message() == nil || f.IsMap():
			case f.IsList():
				for n := range v.List().Len() {
					has(v.List().Get(n).Message())
				}
			default:
				has(v.Message())
			}
		}
	}
	can((&imagepb.Processes{}).ProtoReflect().Descriptor())
	has(oneOfEach().ProtoReflect())
	for name := range want {
		if !have[name] {
			t.Errorf("%s is missing", name)
		}
	}
	if err := Prepare(); err != nil {
		t.Error(err)
	}
}

func BenchmarkComplete(b *testing.B) {
	i := stored(b)
	p := &imagepb.Processes{}
	if err := i.Get(images.Processes, p); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Complete(i.CRIUDir(), proto.CloneOf(p)); err != nil {
			b.Fatal(err)
		}
	}
}
