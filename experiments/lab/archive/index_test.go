package archive

import (
	"strings"
	"testing"
)

const somePackages = `Package: criu
Source: criu
Version: 4.1.1-1
Depends: libcompel1 (= 4.1.1-1), libc6
Description: checkpoint
 Package: not-this
Size: 560280

Package: libcompel1
Version: 4.1.1-1
Size: 5000

Package: linux-image-6.12.113+deb13-cloud-amd64
Version: 6.12.113-1
Size: 34577056

Package: linux-image-6.12.113+deb13-amd64
Version: 6.12.113-1
Size: 90000000

Package: linux-image-6.12-cloud-amd64
Version: 6.12.113-1
Size: 1508

Package: linux-image-cloud-amd64
Version: 7.2.11-1
Size: 1504

Package: linux-image-7.2.11+deb13-cloud-amd64
Version: 7.2.11-1
Size: 1920

Package: linux-image-7.2.11+deb13-cloud-amd64-dbg
Version: 7.2.11-1
Size: 355941772

Package: linux-binary-unsigned-7.2.11+deb13-cloud-amd64
Version: 7.2.11-1
Size: 13431284

Package: linux-binary-7.2.11+deb13-cloud-amd64
Version: 7.2.11-1
Size: 13432204

Package: linux-modules-7.2.11+deb13-cloud-amd64
Version: 7.2.11-1
Size: 37764112

Package: linux-base-7.2.11+deb13-cloud-amd64
Size: 1036984
Version: 7.2.11-1

Package: linux-headers-7.2.11+deb13-cloud-amd64
Version: 7.2.11-1
Size: 1400000`

func TestIndexKnowsKernels(t *testing.T) {
	x := &index{Packages: append(parsePackages([]byte(somePackages), "stable"), parsePackages([]byte(somePackages), "stable-security")...)}
	a := &Archive{Dir: t.TempDir()}
	list := a.entries(x, KernelKind)
	if len(list) != 2 {
		t.Fatalf("%+v, want two", list)
	}
	if e := list[0]; e.Version != "6.12.113" || e.Release != "6.12.113+deb13-cloud-amd64" || e.Package != "6.12.113-1" ||
		e.Suite != "stable" || e.Size != 34577056 || e.Cached || e.Kind != KernelKind {
		t.Errorf("%+v", e)
	}
	if e := list[1]; e.Version != "7.2.11" || e.Size != 1920+13432204+37764112+1036984 || len(e.packages) != 4 {
		t.Errorf("%+v", e)
	}
	criu := a.entries(x, CRIUKind)
	if len(criu) != 1 || criu[0].Version != "4.1.1" || criu[0].Size != 560280 || len(criu[0].packages) != 2 {
		t.Errorf("%+v", criu)
	}
}

func TestParsePackagesOfJunk(t *testing.T) {
	for _, text := range []string{"", "\n\n\n", "Package: criu", "Version: 1\n\nPackage: criu\n\n", "Package: criu\nVersion", strings.Repeat("x", 2<<20)} {
		if list := parsePackages([]byte(text), "stable"); len(list) != 0 {
			t.Errorf("%.40q: %v", text, list)
		}
	}
}

func TestFetchTrouble(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"E: The repository 'x stable Release' does not have a Release file.\n":                             "",
		"E: Failed to fetch x  404  Not Found [IP: ::1]\n":                                                 "",
		"W: Failed to fetch x  Temporary failure resolving 'x'\nW: Some index files failed to download.\n": "Failed to fetch x  Temporary failure resolving 'x'",
	} {
		if got := fetchTrouble([]byte(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
