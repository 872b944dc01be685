package safepath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

// hostileRoot is a root directory that tries to lead out of itself, beside a
// directory that nothing may ever reach.
//
//	T/outside/secret
//	T/root/dir/file
//	T/root/abs -> /dir          T/root/dangling -> /made/by/link
//	T/root/up -> ../../..       T/root/out -> T/outside
//	T/root/loop -> loop         T/root/dir/back -> ../up/dir
func hostileRoot(t testing.TB) (root *os.File, outside string) {
	t.Helper()
	top := t.TempDir()
	outside = filepath.Join(top, "outside")
	dir := filepath.Join(top, "root")
	for _, d := range []string{outside, dir, dir + "/dir"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{outside + "/secret", dir + "/dir/file"} {
		if err := os.WriteFile(f, []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{
		"abs": "/dir", "up": "../../..", "out": outside, "loop": "loop",
		"dangling": "/made/by/link", "dir/back": "../up/dir", "filelink": "dir/file",
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, outside
}

// where asks the kernel what a descriptor is, seen from the root.
func where(t testing.TB, root, f *os.File) string {
	t.Helper()
	at, err := os.Readlink(Path(f))
	if err != nil {
		t.Fatal(err)
	}
	rootAt, err := os.Readlink(Path(root))
	if err != nil {
		t.Fatal(err)
	}
	if at == rootAt {
		return "/"
	}
	rel, ok := strings.CutPrefix(at, rootAt+"/")
	if !ok {
		t.Fatalf("%s is outside of %s", at, rootAt)
	}
	return "/" + rel
}

var resolutions = []struct {
	path string
	want string
	err  error
}{
	{path: "", want: "/"},
	{path: "/", want: "/"},
	{path: "..", want: "/"},
	{path: "../../dir", want: "/dir"},
	{path: "/dir/file", want: "/dir/file"},
	{path: "dir//./file", want: "/dir/file"},
	{path: "abs/file", want: "/dir/file"},
	{path: "filelink", want: "/dir/file"},
	{path: "up", want: "/"},
	{path: "up/dir", want: "/dir"},
	{path: "dir/back/file", want: "/dir/file"},
	{path: "abs/../dir", want: "/dir"},
	{path: "dir/", want: "/dir"},
	{path: "dir/.", want: "/dir"},
	{path: "out", err: unix.ENOENT},
	{path: "out/secret", err: unix.ENOENT},
	{path: "dangling", err: unix.ENOENT},
	{path: "loop", err: unix.ELOOP},
	{path: "dir/file/", err: unix.ENOTDIR},
	{path: "dir/file/..", err: unix.ENOTDIR},
	{path: "dir/file/x", err: unix.ENOTDIR},
	{path: "filelink/../..", err: unix.ENOTDIR},
	{path: "dir/missing", err: unix.ENOENT},
}

// The kernel and our own walk must agree about every path.
func TestOpen(t *testing.T) {
	root, _ := hostileRoot(t)
	resolvers := map[string]func(*os.File, string) (*os.File, error){
		"openat2": open,
		"walk": func(root *os.File, name string) (*os.File, error) {
			return walk(root, name, missing{})
		},
	}
	for name, resolve := range resolvers {
		for _, tc := range resolutions {
			t.Run(name+":"+tc.path, func(t *testing.T) {
				f, err := resolve(root, tc.path)
				if !errors.Is(err, tc.err) {
					t.Fatalf("error %v, want %v", err, tc.err)
				}
				if err != nil {
					return
				}
				defer f.Close()
				if got := where(t, root, f); got != tc.want {
					t.Errorf("opened %s, want %s", got, tc.want)
				}
			})
		}
	}
}

func TestOpenDir(t *testing.T) {
	for _, tc := range []struct {
		path, want string
		err        error
	}{
		{path: "a/b/c", want: "/a/b/c"},
		{path: "/dir/new", want: "/dir/new"},
		{path: "abs/new/er", want: "/dir/new/er"},
		{path: "../../made", want: "/made"},
		{path: "dangling/more", want: "/made/by/link/more"},
		{path: "dangling", want: "/made/by/link"},
		{path: "dir/file", err: unix.ENOTDIR},
		{path: "dir/file/x", err: unix.ENOTDIR},
		{path: "loop/x", err: unix.ELOOP},
	} {
		t.Run(tc.path, func(t *testing.T) {
			root, _ := hostileRoot(t)
			f, err := OpenDir(root, tc.path, 0o750)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if err != nil {
				if f != nil || !strings.Contains(err.Error(), root.Name()) {
					t.Errorf("error %q must name the root, file %v", err, f)
				}
				return
			}
			defer f.Close()
			if got := where(t, root, f); got != tc.want {
				t.Errorf("made %s, want %s", got, tc.want)
			}
		})
	}
}

// A link that names a directory outside makes the same name inside.
func TestOpenDirNeverOutside(t *testing.T) {
	root, outside := hostileRoot(t)
	f, err := OpenDir(root, "out/new", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, want := where(t, root, f), outside+"/new"; got != want {
		t.Errorf("made %s, want %s inside the root", got, want)
	}
	if _, err := os.Stat(outside + "/new"); !os.IsNotExist(err) {
		t.Errorf("a directory was made outside of the root: %v", err)
	}
}

func TestOpenFile(t *testing.T) {
	for _, tc := range []struct {
		path, want string
		err        error
	}{
		{path: "x/y/point", want: "/x/y/point"},
		{path: "dir/file", want: "/dir/file"},
		{path: "filelink", want: "/dir/file"},
		{path: "dangling", want: "/made/by/link"},
		{path: "dir", err: unix.EISDIR},
		{path: "abs", err: unix.EISDIR},
		{path: "dir/file/x", err: unix.ENOTDIR},
	} {
		t.Run(tc.path, func(t *testing.T) {
			root, _ := hostileRoot(t)
			f, err := OpenFile(root, tc.path)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if err != nil {
				return
			}
			defer f.Close()
			if got := where(t, root, f); got != tc.want {
				t.Errorf("opened %s, want %s", got, tc.want)
			}
		})
	}
}

// CVE-2021-30465: a directory of a volume that two containers share is
// exchanged with a link to the host's root while mount points are made in it.
func TestExchangedDirectory(t *testing.T) {
	root, outside := hostileRoot(t)
	at := int(root.Fd())
	if err := os.Symlink(outside, root.Name()+"/trap"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Renameat2(at, "trap", at, "dir", unix.RENAME_EXCHANGE); err != nil {
		testenv.Skip(t, "exchange two names: %v", err)
	}
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for !stop.Load() {
			if unix.Renameat2(at, "trap", at, "dir", unix.RENAME_EXCHANGE) == nil {
				n++
			}
		}
		done <- n
	}()
	for range 2000 {
		for _, open := range []func() (*os.File, error){
			func() (*os.File, error) { return OpenDir(root, "dir/sub/point", 0o755) },
			func() (*os.File, error) { return OpenFile(root, "dir/sub/file") },
			func() (*os.File, error) { return Open(root, "dir/secret") },
			func() (*os.File, error) { return walk(root, "dir/secret", missing{}) },
		} {
			f, err := open()
			if err != nil {
				continue
			}
			where(t, root, f)
			f.Close()
		}
	}
	stop.Store(true)
	if n := <-done; n == 0 {
		t.Error("nothing was exchanged")
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside holds %v, %v; want the secret alone", entries, err)
	}
}

func TestNoDescriptorLeak(t *testing.T) {
	root, _ := hostileRoot(t)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			testenv.Skip(t, "no /proc: %v", err)
		}
		return len(entries)
	}
	before := count()
	for _, tc := range resolutions {
		for _, create := range []missing{{}, {leaf: leafDir, dirPerm: 0o755}, {leaf: leafFile, dirPerm: 0o755}} {
			if f, err := walk(root, tc.path, create); err == nil {
				f.Close()
			}
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func FuzzOpen(f *testing.F) {
	for _, tc := range resolutions {
		f.Add(tc.path)
	}
	root, _ := hostileRoot(f)
	f.Fuzz(func(t *testing.T, name string) {
		a, errA := Open(root, name)
		b, errB := walk(root, name, missing{})
		if (errA == nil) != (errB == nil) {
			t.Fatalf("%q: openat2 says %v, walk says %v", name, errA, errB)
		}
		if errA != nil {
			return
		}
		defer a.Close()
		defer b.Close()
		if x, y := where(t, root, a), where(t, root, b); x != y {
			t.Errorf("%q: openat2 found %s, walk %s", name, x, y)
		}
	})
}
