package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
)

const someConfig = `#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.12.1 Kernel Configuration
#
CONFIG_CHECKPOINT_RESTORE=y
CONFIG_VETH=m
# CONFIG_MEM_SOFT_DIRTY is not set
CONFIG_LOCALVERSION="-a=b"
CONFIG_HZ=250
`

func checkSomeConfig(t *testing.T, path string) {
	t.Helper()
	c, err := ReadConfig(path)
	if err != nil {
		t.Error(err)
		return
	}
	want := Config{"CHECKPOINT_RESTORE": "y", "VETH": "m", "MEM_SOFT_DIRTY": "n", "LOCALVERSION": `"-a=b"`, "HZ": "250"}
	if len(c) != len(want) {
		t.Errorf("%s: %v", path, c)
	}
	for name, value := range want {
		if c[name] != value {
			t.Errorf("%s: CONFIG_%s=%s, want %s", path, name, c[name], value)
		}
	}
}

func packLZ4(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := lz4.NewWriter(&b)
	if err := z.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadConfig(t *testing.T) {
	fakeZstd(t)
	vmlinux := "\x7fELF code, IKCFG_ST is in a message, too" + configStart + string(packGzip(t, []byte(someConfig))) + configEnd + "more code"
	sized := func(packed []byte) []byte {
		return binary.LittleEndian.AppendUint32(packed, uint32(len(vmlinux)))
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"config-6.12":  someConfig,
		"config.gz":    string(packGzip(t, []byte(someConfig))),
		"tree/.config": someConfig,
		"vmlinux":      vmlinux,
		"bz-gzip":      string(fakeImage("6.12.1", packGzip(t, []byte(vmlinux)))),
		"bz-zstd":      string(fakeImage("6.12.1", sized(packZstd(t, []byte(vmlinux))))),
		"bz-lz4":       string(fakeImage("6.12.1", sized(packLZ4(t, []byte(vmlinux))))),
	})
	for _, name := range []string{"config-6.12", "config.gz", "tree", "vmlinux", "bz-gzip", "bz-zstd", "bz-lz4"} {
		checkSomeConfig(t, filepath.Join(dir, name))
	}
	// What Go cannot pack: a vmlinux of a few hundred calls around the
	// configuration, packed as scripts/Makefile.lib does it, with bzip2 -9 and
	// xz --check=crc32 --x86 --lzma2=dict=32MiB.
	for _, name := range []string{"vmlinux.xz", "vmlinux.bz2"} {
		packed, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, map[string]string{name: string(fakeImage("6.12.1", sized(packed)))})
		checkSomeConfig(t, filepath.Join(dir, name))
	}
}

func TestReadConfigRefuses(t *testing.T) {
	dir := t.TempDir()
	packed := packGzip(t, []byte("\x7fELF code without a configuration"))
	write(t, dir, map[string]string{
		"empty": "",
		"text":  "nothing of the kind\n",
		"none":  string(fakeImage("6.12.1", packed)),
		"cut":   string(fakeImage("6.12.1", packed[:len(packed)-9])),
		"lzma":  string(fakeImage("6.12.1", []byte("\x5d\x00\x00\x80\x00rest"))),
		"lzo":   string(fakeImage("6.12.1", []byte("\x89LZO\x00rest"))),
		"short": string(fakeImage("6.12.1", packed)[:700]),
		"bad":   configStart + "\x1f\x8b rubbish" + configEnd,
		"dir/x": "",
	})
	for name, want := range map[string]string{
		"empty":   "not a single CONFIG_ line",
		"text":    "not a single CONFIG_ line",
		"none":    "without CONFIG_IKCONFIG",
		"cut":     "unexpected EOF",
		"lzma":    "lzma, which is not read here",
		"lzo":     "lzo, which is not read here",
		"short":   "cut off",
		"bad":     "CONFIG_IKCONFIG's data",
		"dir":     ".config: no such file",
		"nothing": "no such file",
	} {
		c, err := ReadConfig(filepath.Join(dir, name))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadConfig(%s) = %v, %v, want %q", name, c, err, want)
		}
	}
	var none *NoConfig
	if _, err := ReadConfig(filepath.Join(dir, "none")); !errors.As(err, &none) || !strings.Contains(none.Hint(), ".config") {
		t.Errorf("%v, want a NoConfig with a hint", err)
	}
}

func TestUnpackWithoutZstd(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := unpack(packZstd(t, nil)); err == nil || !strings.Contains(err.Error(), `exec: "zstd": executable file not found`) {
		t.Errorf("%v", err)
	}
}

func TestCheck(t *testing.T) {
	rows := Check(Config{"CHECKPOINT_RESTORE": "m", "VETH": "m", "MEM_SOFT_DIRTY": "n", "EPOLL": "y"})
	find := func(option string) Row {
		for _, r := range rows {
			if r.Option == option {
				return r
			}
		}
		t.Fatalf("no row for %s", option)
		return Row{}
	}
	for _, test := range []struct {
		option, state string
		ok            bool
		remedy        string
	}{
		{"CONFIG_CHECKPOINT_RESTORE", "m", false, "CONFIG_CHECKPOINT_RESTORE=y (needs PROC_FS)"},
		{"CONFIG_VETH", "m", true, ""},
		{"CONFIG_EPOLL", "y", true, ""},
		{"CONFIG_MEM_SOFT_DIRTY", "n", false, "CONFIG_MEM_SOFT_DIRTY=y (needs CHECKPOINT_RESTORE)"},
		{"CONFIG_BRIDGE", "missing", false, "CONFIG_BRIDGE=y or m"},
	} {
		r := find(test.option)
		if r.State != test.state || r.OK != test.ok || r.Remedy != test.remedy {
			t.Errorf("%+v, want %+v", r, test)
		}
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.Option] || r.For == "" || r.Level == "" || r.Group == "" {
			t.Errorf("%+v: twice, or incomplete", r)
		}
		seen[r.Option] = true
	}
}
