package archive

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crucible/container/testenv"
	"crucible/experiments/lab/kernel"
)

// usersCache is the user's own cache: the archive is asked for what is not there.
func usersCache(t *testing.T) *Archive {
	t.Helper()
	a, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	a.Progress = func(line string) { t.Log(line) }
	return a
}

// lab are the modules that the lab loads.
func lab() []string {
	return strings.Fields("unix_diag inet_diag tcp_diag udp_diag raw_diag af_packet_diag netlink_diag veth bridge tun overlay " +
		"nf_tables nft_* x_tables virtio_pci virtio_blk")
}

func skipWithoutApt(t *testing.T, err error) {
	t.Helper()
	if none := (*NoApt)(nil); errors.As(err, &none) {
		testenv.Skip(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestArchive takes some seconds for each kernel that is not in the cache.
func TestArchive(t *testing.T) {
	a := usersCache(t)
	for _, version := range []string{"6.1", "6.12"} {
		began := time.Now()
		k, err := a.Kernel(t.Context(), version)
		skipWithoutApt(t, err)
		t.Logf("%s: %v", k.Release, time.Since(began))
		image, err := kernel.Open(k.Image)
		if err != nil {
			t.Fatal(err)
		}
		if image.Release != k.Release || !strings.HasPrefix(k.Version, version+".") || !strings.Contains(image.Version, k.Version) {
			t.Errorf("asked for %s, have %+v and %+v", version, k, image)
		}
		config, err := kernel.ReadConfig(k.Config)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range kernel.Check(config) {
			if !row.OK {
				t.Errorf("%s: %+v", k.Release, row)
			}
		}
		checkModules(t, k, image, config)
		checkImage(t, k, config)
	}
}

// checkImage unpacks the kernel proper: it has no configuration in it.
func checkImage(t *testing.T, k Kernel, config kernel.Config) {
	t.Helper()
	if config["KERNEL_ZSTD"] == "y" {
		if _, err := exec.LookPath("zstd"); err != nil {
			testenv.Skip(t, "needs zstd: %v", err)
		}
	}
	if _, err := kernel.ReadConfig(k.Image); !errors.As(err, new(*kernel.NoConfig)) {
		t.Errorf("configuration in the image of %s: %v, want NoConfig", k.Release, err)
	}
}

// checkModules loads what the lab does: everything asked for, each behind what
// it needs.
func checkModules(t *testing.T, k Kernel, image *kernel.Image, config kernel.Config) {
	t.Helper()
	modules, err := kernel.OpenModules(k.Modules, image.Release)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	list, absent, err := modules.Load(lab())
	if err != nil || len(absent) > 0 {
		t.Fatalf("absent: %v; %v", absent, err)
	}
	size := 0
	var names []string
	for _, m := range list {
		size += len(m.Data)
		for _, need := range depends(t, m) {
			if !slices.Contains(names, need) && slices.ContainsFunc(list, func(m kernel.Module) bool { return m.Name == need }) {
				t.Errorf("%s: %s before %s", k.Release, m.Name, need)
			}
		}
		names = append(names, m.Name)
	}
	t.Logf("%s: %d modules, %d kB, in %v", k.Release, len(list), size>>10, time.Since(began))
	// bridge needs stp, which needs llc; the others only modules of the list.
	for _, name := range []string{"unix_diag", "tcp_diag", "llc", "stp", "bridge", "nft_ct", "nf_conntrack"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s: no %s in %v", k.Release, name, names)
		}
	}
	for option, name := range map[string]string{"VIRTIO_PCI": "virtio_pci", "VIRTIO_BLK": "virtio_blk"} {
		if (config[option] == "m") != slices.Contains(names, name) {
			t.Errorf("%s: CONFIG_%s=%s, modules %v", k.Release, option, config[option], names)
		}
	}
	if again, _, err := modules.Load(slices.Concat(lab(), names)); err != nil || len(again) != len(list) {
		t.Errorf("%s: %d modules, when asked for twice %d, %v", k.Release, len(list), len(again), err)
	}
}

// depends reads a module as modinfo(8) does, apart from the code under test.
func depends(t *testing.T, m kernel.Module) []string {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(m.Name, err)
	}
	data, err := f.Section(".modinfo").Data()
	if err != nil {
		t.Fatal(m.Name, err)
	}
	_, rest, found := bytes.Cut(append([]byte{0}, data...), []byte("\x00depends="))
	value, _, _ := bytes.Cut(rest, []byte{0})
	if !found || len(value) == 0 {
		return nil
	}
	return strings.Split(strings.ReplaceAll(string(value), "-", "_"), ",")
}

// TestArchiveCRIU takes the oldest and the newest, which are in two suites with
// different libcs, and runs them with their own libraries.
func TestArchiveCRIU(t *testing.T) {
	a := usersCache(t)
	list, err := a.List(t.Context())
	skipWithoutApt(t, err)
	list = slices.DeleteFunc(list, func(e Entry) bool { return e.Kind != CRIUKind || e.Suite == "" })
	if len(list) < 2 {
		t.Fatalf("the archive has %+v, want two", list)
	}
	for _, e := range []Entry{list[0], list[len(list)-1]} {
		began := time.Now()
		c, err := a.CRIU(t.Context(), e.Version)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s from %s: %v", c.Version, e.Suite, time.Since(began))
		loader := filepath.Join(c.Dir, "lib64/ld-linux-x86-64.so.2")
		out, err := exec.Command(loader, "--library-path", filepath.Join(c.Dir, libraries), c.Path, "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Version: "+c.Version) {
			t.Errorf("%s: %v: %s", c.Path, err, out)
		}
		out, err = exec.Command(loader, "--library-path", filepath.Join(c.Dir, libraries), "--list", c.Path).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", c.Path, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "=>") && !strings.Contains(line, c.Dir) {
				t.Errorf("%s takes a library from elsewhere: %s", c.Path, line)
			}
		}
	}
}

func TestCopyClosureOfAnIncompleteRoot(t *testing.T) {
	root := t.TempDir()
	if err := copyClosure(root, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty root: %v", err)
	}
	program, err := exec.LookPath("ls")
	if err != nil {
		t.Fatal(err)
	}
	if err := copyFile(program, filepath.Join(root, criuFile)); err != nil {
		t.Fatal(err)
	}
	if err := copyClosure(root, t.TempDir()); err == nil || !strings.Contains(err.Error(), "which none of its packages has") {
		t.Errorf("no libraries: %v", err)
	}
}
