package images

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/metrics"
	"testing"

	"google.golang.org/protobuf/proto"

	"crucible/proto/frame"
	"crucible/proto/imagepb"
)

// A reader of a message may allocate its struct for as little as two bytes of
// the file, which say that there is one and that it is empty. The largest
// struct has a few hundred bytes, and a slice that grows doubles.
const (
	allocFactor = 1024
	allocBase   = 256 << 10 // of the test's own, of a first use
)

// allocated is what this process has ever allocated, in bytes.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// leastAllocated is what a function allocates: others do so at the same time, so
// the least of three is it.
func leastAllocated(f func()) uint64 {
	least := ^uint64(0)
	for range 3 {
		before := allocated()
		f()
		least = min(least, allocated()-before)
	}
	return least
}

// framed puts fuzzed bytes into a frame, whose checksum would keep them from
// the reader.
func framed(t testing.TB, m proto.Message, payload []byte) []byte {
	t.Helper()
	b, err := frame.Encode(m.ProtoReflect().New().Interface())
	if err != nil {
		t.Fatal(err)
	}
	b = append(b[:24:24], payload...)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(payload)))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// fuzzRecord fuzzes the reader of one of our own files: nothing panics, and
// what was read is written again with all that it had.
func fuzzRecord(f *testing.F, file string) {
	stored, err := filepath.Glob("testdata/format-*/*/*/" + file)
	if err != nil || len(stored) == 0 && file != Fingerprint && file != Counts {
		f.Fatalf("stored %s: %v, %v", file, stored, err)
	}
	for _, path := range stored {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[24:len(b)-4], true)
		f.Add(b, false)
	}
	i := makeImage(f, Store{Dir: f.TempDir()}, "web", &imagepb.Manifest{})
	path := filepath.Join(i.Dir(), file)
	f.Fuzz(func(t *testing.T, b []byte, payload bool) {
		m := record(file)
		if payload {
			b = framed(t, m, b)
		}
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		took := leastAllocated(func() {
			proto.Reset(m)
			err = i.Get(file, m)
		})
		if took > uint64(len(b))*allocFactor+allocBase {
			t.Errorf("read of %d bytes allocates %d", len(b), took)
		}
		if file == Manifest {
			readManifest(t, i.store)
		}
		if err != nil {
			return
		}
		unknown := UnknownFields(file, m)
		again, err := frame.Encode(m)
		if err != nil {
			t.Fatalf("was read and cannot be written: %v", err)
		}
		n := record(file)
		if err := frame.Decode(again, n); err != nil || !proto.Equal(n, m) && len(unknown) == 0 {
			t.Errorf("reads as %v, and written as %v, %v", m, n, err)
		}
	})
}

// readManifest does what the store does with a manifest that somebody sent.
func readManifest(t *testing.T, s Store) {
	i, err := s.Open("web@1")
	if err != nil {
		return
	}
	_ = i.ParentRef()
	_, _ = i.Chain()
	_ = i.Size()
	_ = i.CheckMachine("")
	_ = i.CheckWhole()
	_, _ = i.Unknown()
	_ = i.Verify(t.Context(), VerifyOptions{Only: func(file string) bool { return file == Timeline }})
}

func FuzzManifest(f *testing.F)   { fuzzRecord(f, Manifest) }
func FuzzNamespaces(f *testing.F) { fuzzRecord(f, Namespaces) }
func FuzzMounts(f *testing.F)     { fuzzRecord(f, Mounts) }
func FuzzProcesses(f *testing.F)  { fuzzRecord(f, Processes) }
func FuzzTimeline(f *testing.F)   { fuzzRecord(f, Timeline) }
func FuzzFilesystem(f *testing.F) { fuzzRecord(f, Filesystem) }

// Of these the stored images have none to begin with.
func FuzzFingerprint(f *testing.F) { fuzzRecord(f, Fingerprint) }
func FuzzStatistics(f *testing.F)  { fuzzRecord(f, Counts) }

// The archives' names are of a message: they must not lead out of the image.
func TestOpenStaysInside(t *testing.T) {
	i := makeImage(t, Store{Dir: t.TempDir()}, "web", &imagepb.Manifest{})
	for _, file := range []string{"../1/manifest.pb", "/etc/passwd", "", "criu/../../../x"} {
		if f, err := i.Open(file); err == nil {
			t.Errorf("opened %q", f.Name())
		}
	}
	f, err := i.Open(Timeline)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// FuzzBundle reads the configuration, which is JSON.
func FuzzBundle(f *testing.F) {
	stored, err := os.ReadFile("testdata/format-1/tick/1/" + Bundle)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored)
	i := makeImage(f, Store{Dir: f.TempDir()}, "web", &imagepb.Manifest{})
	path := filepath.Join(i.Dir(), Bundle)
	if err := os.Remove(path); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		spec, data, err := i.Spec()
		if err == nil && (spec.Process == nil || spec.Root == nil || spec.Linux == nil || len(data) != len(b)) {
			t.Errorf("%q is read as %+v", b, spec)
		}
	})
}
