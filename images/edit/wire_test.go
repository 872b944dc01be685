package edit

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func FuzzRewrite(f *testing.F) {
	files, err := filepath.Glob("../testdata/format-1/tick/1/criu/*.img")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, magic := range []uint32{magicFiles, magicUTS, magicMM} {
			out, err := rewriteEntries(b, magic, func(entry []byte) ([]byte, error) {
				if _, err := parseSocket(entry); err != nil {
					return nil, err
				}
				return rewrite(entry, func(*field) error { return nil })
			})
			// A number can be written longer than need be, and is kept so; a tag or a
			// length is not.
			if err == nil && len(out) > len(b) {
				t.Errorf("%d bytes became %d", len(b), len(out))
			}
		}
	})
}

// A file in which nothing is changed is the same, byte for byte.
func TestRewriteIsExact(t *testing.T) {
	for file, magic := range map[string]uint32{"files.img": magicFiles, "utsns-11.img": magicUTS, "mm-1.img": magicMM} {
		b, err := os.ReadFile(filepath.Join("../testdata/format-1/tick/1/criu", file))
		if err != nil {
			t.Fatal(err)
		}
		entries := 0
		out, err := rewriteEntries(b, magic, func(entry []byte) ([]byte, error) {
			entries++
			return rewrite(entry, func(*field) error { return nil })
		})
		if err != nil || entries == 0 || !bytes.Equal(out, b) {
			t.Errorf("%s: %d entries, %v, %x, want %x", file, entries, err, out, b)
		}
	}
	for _, bad := range []string{"", "short", "\x19\x43\x56\x54\x38\x31\x30\x56\x05", "\x19\x43\x56\x54\x38\x31\x30\x56\xff\xff\xff\xff"} {
		if _, err := rewriteEntries([]byte(bad), magicFiles, func(b []byte) ([]byte, error) { return b, nil }); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// socketOf is an inet_sk_entry.
func socketOf(proto, state uint64, packed bool, src, dst []uint32) []byte {
	var b []byte
	add := func(n protowire.Number, v uint64) {
		b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
	}
	add(skProto, proto)
	add(skState, state)
	add(skSrcPort, 80)
	add(skDstPort, 4000)
	for number, words := range map[protowire.Number][]uint32{skSrcAddr: src, skDstAddr: dst} {
		if packed {
			b = protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), moveWords(words, 0, 0))
			continue
		}
		for _, w := range words {
			add(number, uint64(w))
		}
	}
	return b
}

func TestMoveSocket(t *testing.T) {
	from, to, peer := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.2")
	old, other := wordOf(from), wordOf(peer)
	mapped := func(w uint32) []uint32 { return []uint32{0, 0, 0xffff0000, w} }
	for name, c := range map[string]struct {
		entry    []byte
		close    bool
		src, dst netip.Addr
		state    uint64
		ports    bool
	}{
		"listener":        {socketOf(6, tcpListen, false, []uint32{old}, []uint32{0}), false, to, netip.MustParseAddr("0.0.0.0"), tcpListen, true},
		"packed":          {socketOf(17, 7, true, []uint32{old}, []uint32{0}), false, to, netip.MustParseAddr("0.0.0.0"), 7, true},
		"mapped":          {socketOf(17, 1, false, mapped(old), mapped(other)), false, to, peer, 1, true},
		"to itself":       {socketOf(17, 1, false, []uint32{old}, []uint32{old}), false, to, to, 1, true},
		"another address": {socketOf(6, tcpListen, false, []uint32{other}, []uint32{0}), true, peer, netip.MustParseAddr("0.0.0.0"), tcpListen, true},
		"connection":      {socketOf(6, 1, false, []uint32{old}, []uint32{other}), true, to, peer, tcpClose, false},
		"any address":     {socketOf(6, 1, false, []uint32{other}, []uint32{other}), true, peer, peer, tcpClose, false},
	} {
		e := &Edit{o: Options{TCPClose: c.close}}
		s, err := parseSocket(c.entry)
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.moveSocket("files.img", c.entry, s, from, to)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseSocket(b)
		if err != nil || got.src != c.src || got.dst != c.dst || got.state != c.state || (got.srcPort == 80 && got.dstPort == 4000) != c.ports {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
