package restore_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crucible/container/testenv"
	"crucible/images"
	"crucible/proto/imagepb"
)

// counted is what the program of the stored images (images/testdata/tick.s) last
// wrote to its file.
func counted(b *box) (uint64, error) {
	data, err := os.ReadFile(b.path("/count"))
	if err == nil && len(data) != 8 {
		err = fmt.Errorf("/count holds %x", data)
	}
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(data), nil
}

// An image of each edition is restored on whatever machine this is: it brings
// its program with it, and needs nothing of the host but directories.
func TestStoredFormats(t *testing.T) {
	testenv.Root(t)
	dirs, err := filepath.Glob("../images/testdata/format-*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("stored images: %v, %v", dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { restoreStored(t, dir) })
	}
}

func restoreStored(t *testing.T, dir string) {
	e := &env{t: t, bin: testenv.Binary(t), root: testenv.StateRoot(t)}
	b := &box{env: e, name: testenv.Name(t)}
	home := filepath.Join(e.root, "images", b.name)
	if err := os.CopyFS(home, os.DirFS(filepath.Join(dir, "tick"))); err != nil {
		t.Fatal(err)
	}
	image, err := images.Store{Dir: filepath.Dir(home)}.Open(b.name)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := sameState(image.Manifest.GetWriter()); err != nil || !same {
		testenv.Lacks(t, "registers like those in the stored image", func() (bool, error) { return sameState(image.Manifest.GetWriter()) })
	}
	b.willDelete()
	b.restore()
	first := uint64(0)
	eventually(t, "count", func() (err error) {
		if first, err = counted(b); err == nil && first < 20 {
			return fmt.Errorf("%d", first)
		}
		return err
	})
	if first > 100_000 { // it counts from the memory that the image has
		t.Errorf("counts from %d on", first)
	}
	eventually(t, "count further", func() error {
		if now, err := counted(b); err != nil || now < first+3 {
			return fmt.Errorf("%d, then %d: %v", first, now, err)
		}
		return nil
	})
	if got := strings.TrimSpace(b.exec("cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname")); got != filepath.Base(dir)+"\ntestdata" {
		t.Errorf("host and domain name are %q", got)
	}
}

// sameState: CRIU restores the registers of a processor that has the same kinds
// of them (criu/arch/x86/crtools.c, valid_xsave_frame).
func sameState(w *imagepb.Writer) (bool, error) {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false, err
	}
	_, rest, _ := strings.Cut(string(data), "\nflags")
	line, _, _ := strings.Cut(rest, "\n")
	have := strings.Fields(line)
	for _, flag := range []string{"xsave", "avx", "mpx", "avx512f", "pku", "amx_tile"} {
		if slices.Contains(have, flag) != slices.Contains(w.CpuFlags, flag) {
			return false, nil
		}
	}
	return true, nil
}
