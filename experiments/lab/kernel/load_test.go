package kernel

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const release = "6.12.1-test"

// fakeModules is a lib/modules/RELEASE. Each value is the module's .modinfo,
// the entries separated by |.
func fakeModules(t *testing.T, modules map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for file, info := range modules {
		entries := strings.Split(info, "|")
		if !strings.Contains(info, "vermagic=") {
			entries = append(entries, "vermagic="+release+" SMP preempt mod_unload ")
		}
		data := fakeModule(t, entries...)
		if strings.HasSuffix(file, ".gz") {
			data = packGzip(t, data)
		}
		if strings.HasSuffix(file, ".zst") {
			data = packZstd(t, data)
		}
		write(t, dir, map[string]string{file: string(data)})
	}
	return dir
}

func packGzip(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fakeZstd is a zstd(1) for what packZstd packs: the real one may not be there.
func fakeZstd(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\n[ \"$*\" = '-d -c -q' ] && tail -c +5 | gzip -d -c\n"
	if err := os.WriteFile(filepath.Join(dir, "zstd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func packZstd(t *testing.T, data []byte) []byte {
	t.Helper()
	return append([]byte("\x28\xb5\x2f\xfd"), packGzip(t, data)...)
}

// load gives the names in order, and what is absent.
func load(t *testing.T, dir string, names ...string) (list, absent []string, err error) {
	t.Helper()
	m, err := OpenModules(dir, release)
	if err != nil {
		t.Fatal(err)
	}
	modules, absent, err := m.Load(names)
	for _, m := range modules {
		if !bytes.HasPrefix(m.Data, []byte("\x7fELF")) {
			t.Errorf("%s: not an ELF file", m.Name)
		}
		list = append(list, m.Name)
	}
	return list, absent, err
}

func TestLoad(t *testing.T) {
	fakeZstd(t)
	dir := fakeModules(t, map[string]string{
		"kernel/net/inet_diag.ko":         "depends=",
		"kernel/net/tcp-diag.ko.gz":       "depends=inet-diag",
		"kernel/net/nf_tables.ko.zst":     "depends=nfnetlink,libcrc32c",
		"kernel/net/nfnetlink.ko":         "license=GPL",
		"kernel/net/nft_nat.ko":           "depends=nf_tables",
		"kernel/net/nft_ct.ko":            "depends=nf_tables",
		"kernel/lib/libcrc32c.ko":         "softdep=pre: crc32c post: other",
		"kernel/crypto/crc32c_generic.ko": "alias=crypto-crc32c|alias=crc32c",
		"kernel/crypto/crc32c-intel.ko":   "alias=crc32c|softdep=pre: nowhere-to-be-found",
		"kernel/other.ko":                 "depends=built_in_too",
	})
	write(t, dir, map[string]string{
		"modules.builtin":         "kernel/fs/ext4/ext4.ko\nkernel/built-in-too.ko\n",
		"modules.builtin.modinfo": "ext4.alias=fs-ext4\x00ext4.license=GPL\x00",
	})
	for _, test := range []struct{ names, want, absent string }{
		{"tcp_diag", "inet_diag tcp_diag", ""},
		{"tcp-diag inet_diag tcp_diag", "inet_diag tcp_diag", ""},
		{"nft_*", "nfnetlink crc32c_generic crc32c_intel libcrc32c nf_tables nft_ct nft_nat", ""},
		{"crc32c", "crc32c_generic crc32c_intel", ""},
		{"other", "other", ""},
		{"ext4 fs-ext4 built_in_*", "", ""},
		{"no-such-one inet_diag no_* ", "inet_diag", "no-such-one no_*"},
		{"", "", ""},
	} {
		list, absent, err := load(t, dir, strings.Fields(test.names)...)
		if err != nil {
			t.Errorf("Load(%s): %v", test.names, err)
		}
		if got := strings.Join(list, " "); got != test.want {
			t.Errorf("Load(%s) = %s, want %s", test.names, got, test.want)
		}
		if got := strings.Join(absent, " "); got != test.absent {
			t.Errorf("Load(%s) lacks %s, want %s", test.names, got, test.absent)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := fakeModules(t, map[string]string{
		"kernel/loop_a.ko":        "depends=loop_b",
		"kernel/loop_b.ko":        "depends=loop_c",
		"kernel/loop_c.ko":        "depends=loop_a",
		"kernel/itself.ko":        "depends=itself",
		"kernel/soft_a.ko":        "softdep=pre: soft_b",
		"kernel/soft_b.ko":        "depends=soft_a",
		"kernel/incomplete.ko":    "depends=inet_diag",
		"kernel/foreign.ko":       "vermagic=6.13.0-other SMP preempt",
		"kernel/needs_foreign.ko": "depends=foreign",
	})
	good := fakeModule(t, "depends=")
	write(t, dir, map[string]string{
		"kernel/text.ko":     "not a module",
		"kernel/empty.ko":    "",
		"kernel/cut.ko":      string(good[:len(good)-80]),
		"kernel/cutxz.ko.xz": "\xfd7zXZ\x00\x00\x01",
		"kernel/no_info.ko":  strings.Replace(string(good), ".modinfo", ".modxxxx", 1),
	})
	for name, want := range map[string]string{
		"loop_a":        "loop_a -> loop_b -> loop_c -> loop_a: they need each other",
		"itself":        "itself -> itself: they need each other",
		"incomplete":    "incomplete needs inet_diag, which is not there",
		"foreign":       "foreign is for 6.13.0-other, the kernel is 6.12.1-test",
		"needs_foreign": "modules that do not fit",
		"text":          "not a module: EOF",
		"empty":         "empty.ko",
		"cut":           "cut.ko",
		"cutxz":         "xz",
		"no_info":       "no .modinfo section",
		"bad[":          "syntax error in pattern",
	} {
		if list, _, err := load(t, dir, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%s) = %v, %v, want %q", name, list, err, want)
		}
	}
	// A recommendation may point back, as it does between real modules.
	if list, _, err := load(t, dir, "soft_b"); err != nil || !slices.Equal(list, []string{"soft_a", "soft_b"}) {
		t.Errorf("Load(soft_b) = %v, %v", list, err)
	}
	var misfit *Misfit
	if _, _, err := load(t, dir, "foreign"); !errors.As(err, &misfit) || misfit.Release != "6.13.0-other" {
		t.Errorf("%v, want a Misfit", err)
	}
	m, err := OpenModules(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if list, _, err := m.Load([]string{"foreign"}); err != nil || len(list) != 1 {
		t.Errorf("without a release to fit: %v, %v", list, err)
	}
}

func TestOpenModulesOfABuild(t *testing.T) {
	dir := fakeModules(t, map[string]string{
		"fs/overlayfs/overlay.ko": "depends=",
		"drivers/net/veth.ko":     "depends=",
		"drivers/net/stale.ko":    "depends=", // of an earlier configuration
	})
	write(t, dir, map[string]string{
		".config":         "CONFIG_64BIT=y\n",
		"kernel/fork.c":   "",
		"modules.order":   "fs/overlayfs/overlay.o\ndrivers/net/veth.ko\nnet/not_made.o\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
	})
	list, absent, err := load(t, dir, "overlay", "veth", "ext4", "stale", "not_made")
	if err != nil || !slices.Equal(list, []string{"overlay", "veth"}) || !slices.Equal(absent, []string{"stale", "not_made"}) {
		t.Errorf("Load = %v, %v, %v", list, absent, err)
	}
	// make bzImage makes no modules; everything may be built in.
	if err := os.Remove(filepath.Join(dir, "modules.order")); err != nil {
		t.Fatal(err)
	}
	if list, absent, err := load(t, dir, "overlay", "ext4"); err != nil || len(list) != 0 || !slices.Equal(absent, []string{"overlay"}) {
		t.Errorf("without modules: Load = %v, %v, %v", list, absent, err)
	}
}

func TestOpenModulesRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenModules(dir, release); err == nil || !strings.Contains(err.Error(), "neither a module nor a modules.builtin") {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := OpenModules(filepath.Join(dir, "nothing"), release); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	write(t, dir, map[string]string{"file": ""})
	if _, err := OpenModules(filepath.Join(dir, "file"), release); err == nil {
		t.Error("a file: no error")
	}
}

func FuzzModinfo(f *testing.F) {
	f.Add([]byte("depends=a,b\x00softdep=pre: c post: d\x00vermagic=6.1 SMP\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info := parseModinfo(data)
		for _, name := range slices.Concat(info.depends, info.pre) {
			if name == "" || strings.Contains(name, "-") {
				t.Errorf("%q in %+v", name, info)
			}
		}
	})
}
