package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"crucible/images"
	"crucible/images/filesystem"
	"crucible/proto/imagepb"
)

// fakeImage commits an image that no checkpoint wrote, and that builds on
// another one if there is a parent.
func fakeImage(t *testing.T, s images.Store, name string, parent ...*images.Image) *images.Image {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := s.Draft(t.Context(), name)
	check(err)
	for _, p := range parent {
		link, err := d.BuildOn(p)
		check(err)
		check(os.Symlink(link, filepath.Join(d.CRIUDir(), images.ParentLink)))
	}
	check(d.Put(images.Processes, &imagepb.Processes{Processes: []*imagepb.Process{
		{Pid: 1, HostPid: 4242, Comm: "python3", Args: []string{"python3", "-c", "evil\x1b[2J"}, Threads: 3, ResidentBytes: 5 << 20}}}))
	check(d.Put(images.Namespaces, &imagepb.Namespaces{Namespaces: []*imagepb.Namespace{
		{Kind: imagepb.NamespaceKind_NAMESPACE_KIND_UTS, Inode: 4026531838, Detail: &imagepb.Namespace_Uts{Uts: &imagepb.UTSNamespace{Hostname: "web"}}},
		{Kind: imagepb.NamespaceKind_NAMESPACE_KIND_CGROUP, Host: true}}}))
	check(d.Put(images.Mounts, &imagepb.Mounts{Mounts: []*imagepb.Mount{{Point: "/tmp", Type: "tmpfs", Source: "tmpfs", Origin: imagepb.MountOrigin_MOUNT_ORIGIN_MADE_BY_US}}}))
	check(d.Put(images.Timeline, &imagepb.Timeline{Phases: []*imagepb.Phase{{Name: "freeze", StartNs: 2e6, DurationNs: 1e6, Frozen: true}}}))
	upper := t.TempDir()
	check(os.WriteFile(filepath.Join(upper, "new"), []byte("x"), 0o600))
	f, err := d.Create("filesystem/root.tar")
	check(err)
	_, err = filesystem.Save(t.Context(), upper, f, filesystem.SaveOptions{Kind: imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER})
	check(err)
	check(f.Close())
	check(d.Put(images.Filesystem, &imagepb.Filesystem{Archives: []*imagepb.Archive{
		{Path: "filesystem/root.tar", Kind: imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER, MountPoint: "/"}}}))
	i, err := d.Commit(t.Context(), &imagepb.Manifest{CreatedUnixNs: 1e18, FrozenNs: 12_340_000, Traits: &imagepb.Traits{Processes: 1, Terminal: true},
		Writer: &imagepb.Writer{KernelRelease: "6.18.0", Criu: "4.2.1", Machine: "x86_64"}})
	check(err)
	return i
}

