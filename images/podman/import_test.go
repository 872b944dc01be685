package podman

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crucible/images"
	"crucible/images/archive"
	"crucible/images/inspect/criufile"
	"crucible/proto/imagepb"
)

// fixture is the tar stream of what Podman 4.3.1 exported of testdata/count.c.txt.
func fixture(t testing.TB) []byte {
	t.Helper()
	f, err := os.Open("testdata/counter.tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := archive.Open(f, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !Is(s.First()) {
		t.Errorf("%q is not known", s.First())
	}
	b, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIs(t *testing.T) {
	for name, want := range map[string]bool{"artifacts/": true, "./": true, "./config.dump": true, "checkpoint/core-1.img": true, "web/": false,
		"web@1.sig": false, "web/1/manifest.pb": false, "": false} {
		if Is(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestImport(t *testing.T) {
	s := images.Store{Dir: filepath.Join(t.TempDir(), "images")}
	x, err := Import(t.Context(), s, bytes.NewReader(fixture(t)), ImportOptions{Rootfs: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if x.Image.Ref() != "counter@1" || !slices.Equal(x.Notes, []string{"it does not see its cgroups in /sys/fs/cgroup"}) {
		t.Errorf("%s, %q", x.Image.Ref(), x.Notes)
	}
	if err := x.Image.Verify(t.Context(), images.VerifyOptions{}); err != nil {
		t.Error(err)
	}
	var mounts imagepb.Mounts
	if err := x.Image.Get(images.Mounts, &mounts); err != nil {
		t.Fatal(err)
	}
	external := map[string]bool{}
	for _, m := range mounts.Mounts {
		if strings.HasPrefix(m.Point, "/sys/fs/cgroup") || m.Point == "/etc/hosts" || m.Point == "/run/.containerenv" {
			t.Errorf("%s is there", m.Point)
		}
		external[m.Point] = m.Origin == imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL
	}
	for point, want := range map[string]bool{"/": false, "/dev": true, "/dev/shm": true, "/proc": false, "/sys": true, "/proc/keys": true} {
		if is, there := external[point]; !there || is != want {
			t.Errorf("%s: there %v, external %v", point, there, is)
		}
	}
	testCRIU(t, x.Image.CRIUDir())
}

// testCRIU says whether CRIU's files are as those of our own checkpoints.
func testCRIU(t *testing.T, dir string) {
	type ids struct {
		Net uint32 `criu:"net_ns_id"`
	}
	type inventory struct {
		Root ids `criu:"root_ids"`
	}
	own, err := criufile.Load[ids](dir + "/ids-1.img")
	host, err2 := criufile.Load[inventory](dir + "/inventory.img")
	if err != nil || err2 != nil || own[0].Net != host[0].Root.Net {
		t.Errorf("network namespace %v, CRIU's %v; %v, %v", own, host, err, err2)
	}
	type fd struct {
		FD   uint32 `criu:"fd"`
		Type string `criu:"type"`
	}
	fds, err := criufile.Load[fd](dir + "/fdinfo-2.img")
	want := []fd{{0, "REG"}, {1, "FIFO"}, {2, "FIFO"}}
	if err != nil || !slices.Equal(fds, want) {
		t.Errorf("descriptors %v, %v, want %v", fds, err, want)
	}
}

// repack changes the entries of the fixture.
func repack(t testing.TB, change func(h *tar.Header, data []byte) []byte, more ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(fixture(t))), tar.NewWriter(&b)
	put := func(h *tar.Header, data []byte) {
		h.Size = int64(len(data))
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		put(h, change(h, data))
	}
	for _, h := range more {
		put(h, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRefused(t *testing.T) {
	same := func(_ *tar.Header, data []byte) []byte { return data }
	edit := func(name, old, new string) func(*tar.Header, []byte) []byte {
		return func(h *tar.Header, data []byte) []byte {
			if h.Name == name {
				return bytes.ReplaceAll(data, []byte(old), []byte(new))
			}
			return data
		}
	}
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"out of it":    {repack(t, same, &tar.Header{Typeflag: tar.TypeReg, Name: "../x"}), "leads out of it"},
		"absolute":     {repack(t, same, &tar.Header{Typeflag: tar.TypeReg, Name: "/etc/x"}), "leads out of it"},
		"a link":       {repack(t, same, &tar.Header{Typeflag: tar.TypeSymlink, Name: "checkpoint/x.img", Linkname: "/etc/passwd"}), "is neither a file"},
		"a hard link":  {repack(t, same, &tar.Header{Typeflag: tar.TypeLink, Name: "checkpoint/x.img", Linkname: "config.dump"}), "is neither a file"},
		"a device":     {repack(t, same, &tar.Header{Typeflag: tar.TypeBlock, Name: "checkpoint/x.img"}), "is neither a file"},
		"twice":        {repack(t, same, &tar.Header{Typeflag: tar.TypeReg, Name: "checkpoint/core-1.img"}), "comes twice"},
		"config twice": {repack(t, same, &tar.Header{Typeflag: tar.TypeReg, Name: "config.dump"}), "comes twice"},
		"no name":      {repack(t, edit("config.dump", `"name": "counter"`, `"name": "a/b"`)), "which is no name here"},
		"no JSON":      {repack(t, edit("spec.dump", `{`, `[`)), "spec.dump cannot be read"},
		"a terminal":   {repack(t, edit("spec.dump", `"process": {`, `"process": {"terminal":true,`)), "has a terminal"},
		"no spec": {repack(t, func(h *tar.Header, data []byte) []byte {
			h.Name = strings.ReplaceAll(h.Name, "spec.dump", "other")
			return data
		}), "has no spec.dump"},
		"deleted, above": {repack(t, edit("deleted.files", "/etc/gone", "/..")), "leads out"},
		"cut":            {fixture(t)[:30000], "cut off"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			s := images.Store{Dir: filepath.Join(t.TempDir(), "images")}
			_, err := Import(t.Context(), s, bytes.NewReader(c.b), ImportOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if all, err := s.List(""); len(all) > 0 || err != nil {
				t.Errorf("left %d images, %v", len(all), err)
			}
			if begun, _ := filepath.Glob(s.Dir + "/.drafts/*"); len(begun) > 0 {
				t.Errorf("left behind: %v", begun)
			}
		})
	}
}

func FuzzImport(f *testing.F) {
	f.Add(fixture(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := images.Store{Dir: filepath.Join(t.TempDir(), "images")}
		x, err := Import(t.Context(), s, bytes.NewReader(b), ImportOptions{Name: "web"})
		if err == nil {
			err = x.Image.Verify(t.Context(), images.VerifyOptions{})
		} else if begun, _ := filepath.Glob(s.Dir + "/.drafts/*"); len(begun) > 0 {
			t.Errorf("left behind: %v", begun)
		}
		if errors.Is(err, images.Damaged) {
			t.Error(err)
		}
	})
}
