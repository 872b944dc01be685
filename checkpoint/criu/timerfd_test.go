package criu

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// timer makes a message file_entry with a timerfd_entry.
func timer(ticks, sec, nsec, intervalSec, intervalNsec uint64) []byte {
	t := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), []byte{8, 0})
	for i, value := range []uint64{7, 2, 0, 1, ticks, 0, sec, nsec, intervalSec, intervalNsec} {
		if number := protowire.Number(i + 1); number != 3 {
			t = protowire.AppendVarint(protowire.AppendTag(t, number, protowire.VarintType), value)
		}
	}
	entry := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 10)
	return protowire.AppendBytes(protowire.AppendTag(entry, 12, protowire.BytesType), t)
}

// filesImage is an image with these entries.
func filesImage(entries ...[]byte) []byte {
	image := binary.LittleEndian.AppendUint32(nil, imageMagic)
	image = binary.LittleEndian.AppendUint32(image, filesMagic)
	for _, e := range entries {
		image = append(binary.LittleEndian.AppendUint32(image, uint32(len(e))), e...)
	}
	return image
}

func TestMendTimers(t *testing.T) {
	other := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), []byte("regular"))
	expired := timer(1, 0, 0, 0, 10_000_000)
	for _, c := range []struct {
		name        string
		image, want []byte // want is nil where nothing is to change
	}{
		{"expired", filesImage(other, expired, other), filesImage(other, timer(1, 0, 1, 0, 10_000_000), other)},
		{"slow", filesImage(timer(300, 0, 0, 3600, 0)), filesImage(timer(300, 0, 1, 3600, 0))},
		{"two", filesImage(expired, expired), filesImage(timer(1, 0, 1, 0, 10_000_000), timer(1, 0, 1, 0, 10_000_000))},
		{"running", filesImage(timer(3, 0, 500, 0, 10_000_000)), nil},
		{"not armed", filesImage(timer(0, 0, 0, 0, 10_000_000)), nil},
		{"once", filesImage(timer(1, 0, 0, 0, 0)), nil},
		{"empty", filesImage(), nil},
		{"cut", filesImage(expired)[:20], nil},
		{"another image", append([]byte{1, 2, 3, 4}, filesImage(expired)[4:]...), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "files.img")
			if err := os.WriteFile(name, c.image, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.want == nil {
				c.want = c.image
			}
			f, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for range 2 { // twice is as good as once
				if err := mendTimers(f); err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, c.want) {
					t.Errorf("got  %x\nwant %x", got, c.want)
				}
			}
		})
	}
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := mendTimers(f); err != nil {
		t.Errorf("without files.img: %v", err)
	}
}

func FuzzExpiredTimers(f *testing.F) {
	f.Add(filesImage(timer(1, 0, 0, 0, 10_000_000)))
	f.Add(filesImage(timer(1, 0, 0, 5, 0), []byte{0x62, 0xff}))
	f.Fuzz(func(t *testing.T, image []byte) {
		for _, at := range expiredTimers(image) {
			if at < 8 || at >= len(image) || image[at] != 0 {
				t.Errorf("place %d of %d", at, len(image))
			}
		}
	})
}