// TestImageChain shows what the commands say of images that build on each other.
func TestImageChain(t *testing.T) {
	root := t.TempDir()
	store := images.Store{Dir: filepath.Join(root, "images")}
	first := fakeImage(t, store, "web")
	d, err := store.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.BuildOn(first); err != nil {
		t.Fatal(err)
	}
	if err := d.Put(images.Timeline, &imagepb.Timeline{}); err != nil {
		t.Fatal(err)
	}
	second, err := d.Commit(t.Context(), &imagepb.Manifest{Traits: &imagepb.Traits{PreDump: true}, Tracking: &imagepb.Tracking{InitPid: 7}})
	if err != nil {
		t.Fatal(err)
	}
	fakeImage(t, store, "web", second)
	fakeImage(t, store, "web", second)
	damage := func() {
		t.Helper()
		if err := os.WriteFile(filepath.Join(first.CRIUDir(), "extra"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runImageSteps(t, root, []imageStep{
		{args: "list", out: []string{"BUILDS ON", "web@1", " - ", "python3", "web@2", "web@1", "(pre-dump: memory only)", "web@3", "web@2", "python3"}},
		{args: "list --json", out: []string{`"image": "web@2"`, `"preDump": true`, `"parent": "web@1"`, `"image": "web@3"`, `"parent": "web@2"`}},
		{args: "show web@2", out: []string{"builds on", "web@1", "needed by", "web@3, web@4", "tracked since", "memory only (pre-dump): it cannot be restored"}},
		{args: "show --json web@2", out: []string{`"children": [`, `"web@3"`, `"web@4"`, `"tracking"`, `"preDump": true`}},
		{args: "verify web@3", out: []string{"web@3: intact"}},
		{args: "verify web@3", before: damage, code: 6, out: []string{"web@3: image web@1: criu/extra does not belong to it"},
			err: "image web@3: is damaged: 1 of its files, in what it builds on, differ"},
		{args: "rm web@2", code: 6, err: "image web@2: web@3, web@4 build on it"},
		{args: "rm --all web", out: []string{"web@4", "web@3", "web@2", "web@1"}},
	})
}

// What the commands say of the images of all editions is what they have always
// said.
func TestStoredImages(t *testing.T) {
	stored, err := filepath.Glob("../../images/testdata/format-*")
	if err != nil || len(stored) == 0 {
		t.Fatal(stored, err)
	}
	for _, dir := range stored {
		root := t.TempDir()
		home := filepath.Join(root, "images")
		if err := os.CopyFS(home, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		runImageSteps(t, root, []imageStep{
			{args: "list", out: []string{"tick@1", " 1 ", "/tick"}},
			{args: "show tick", out: []string{"tick@1", "CRIU 4.2.1", "/tick", "host name " + filepath.Base(dir), "/mnt", "external", "A /tick", "freeze"}},
			{args: "verify tick", out: []string{"tick@1: intact (24 files"}},
		})
		out, _, _ := crucible(t, root, "image", "show", "--json", "tick")
		data, err := os.ReadFile(filepath.Join(dir, "shown.json"))
		var got, want map[string]any
		if err = errors.Join(err, json.Unmarshal(data, &want), json.Unmarshal([]byte(strings.ReplaceAll(out, home, "/images")), &got)); err != nil {
			t.Fatal(err)
		}
		for _, text := range unsaid(want, got, "") {
			t.Errorf("%s: image show --json: %s", dir, text)
		}
	}
}

// unsaid compares what was said with what is said: more may be, nothing else.
func unsaid(want, got any, at string) (texts []string) {
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for key, value := range w {
			texts = append(texts, unsaid(value, g[key], at+"."+key)...)
		}
		return texts
	case []any:
		g, _ := got.([]any)
		if len(g) != len(w) {
			return []string{fmt.Sprintf("%s has %d elements, and had %d", at, len(g), len(w))}
		}
		for n, value := range w {
			texts = append(texts, unsaid(value, g[n], fmt.Sprintf("%s[%d]", at, n))...)
		}
		return texts
	}
	if want != got {
		return []string{fmt.Sprintf("%s is %v, and was %v", at, got, want)}
	}
	return nil
}

// What could not be recorded is said.
func TestImageIncomplete(t *testing.T) {
	root := t.TempDir()
	store := images.Store{Dir: filepath.Join(root, "images")}
	first := fakeImage(t, store, "web")
	d, err := store.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(d.Take(t.Context(), first, func(file string) bool { return file == images.Processes }),
		d.Put(images.Processes, &imagepb.Processes{Incomplete: "core-1.img is cut off"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), first.Manifest); err != nil {
		t.Fatal(err)
	}
	runImageSteps(t, root, []imageStep{
		{args: "show web@2", out: []string{"incomplete", "core-1.img is cut off"}},
		{args: "show --json web@2", out: []string{`"incomplete": "core-1.img is cut off"`}},
	})
}

// What a newer crucible wrote is named, not dropped.
func TestImageUnknown(t *testing.T) {
	root := t.TempDir()
	store := images.Store{Dir: filepath.Join(root, "images")}
	future := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 7)
	d, err := store.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	line := &imagepb.Timeline{Phases: []*imagepb.Phase{{Name: "a"}, {Name: "b"}}}
	for _, p := range line.Phases {
		p.ProtoReflect().SetUnknown(future)
	}
	m := &imagepb.Manifest{Traits: &imagepb.Traits{PreDump: true}}
	m.ProtoReflect().SetUnknown(future)
	if err := d.Put(images.Timeline, line); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	const words = "manifest.pb field 99, timeline.pb field 99 of phases (2 times)"
	runImageSteps(t, root, []imageStep{
		{args: "show web", out: []string{"unknown", words}},
		{args: "show --json web", out: []string{`"unknown": [`, `"field": 99`, `"in": "phases"`, `"times": 2`}},
		{args: "verify web", out: []string{"web@1: intact", "web@1: unknown to this crucible: " + words}},
		{args: "verify --json web", out: []string{`"intact": true`, `"file": "timeline.pb"`}},
	})
}

// crucible runs a command in this process and returns what it wrote.
func crucible(t *testing.T, root string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	a := &app{stdin: open("in"), stdout: open("out"), stderr: open("err")}
	code = a.run(context.Background(), append([]string{"--root", root}, args...))
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return read("out"), read("err"), code
}

func TestImageCommands(t *testing.T) {
	root := t.TempDir()
	store := images.Store{Dir: filepath.Join(root, "images")}
	fakeImage(t, store, "web")
	fakeImage(t, store, "web")
	fakeImage(t, store, "db")
	page := filepath.Join(store.Dir, "web", "2", images.Mounts)
	damage := func() {
		t.Helper()
		if err := os.Remove(page); err != nil {
			t.Fatal(err)
		}
	}
	runImageSteps(t, root, []imageStep{
		{args: "list", out: []string{"IMAGE", "db@1", "12.3 ms", "6.18.0", "python3 -c evil?[2J", "web@1", "web@2"}},
		{args: "list none"},
		{args: "list --json web", out: []string{`"image": "web@1"`, `"frozenNs": 12340000`, `"image": "web@2"`}},
		{args: "list ../x", code: 2, err: "must start with a letter or a digit"},
		{args: "show web", out: []string{"web@2", "CRIU 4.2.1", "a terminal", "4242", "5.0 MiB", "uts", "host name web", "the host's",
			"/tmp", "made by us", "A /new", "freeze", "2.0 ms", "1.0 ms", "yes"}},
		{args: "show --json web@1", out: []string{`"changes": [`, `"A /new"`, `"digest": "`, `"kind": "uts"`, `"phases"`}},
		{args: "show web@9", code: 3, err: "the newest is web@2"},
		{args: "show none", code: 3, err: "there is no image of that name"},
		{args: "verify web@1 db", out: []string{"web@1: intact (6 files, ", "db@1: intact"}},
		{args: "verify web", before: damage, code: 6, out: []string{"web@2: mounts.pb is missing"}, err: "image web@2: is damaged: 1 of its files differ"},
		{args: "verify --json web", code: 6, out: []string{`"intact": false`, `"mounts.pb is missing"`}, err: `"exitCode":6`},
		{args: "verify", code: 2, err: "expected the name of an image"},
		{args: "rm web", code: 2, err: "say which one"},
		{args: "rm --all web@1", code: 2, err: "without @N"},
		{args: "rm web@7", code: 3, err: "the newest is web@2"},
		{args: "rm --json db@1", out: []string{`[`, `"image": "db@1"`, `"status": "removed"`}},
		{args: "rm --all web", out: []string{"web@2", "web@1"}},
		{args: "rm --all web", code: 3, err: "there is no image of that name"},
		{args: "list", out: []string{"IMAGE"}},
	})
}

// imageStep is a command of `crucible image`, and what it must come to.
type imageStep struct {
	args   string
	code   int
	out    []string // parts of what is printed, in order
	err    string
	before func()
}

func runImageSteps(t *testing.T, root string, steps []imageStep) {
	t.Helper()
	for _, step := range steps {
		if step.before != nil {
			step.before()
		}
		out, err, code := crucible(t, root, append([]string{"image"}, strings.Fields(step.args)...)...)
		if code != step.code || !strings.Contains(err, step.err) || step.err == "" && err != "" {
			t.Errorf("image %s: exit code %d, want %d; error %q, want %q", step.args, code, step.code, err, step.err)
		}
		rest := out
		for _, part := range step.out {
			_, after, found := strings.Cut(rest, part)
			if !found {
				t.Errorf("image %s: no %q, or not there, in\n%s", step.args, part, out)
				break
			}
			rest = after
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("image %s: prints control characters: %q", step.args, out)
		}
		if strings.Contains(step.args, "--json") && !json.Valid([]byte(out)) {
			t.Errorf("image %s: not JSON:\n%s", step.args, out)
		}
	}
}
