package edit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencontainers/runtime-spec/specs-go"

	"crucible/container/network"
	"crucible/images"
	"crucible/images/inspect/memory"
	"crucible/proto/imagepb"
)

// stored is the store with the image that testdata keeps.
func stored(t testing.TB) (images.Store, *images.Image) {
	t.Helper()
	s := images.Store{Dir: t.TempDir()}
	if err := os.CopyFS(s.Dir, os.DirFS("../testdata/format-1")); err != nil {
		t.Fatal(err)
	}
	return s, open(t, s, "tick@1")
}

func open(t testing.TB, s images.Store, ref string) *images.Image {
	t.Helper()
	i, err := s.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newEdit(t testing.TB, i *images.Image, o Options) *Edit {
	t.Helper()
	e, err := New(i, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// everything is a change of each kind that the stored image can have.
func everything(limit int64) Options {
	return Options{
		Hostname: "another-name", Env: []string{"FORMAT=2", "NEW=x"}, Volumes: []Volume{{"/mnt", "/etc"}},
		Limits: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}},
	}
}

func TestEdit(t *testing.T) {
	s, i := stored(t)
	before, err := os.ReadFile(filepath.Join(i.Dir(), images.Manifest))
	if err != nil {
		t.Fatal(err)
	}
	e := newEdit(t, i, everything(64<<20))
	var text []string
	for _, c := range e.Changes() {
		text = append(text, c.String())
	}
	got := strings.Join(text, "\n")
	const want = `bundle.json: hostname: format-1 -> another-name
bundle.json: process.env FORMAT: 1 -> 2
bundle.json: process.env NEW: none -> x
bundle.json: mounts[3] (at /mnt) source: /usr -> /etc
bundle.json: linux.resources.memory: none -> {"limit":67108864}
criu/utsns-11.img: nodename: format-1 -> another-name
memory of process 1: environment FORMAT: 1 -> 2
namespaces.pb: uts hostname: format-1 -> another-name
namespaces.pb: cgroup memory.limit_in_bytes: none -> 67108864`
	if got != want {
		t.Errorf("changes are\n%s\nwant\n%s", got, want)
	}
	if numbers, err := s.Numbers("tick"); err != nil || len(numbers) != 1 {
		t.Fatalf("written before it was asked for: %v, %v", numbers, err)
	}
	made, err := e.Write(t.Context(), WriteOptions{Command: []string{"crucible", "image", "edit"}})
	if err != nil {
		t.Fatal(err)
	}
	if made.Ref() != "tick@2" || made.Manifest.GetEditedFrom().GetRef() != "tick@1" || strings.Join(made.Manifest.Edits, "\n") != want {
		t.Errorf("%s is edited from %v by %q", made.Ref(), made.Manifest.EditedFrom, made.Manifest.Edits)
	}
	for _, ref := range []string{"tick@1", "tick@2"} {
		if err := open(t, s, ref).Verify(t.Context(), images.VerifyOptions{}); err != nil {
			t.Errorf("verify %s: %v", ref, err)
		}
	}
	if after, err := os.ReadFile(filepath.Join(i.Dir(), images.Manifest)); err != nil || !bytes.Equal(before, after) {
		t.Error("the image is not what it was", err)
	}
	checkEdited(t, made)
	shared(t, i, made)
}

func checkEdited(t *testing.T, made *images.Image) {
	t.Helper()
	spec, _, err := made.Spec()
	if err != nil || spec.Hostname != "another-name" || spec.Mounts[3].Source != "/etc" || *spec.Linux.Resources.Memory.Limit != 64<<20 ||
		strings.Join(spec.Process.Env, " ") != "PATH=/usr/bin:/bin FORMAT=2 NEW=x" || spec.Domainname != "testdata" {
		t.Errorf("bundle: %+v, %v", spec, err)
	}
	uts, err := os.ReadFile(filepath.Join(made.CRIUDir(), "utsns-11.img"))
	if err != nil || !bytes.Contains(uts, []byte("\x0a\x0canother-name\x12\x08testdata")) {
		t.Errorf("utsns: %q, %v", uts, err)
	}
	m, err := memory.Open(made)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	space, err := m.Process(1)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 0, 1<<20)
	for _, r := range space.Runs() {
		b := make([]byte, r.Pages*m.PageSize())
		if _, err := space.ReadAt(b, int64(r.Addr)); err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if !bytes.Contains(all, []byte("\x00FORMAT=2\x00")) || bytes.Contains(all, []byte("FORMAT=1\x00")) {
		t.Error("the environment in the memory is not edited")
	}
}

// shared: what is the same is on the disk once.
func shared(t *testing.T, a, b *images.Image) {
	t.Helper()
	for file, same := range map[string]bool{"criu/core-1.img": true, "filesystem/root.tar": true, "criu/pages-1.img": false, "bundle.json": false} {
		x, err1 := os.Stat(filepath.Join(a.Dir(), file))
		y, err2 := os.Stat(filepath.Join(b.Dir(), file))
		if err := errors.Join(err1, err2); err != nil || os.SameFile(x, y) != same {
			t.Errorf("%s: the same %v, want %v; %v", file, os.SameFile(x, y), same, err)
		}
	}
}

func TestEditTwice(t *testing.T) {
	s, i := stored(t)
	for _, step := range []struct{ from, name string }{{"tick@1", "b"}, {"tick@2", "format-1"}} {
		e := newEdit(t, open(t, s, step.from), Options{Hostname: step.name})
		if _, err := e.Write(t.Context(), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
	third := open(t, s, "tick@3")
	for _, file := range []string{"criu/utsns-11.img", images.Namespaces} {
		a, err1 := os.ReadFile(filepath.Join(i.Dir(), file))
		b, err2 := os.ReadFile(filepath.Join(third.Dir(), file))
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: there and back is not the same", file)
		}
	}
	if err := s.Remove(t.Context(), "tick@1"); err != nil {
		t.Fatal(err)
	}
	if err := third.Verify(t.Context(), images.VerifyOptions{}); err != nil {
		t.Errorf("needs the image that it was made from: %v", err)
	}
}

// A packed image is edited like any other, its environment included.
func TestEditPacked(t *testing.T) {
	s, i := stored(t)
	if _, err := i.Pack(t.Context(), images.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(i.CRIUDir(), "pages-1.img")); err == nil {
		t.Fatal("it is not packed")
	}
	for n, o := range []Options{{Hostname: "another-name"}, {Env: []string{"FORMAT=2"}}} {
		made, err := newEdit(t, i, o).Write(t.Context(), WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := open(t, s, made.Ref()).Verify(t.Context(), images.VerifyOptions{}); err != nil || made.Number != n+2 {
			t.Errorf("verify %s: %v", made.Ref(), err)
		}
	}
}

// A fingerprint is of the container as it was.
func TestFingerprintIsLeftOut(t *testing.T) {
	s, i := stored(t)
	d, err := s.Draft(t.Context(), "tick")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(d.Take(t.Context(), i, func(string) bool { return false }), d.Put(images.Fingerprint, &imagepb.Fingerprint{Form: 1}))
	if err != nil {
		t.Fatal(err)
	}
	with, err := d.Commit(t.Context(), i.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	e := newEdit(t, with, Options{Hostname: "b"})
	made, err := e.Write(t.Context(), WriteOptions{})
	if err != nil || len(e.Notes()) != 1 || !strings.Contains(e.Notes()[0], "fingerprint") {
		t.Fatal(e.Notes(), err)
	}
	if err := made.Get(images.Fingerprint, &imagepb.Fingerprint{}); !errors.Is(err, images.Damaged) {
		t.Errorf("fingerprint: %v", err)
	}
}

// An incremental image's edited one builds on the same parent.
func TestEditIncremental(t *testing.T) {
	s, i := stored(t)
	d, err := s.Draft(t.Context(), "tick")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Take(t.Context(), i, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	link, err := d.BuildOn(i)
	if err == nil {
		err = os.Symlink(link, filepath.Join(d.CRIUDir(), images.ParentLink))
	}
	if err != nil {
		t.Fatal(err)
	}
	child, err := d.Commit(t.Context(), i.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	e := newEdit(t, child, Options{Hostname: "b"})
	made, err := e.Write(t.Context(), WriteOptions{})
	if err != nil || made.ParentRef() != "tick@1" || made.Manifest.EditedFrom.Ref != "tick@2" {
		t.Fatalf("%v, %v", made, err)
	}
	if to, err := os.Readlink(filepath.Join(made.CRIUDir(), images.ParentLink)); err != nil || to != link {
		t.Errorf("criu/parent leads to %q, %v", to, err)
	}
	if err := made.Verify(t.Context(), images.VerifyOptions{}); err != nil {
		t.Error(err)
	}
	e.Close()
	if err := s.Remove(t.Context(), "tick@2"); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), "tick@1"); !errors.Is(err, images.InUse) || !strings.Contains(err.Error(), "tick@3 builds on it") {
		t.Errorf("remove its parent: %v", err)
	}
}

// An image of a pre-dump holds memory only.
func TestEditPreDump(t *testing.T) {
	s := images.Store{Dir: t.TempDir()}
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{Traits: &imagepb.Traits{PreDump: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(i, Options{Hostname: "b"}); !errors.Is(err, images.PreDump) {
		t.Errorf("edit: %v", err)
	}
}

func TestRefused(t *testing.T) {
	address := func(s string) Options {
		p, err := network.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return Options{Address: p}
	}
	for name, c := range map[string]struct {
		o    Options
		text string
	}{
		"long name":       {Options{Hostname: strings.Repeat("x", 65)}, "at most 64"},
		"space in a name": {Options{Hostname: "a b"}, "printable"},
		"no bridge":       {address("10.0.0.1/8"), "is on no bridge"},
		"close alone":     {Options{TCPClose: true}, "another address"},
		"no variable":     {Options{Env: []string{"FORMAT"}}, "KEY=VALUE"},
		"no key":          {Options{Env: []string{"=1"}}, "KEY=VALUE"},
		"no such volume":  {Options{Volumes: []Volume{{"/none", "/etc"}}}, "no such one"},
		"relative path":   {Options{Volumes: []Volume{{"/mnt", "etc"}}}, "absolute"},
		"unclean path":    {Options{Volumes: []Volume{{"/mnt", "/etc/../x"}}}, "clean"},
	} {
		_, i := stored(t)
		e, err := New(i, c.o)
		var is *OptionError
		if !errors.As(err, &is) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %v", name, e, err)
		}
	}
	s, i := stored(t)
	e := newEdit(t, i, Options{Hostname: "format-1", Env: []string{"FORMAT=1"}, Volumes: []Volume{{"/usr", "/usr"}}})
	if _, err := e.Write(t.Context(), WriteOptions{}); err == nil || len(e.Changes()) > 0 {
		t.Errorf("nothing to change: %v, %v", e.Changes(), err)
	}
	if numbers, _ := s.Numbers("tick"); len(numbers) != 1 {
		t.Errorf("images %v", numbers)
	}
}

// What does not fit stays, and is said.
func TestLongerVariable(t *testing.T) {
	_, i := stored(t)
	e := newEdit(t, i, Options{Env: []string{"FORMAT=22"}})
	if len(e.Notes()) != 1 || !strings.Contains(e.Notes()[0], `process 1: FORMAT stays "1": the new value has 1 bytes more`) || len(e.Changes()) != 1 {
		t.Errorf("%v %v", e.Notes(), e.Changes())
	}
}

// A damaged image does not become a whole one.
func TestDamagedSource(t *testing.T) {
	s, i := stored(t)
	path := filepath.Join(i.CRIUDir(), "core-1.img")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = newEdit(t, i, Options{Hostname: "b"}).Write(t.Context(), WriteOptions{})
	if !errors.Is(err, images.Damaged) || !strings.Contains(err.Error(), "tick@1: criu/core-1.img has changed") {
		t.Errorf("edit of a damaged image: %v", err)
	}
	if numbers, _ := s.Numbers("tick"); len(numbers) != 1 {
		t.Errorf("images %v", numbers)
	}
}

// What a newer crucible wrote is in the edited image, too.
func TestEditKeepsUnknown(t *testing.T) {
	s, i := stored(t)
	strange := protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 5)
	d, err := s.Draft(t.Context(), "tick")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Take(t.Context(), i, func(f string) bool { return f == images.Namespaces || f == images.Bundle }); err != nil {
		t.Fatal(err)
	}
	var spaces imagepb.Namespaces
	if err := i.Get(images.Namespaces, &spaces); err != nil {
		t.Fatal(err)
	}
	for _, n := range spaces.Namespaces {
		n.ProtoReflect().SetUnknown(strange)
	}
	_, data, err := i.Spec()
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"hostname"`), []byte(`"future":{"n":12345678901234567890},"hostname"`), 1)
	i.Manifest.ProtoReflect().SetUnknown(strange)
	if err := errors.Join(d.Put(images.Namespaces, &spaces), d.Write(images.Bundle, data)); err != nil {
		t.Fatal(err)
	}
	second, err := d.Commit(t.Context(), i.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	made, err := newEdit(t, second, Options{Hostname: "b"}).Write(t.Context(), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := made.Unknown()
	if err != nil || len(unknown) != 2 || unknown[0].String() != "manifest.pb field 999" || unknown[1].Times != 8 {
		t.Errorf("unknown: %v, %v", unknown, err)
	}
	if _, data, err := made.Spec(); err != nil || !bytes.Contains(data, []byte(`"future":{"n":12345678901234567890}`)) {
		t.Errorf("bundle: %s, %v", data, err)
	}
}
