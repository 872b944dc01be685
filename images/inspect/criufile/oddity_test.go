package criufile

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// fileOf is a file of kind PSTREE, with these entries in hexadecimal.
func fileOf(t testing.TB, entries ...string) []byte {
	t.Helper()
	b := binary.LittleEndian.AppendUint32(nil, magicCommon)
	b = binary.LittleEndian.AppendUint32(b, 0x50273030)
	for _, e := range entries {
		m, err := hex.DecodeString(strings.ReplaceAll(e, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(m))), m...)
	}
	return b
}

func decodeBytes(t testing.TB, b []byte) (string, error) {
	t.Helper()
	f, err := NewFile(bytes.NewReader(b), int64(len(b)), "pstree.img")
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = f.Decode(t.Context(), &out, DecodeOptions{})
	return out.String(), err
}

// What nobody writes today, and what a newer CRIU may write, comes back, too.
func TestOddities(t *testing.T) {
	for name, test := range map[string]struct{ entry, want string }{
		"as always":                  {"08 01 10 00", `{"pid":1,"ppid":0}`},
		"nothing":                    {"", `{}`},
		"in another order":           {"10 00 08 01", `{"ppid":0,"pid":1}`},
		"a list":                     {"28 01 28 02", `{"threads":[1,2]}`},
		"a list that is torn":        {"28 01 08 01 28 02", `{"@wire":"KAEIASgC"}`},
		"twice":                      {"08 01 08 02", `{"@wire":"CAEIAg=="}`},
		"a long varint":              {"08 81 00", `{"@wire":"CIEA"}`},
		"a long tag":                 {"88 00 01", `{"@wire":"iAAB"}`},
		"too great for its type":     {"08 ff ff ff ff 7f", `{"@wire":"CP////9/"}`},
		"another wire type":          {"0d 01 00 00 00", `{"#1":[{"fixed32":1}]}`},
		"packed where it never was":  {"2a 02 01 02", `{"#5":[{"bytes":"AQI="}]}`},
		"unknown":                    {"08 01 f8 07 05 f8 07 06", `{"pid":1,"#127":[{"varint":5},{"varint":6}]}`},
		"unknown between":            {"f8 07 05 08 01", `{"#127":[{"varint":5}],"pid":1}`},
		"unknown and great":          {"f9 07 ff ff ff ff ff ff ff ff", `{"#127":[{"fixed64":"0xffffffffffffffff"}]}`},
		"a number that is too great": {"80 80 80 80 20 01", `{"@wire":"gICAgCAB"}`},
		"a group":                    {"fb 07 fc 07", `{"@wire":"+wf8Bw=="}`},
	} {
		t.Run(name, func(t *testing.T) {
			b := fileOf(t, test.entry)
			text, err := decodeBytes(t, b)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Split(text, "\n")[1]; got != test.want {
				t.Errorf("decoded %s, want %s", got, test.want)
			}
			if got := encode(t, []byte(text)); !bytes.Equal(got, b) {
				t.Errorf("other bytes come back: %x, want %x", got, b)
			}
		})
	}
}

func TestDamage(t *testing.T) {
	good := fileOf(t, "08 01")
	for name, test := range map[string]struct {
		file    []byte
		problem Problem
		text    string
	}{
		"empty":              {nil, Foreign, "no magic number"},
		"short":              {good[:3], Foreign, "no magic number"},
		"one magic":          {good[:4], Damaged, "ends after the first magic number"},
		"another magic":      {[]byte("\x7fELF1234"), Foreign, "magic number 464C457F"},
		"no whole length":    {append(good[:len(good):len(good)], 1, 2), Damaged, "entry 2: 2 bytes are missing"},
		"too long":           {append(good[:8:8], 200, 0, 0, 0, 8), Damaged, "entry 1: it has 200 bytes, and only 1 are left"},
		"a varint that ends": {fileOf(t, "08"), Damaged, "entry 1: pstree_entry: unexpected EOF"},
		"a tag of 0":         {fileOf(t, "00 00"), Damaged, "entry 1: pstree_entry: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeBytes(t, test.file)
			var is *Error
			if !errors.As(err, &is) || is.Problem != test.problem || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %s: ...%s", err, test.problem, test.text)
			}
		})
	}
}

