package preflight

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

const mapsText = `00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus daemon
00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/dbus daemon
00e03000-00e24000 rw-p 00000000 00:00 0           [heap]
7f1c5a000000-7f1c5a021000 rw-p 00000000 00:00 0
7f1c5b000000-7f1c5b001000 rw-s 10000000 00:0e 1234                       anon_inode:[io_uring]
7f1c5c000000-7f1c5c001000 rw-s 00000000 00:01 5678                       /memfd:x (deleted)
7fff00000000-7fff00001000 --xp 00000000 00:00 0                          [uprobes]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`

func TestParseMaps(t *testing.T) {
	got, err := parseMaps(strings.NewReader(mapsText))
	must(t, err)
	want := []mapping{
		{"400000-452000", "08:02", 173521, "/usr/bin/dbus daemon"},
		{"7f1c5b000000-7f1c5b001000", "00:0e", 1234, "anon_inode:[io_uring]"},
		{"7f1c5c000000-7f1c5c001000", "00:01", 5678, "/memfd:x (deleted)"},
		{"7fff00000000-7fff00001000", "00:00", 0, "[uprobes]"},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"x", "1-2 r 3 4", "12 r-xp 0 08:02 1 /x", "1-2 r-xp 0 08:02 x /x"} {
		if m, err := parseMaps(strings.NewReader(bad)); err == nil {
			t.Errorf("parseMaps(%q) = %+v, no error", bad, m)
		}
	}
}

func TestPseudo(t *testing.T) {
	for link, want := range map[string]string{
		"socket:[12]": "socket", "pipe:[12]": "pipe", "net:[4026531840]": "net",
		"/tmp/socket:[12]": "", "/srv:[1]": "", "anon_inode:[eventfd]": "", "socket:[x]": "", "socket:[1": "", "": "",
	} {
		if kind, ino := pseudo(link); kind != want || (kind != "") != (ino != 0) {
			t.Errorf("pseudo(%q) = %q, %d", link, kind, ino)
		}
	}
}

func TestParseWatch(t *testing.T) {
	w, ok := parseWatch("wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d")
	want := watch{dev: unix.Mkdev(8, 0x13), ino: 0x9e7e, handleType: 1, handle: []byte{0x7e, 0x9e, 0, 0, 0x64, 0xd, 0x1b, 0x6d}}
	if d := cmp.Diff(want, w, cmp.AllowUnexported(watch{})); d != "" || !ok {
		t.Error(ok, d)
	}
	for _, none := range []string{"", "flags:10 event-flags:0", "mnt_id:12 mflags:0 mask:3b", "ino:x sdev:1", "ino:1 sdev:1 f_handle:x"} {
		if w, ok := parseWatch(none); ok {
			t.Errorf("parseWatch(%q) = %+v", none, w)
		}
	}
}

func TestParsePollTarget(t *testing.T) {
	if got, ok := parsePollTarget("5 events:       19 data:               5  pos:0 ino:61af sdev:7"); !ok || got != (pollTarget{5, 0x61af}) {
		t.Errorf("%+v, %t", got, ok)
	}
	for _, none := range []string{"", "x", "5 events: 19 data: 5", "5 ino:", "5 ino:x"} {
		if got, ok := parsePollTarget(none); ok {
			t.Errorf("parsePollTarget(%q) = %+v", none, got)
		}
	}
}

// Answers of Linux 6.18 on a little-endian machine.
const (
	// 127.0.0.1:80, established, with MEMINFO, MD5SIG and a "tls" that was put in by hand.
	inetAnswer = "0201000000500050" + "7f000001000000000000000000000000" + "7f000001000000000000000000000000" + "00000000" + "0100000000000000" +
		"00000000" + "02000000" + "00000000" + "00000000" + "39300000" +
		"0500080000000000" + "08001200aabbccdd" + "0c00130008000100746c7300"
	// A stream named /tmp/socket, listening, with one client that waits and one that has gone.
	unixAnswer = "01010a00393000000100000000000000" + "100000002f746d702f736f636b657400" + "0c00030040300000" + "00000000" + "0c00040002000000" + "05000000" + "0500060000000000"
	// rtnetlink, group 34.
	netlinkAnswer = "100300010700000000000000" + "00000000" + "39300000" + "0100000000000000" + "0c00010000000000" + "02000000" + "08000000" + "2c010000"
)

func bytesOf(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	must(t, err)
	return b
}

func littleEndian() (bool, error) { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1, nil }