func TestBadJSON(t *testing.T) {
	for text, want := range map[string]string{
		``:                               "ends too early",
		`{"magic":`:                      "ends too early",
		`[]`:                             "where '{' must be",
		`{"entries":[]}`:                 `no "magic"`,
		`{"magic":"BAR"}`:                `magic "BAR"`,
		`{"magic":"CORE"}`:               `no "entries"`,
		`{"magic":"PAGES","entries":[]}`: `magic "PAGES"`,
		`{"magic":"CORE","head":"x","entries":[]}`:                                         `head "x"`,
		`{"magic":"CORE","entries":[],"entries":[]}`:                                       `"entries"`,
		`{"magic":"CORE","entries":[]} 1`:                                                  "something follows",
		`{"magic":"PSTREE","entries":[{"pid":1,"pid":2}]}`:                                 `entry 1: pstree_entry: "pid" is there twice`,
		`{"magic":"PSTREE","entries":[{},{"pif":1}]}`:                                      `entry 2: pstree_entry has no field "pif"`,
		`{"magic":"PSTREE","entries":[{"pid":-1}]}`:                                        "pid: -1 is no whole number of 32 bits",
		`{"magic":"PSTREE","entries":[{"pid":4294967296}]}`:                                "pid: 4294967296 is no whole number",
		`{"magic":"PSTREE","entries":[{"pid":1.5}]}`:                                       "pid: 1.5 is no whole number",
		`{"magic":"PSTREE","entries":[{"pid":null}]}`:                                      "pid: <nil> is no whole number",
		`{"magic":"PSTREE","entries":[{"threads":1}]}`:                                     "where '[' must be",
		`{"magic":"PSTREE","entries":[{"#x":[]}]}`:                                         `"#x" is no number`,
		`{"magic":"PSTREE","entries":[{"#0":[]}]}`:                                         `"#0" is no number`,
		`{"magic":"PSTREE","entries":[{"#9":[{"x":1}]}]}`:                                  `no wire type "x"`,
		`{"magic":"PSTREE","entries":[{"@wire":"!"}]}`:                                     `"!" is no base64`,
		`{"magic":"PSTREE","entries":[{"extra":"AA=="}]}`:                                  "PSTREE has no payload",
		`{"magic":"PIPES_DATA","entries":[{"bytes":2,"extra":"AA=="}]}`:                    "it has 1 bytes, and the entry says 2",
		`{"magic":"PIPES_DATA","entries":[{"bytes":2}]}`:                                   "it has 0 bytes, and the entry says 2",
		`{"magic":"FILES","entries":[{"type":"NONE"}]}`:                                    `type: there is no "NONE"`,
		`{"magic":"IPCNS_SEM","entries":[{"nsems":1,"extra":[65536]}]}`:                    "65536 is no whole number of 16 bits",
		`{"magic":"IPCNS_MSG","entries":[{"qnum":1,"extra":[]}]}`:                          "it has 0 messages, and the entry says 1",
		`{"magic":"CGROUP","entries":[{"controllers":[` + strings.Repeat(`{"dirs":[`, 200): "is no string",
	} {
		err := Encode(t.Context(), &bytes.Buffer{}, strings.NewReader(text))
		var is *Error
		if !errors.As(err, &is) || is.Problem != BadJSON {
			if !strings.Contains(want, "is no string") {
				t.Errorf("%s: %v, want %q", text, err, want)
			}
			continue
		}
		if !strings.Contains(err.Error(), want) && !strings.Contains(want, "is no string") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The JSON of crit, and one that jq -S has sorted.
func TestOthersJSON(t *testing.T) {
	want := encode(t, []byte(`{"magic":"PIPES_DATA","entries":[{"pipe_id":5,"bytes":3,"size":4096,"extra":"YWJj"}]}`))
	for _, text := range []string{
		`{"magic": "PIPES_DATA", "entries": [{"pipe_id": 5, "bytes": "0x3", "size": "4096", "extra": "YW\nJj\n"}]}`,
		`{"entries":[{"pipe_id":5,"extra":"YWJj","bytes":3,"size":4096}],"magic":"PIPES_DATA"}`,
	} {
		if got := encode(t, []byte(text)); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded %x, want %x", text, got, want)
		}
	}
}

// A directory of cgroups is the only message that holds itself.
func TestDepth(t *testing.T) {
	var b []byte
	for range 300 {
		b = append(append([]byte{0x12}, appendLength(len(b))...), b...)
	}
	k, _ := kindOf(func(k Kind) bool { return k.Name == "CGROUP" })
	controllers := append(append([]byte{0x12}, appendLength(len(b))...), b...)
	file := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, magicCommon), k.Magic)
	file = append(binary.LittleEndian.AppendUint32(file, uint32(len(controllers))), controllers...)
	if _, err := decodeBytes(t, file); !errors.Is(err, Damaged) {
		t.Errorf("decode 300 levels: %v, want that it is damaged", err)
	}
	text := `{"magic":"CGROUP","entries":[{"controllers":[{"dirs":[` + strings.Repeat(`{"children":[`, 300)
	err := Encode(t.Context(), &bytes.Buffer{}, strings.NewReader(text))
	if err == nil || !strings.Contains(err.Error(), "deep") {
		t.Errorf("encode 300 levels: %v", err)
	}
}

func appendLength(n int) []byte {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func TestWords(t *testing.T) {
	for name, want := range map[string][]string{
		"files.img":          {`"flags": "O_RDWR | O_LARGEFILE"`, `"flags": ""`, `"127.0.0.1"`, `"::1"`, `"family": "INET6"`, `"state": "LISTEN"`, `"s_dev": "0:63"`, `"proto": "TCP"`},
		"mm-1.img":           {`"prot": "PROT_READ | PROT_EXEC"`, `"flags": "MAP_PRIVATE | MAP_ANON"`, `"status": "VMA_AREA_REGULAR | VMA_ANON_PRIVATE"`},
		"core-1.img":         {`"task_state": "Alive"`},
		"core-7.img":         {`"task_state": 2`},
		"pagemap-1.img":      {`"flags": "PE_PRESENT"`},
		"mountpoints-12.img": {`"root_dev": "`},
	} {
		text := string(decode(t, "testdata/zoo/"+name, DecodeOptions{Indent: true}))
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %s in\n%.3000s", name, w, text)
			}
		}
	}
	// What cannot be said in words stays a number, and other numbers can be written.
	for text, want := range map[string]string{
		`{"magic":"REG_FILES","entries":[{"flags":"O_RDWR | 0x80000000","pos":1}]}`:                   `{"magic":"REG_FILES","entries":[{"flags":"0x80000002","pos":1}]}`,
		`{"magic":"GHOST_FILE","entries":[{"dev":"8:1","rdev":"259:70000"}]}`:                         `{"magic":"GHOST_FILE","entries":[{"dev":8388609,"rdev":286327664}]}`,
		`{"magic":"INETSK","entries":[{"family":"INET","src_addr":["10.0.0.1"],"dst_addr":["::1"]}]}`: `{"magic":"INETSK","entries":[{"family":2,"src_addr":[16777226],"dst_addr":[0,0,0,16777216]}]}`,
	} {
		if got, want := encode(t, []byte(text)), encode(t, []byte(want)); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded %x, want %x", text, got, want)
		}
	}
}