func TestParseDiag(t *testing.T) {
	if bigEndian() {
		testenv.Lacks(t, "the byte order of the answers: little-endian", littleEndian)
	}
	inet, err := parseInet(bytesOf(t, inetAnswer))
	must(t, err)
	if want := (inetSocket{ino: 12345, state: stateEstablished, received: 2, ulp: "tls", md5: true}); inet != want {
		t.Errorf("%+v", inet)
	}
	unix1, err := parseUnix(bytesOf(t, unixAnswer))
	must(t, err)
	want := unixSocket{ino: 12345, kind: 1, state: stateListen, name: "/tmp/socket\x00", pending: []uint64{0x3040, 0}, received: 2, sent: 5}
	if d := cmp.Diff(want, unix1, cmp.AllowUnexported(unixSocket{})); d != "" || unix1.shown() != "/tmp/socket" {
		t.Error(d, unix1.shown())
	}
	nl, err := parseNetlink(bytesOf(t, netlinkAnswer))
	must(t, err)
	if nl.ino != 12345 || nl.port != 7 || nl.received != 300 || !highGroup(nl.groups) {
		t.Errorf("%+v", nl)
	}
	for _, short := range [][]byte{nil, make([]byte, 15)} {
		_, err1 := parseInet(short)
		_, err2 := parseUnix(short)
		_, err3 := parseNetlink(short)
		if err1 == nil || err2 == nil || err3 == nil {
			t.Errorf("%d bytes: %v, %v, %v", len(short), err1, err2, err3)
		}
	}
	if shown := (unixSocket{name: "\x00abstract"}).shown(); shown != "@abstract" {
		t.Error(shown)
	}
}

func TestEachMessage(t *testing.T) {
	if bigEndian() {
		testenv.Lacks(t, "the byte order of the answers: little-endian", littleEndian)
	}
	for _, test := range []struct {
		data string
		want []string
		done bool
		bad  bool
	}{
		{"14000000140002000000000000000000" + "61626364" + "13000000140002000000000000000000" + "656667" + "00", []string{"abcd", "efg"}, false, false},
		{"14000000030002000000000000000000" + "00000000", nil, true, false},
		{"14000000020000000000000000000000" + "feffffff", nil, false, true}, // ENOENT
		{"14000000020000000000000000000000" + "00000000", nil, true, false},
		{"ff000000140002000000000000000000", nil, false, true},
		{"05000000140002000000000000000000", nil, false, true},
	} {
		var got []string
		done, err := eachMessage(bytesOf(t, test.data), func(b []byte) error { got = append(got, string(b)); return nil })
		if done != test.done || (err != nil) != test.bad || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, done %t, %v", test.data, got, done, err)
		}
	}
}

// Whatever the bytes: a parser returns, and what it gives is in them.
func FuzzText(f *testing.F) {
	f.Add(mapsText)
	f.Add("wd:1 ino:9e7e sdev:800013 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d")
	f.Add("5 events: 19 data: 5  pos:0 ino:61af sdev:7")
	f.Add(mountText)
	f.Fuzz(func(t *testing.T, s string) {
		maps, err := parseMaps(strings.NewReader(s))
		for _, m := range maps {
			if err == nil && (!strings.Contains(s, m.name) || m.name == "") {
				t.Errorf("mapping %+v of %q", m, s)
			}
		}
		if w, ok := parseWatch(s); ok && (!strings.Contains(s, "ino:") || len(w.handle) > len(s)/2) {
			t.Errorf("watch %+v of %q", w, s)
		}
		parsePollTarget(s)
		pseudo(s)
		if name, ok := anonymous(s); ok && name == "" && s != "anon_inode:" {
			t.Errorf("no name in %q", s)
		}
		if infos, err := parseMountInfo(strings.NewReader(s)); err == nil {
			table := newMountTable(infos, nil)
			table.addNested(infos)
			for _, finding := range table.judge() {
				if finding.Remedy == "" || !finding.Blocks {
					t.Errorf("%+v of %q", finding, s)
				}
			}
			for _, m := range table.list {
				table.isCovered(m.ID)
			}
		}
	})
}

func FuzzDiag(f *testing.F) {
	for _, seed := range []string{inetAnswer, unixAnswer, netlinkAnswer, "14000000140002000000000000000000" + "61626364"} {
		f.Add(bytesOf(f, seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseInet(data); err == nil && len(s.ulp) > len(data) {
			t.Errorf("%+v", s)
		}
		if s, err := parseUnix(data); err == nil && (len(s.name) > len(data) || 4*len(s.pending) > len(data)) {
			t.Errorf("%+v", s)
		}
		if s, err := parseNetlink(data); err == nil {
			highGroup(s.groups)
		}
		total := 0
		if _, err := eachMessage(data, func(b []byte) error { total += len(b); return nil }); err == nil && total > len(data) {
			t.Errorf("%d bytes of %d", total, len(data))
		}
	})
}
