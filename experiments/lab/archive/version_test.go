package archive

import (
	"errors"
	"slices"
	"testing"
)

func TestUpstream(t *testing.T) {
	for version, want := range map[string]string{
		"6.12.113-1":         "6.12.113",
		"6.12.113-1~deb12u1": "6.12.113",
		"7.2.11-1~bpo13+1":   "7.2.11",
		"7.3~rc7-1~exp1":     "7.3-rc7",
		"1:4.1.1-1":          "4.1.1",
		"3.17.1-2+deb12u2":   "3.17.1",
		"nothing":            "nothing",
	} {
		if got := upstream(version); got != want {
			t.Errorf("upstream(%s) = %s, want %s", version, got, want)
		}
	}
}

func TestCompare(t *testing.T) {
	order := []string{"4.3", "5.10.223", "6.1.9", "6.1.190", "6.12", "6.12.9", "6.12.113", "7.3-rc2", "7.3-rc10", "7.3", "7.3.1"}
	shuffled := slices.Clone(order)
	slices.Reverse(shuffled)
	slices.SortFunc(shuffled, compare)
	if !slices.Equal(shuffled, order) {
		t.Errorf("%v, want %v", shuffled, order)
	}
}

// someKernels are sorted as entries sorts them.
func someKernels() []Entry {
	var list []Entry
	for _, k := range [][3]string{
		{"6.1.176", "6.1.0-50-cloud-amd64", "6.1.176-1"},
		{"6.1.190", "6.1.0-54-cloud-amd64", "6.1.190-1"},
		{"6.12.9", "6.12.9+deb13-cloud-amd64", "6.12.9-1"},
		{"6.12.113", "6.12.113+deb12-cloud-amd64", "6.12.113-1~deb12u1"},
		{"6.12.113", "6.12.113+deb13-cloud-amd64", "6.12.113-1"},
		{"7.3-rc7", "7.3-cloud-amd64", "7.3~rc7-1~exp1"},
	} {
		list = append(list, Entry{Kind: KernelKind, Version: k[0], Release: k[1], Package: k[2]})
	}
	return list
}

func TestChoose(t *testing.T) {
	for version, want := range map[string]string{
		"6.12":                       "6.12.113-1",
		"6.1":                        "6.1.190-1",
		"6":                          "6.12.113-1",
		"7.3":                        "7.3~rc7-1~exp1",
		"7.3-rc7":                    "7.3~rc7-1~exp1",
		"6.12.113":                   "6.12.113-1",
		"6.12.113-1~deb12u1":         "6.12.113-1~deb12u1",
		"6.12.113+deb12-cloud-amd64": "6.12.113-1~deb12u1",
		"6.12.113+deb12":             "6.12.113-1~deb12u1",
		"6.1.0-50":                   "6.1.176-1",
	} {
		e, err := choose("kernel", version, someKernels())
		if err != nil || e.Package != want {
			t.Errorf("choose(%s) = %s, %v, want %s", version, e.Package, err, want)
		}
	}
	for version, want := range map[string]string{
		"6.12.200": "6.12.113",
		"6.12.100": "6.12.113", // not 6.12.9: the newer one of two alike
		"6.2":      "6.1.190",
		"5.4":      "6.1.176",
		"9":        "7.3-rc7",
		"6.1.19":   "6.1.176",
		"7.3-rc8":  "7.3-rc7",
		"":         "6.1.176",
		"linux":    "6.1.176",
	} {
		var unknown *Unknown
		if _, err := choose("kernel", version, someKernels()); !errors.As(err, &unknown) || unknown.Nearest != want {
			t.Errorf("choose(%q): %v, want the nearest %s", version, err, want)
		}
	}
	if _, err := choose("kernel", "6.1", nil); err == nil || err.Error() != "kernel 6.1: not in the archive" {
		t.Errorf("of nothing: %v", err)
	}
}

func TestIs(t *testing.T) {
	kernel := Entry{Kind: KernelKind, Version: "7.3", Release: "7.3-cloud-amd64", Package: "7.3-1"}
	for version, want := range map[string]bool{"7.3": false, "7.3-cloud-amd64": true, "7.3-1": true, "7": false, "": false} {
		if got := kernel.is(version); got != want {
			t.Errorf("is(%q) = %v", version, got)
		}
	}
	kernel = Entry{Kind: KernelKind, Version: "6.12.113"}
	if !kernel.is("6.12.113") || kernel.is("6.12") {
		t.Error("a stable release")
	}
	if criu := (Entry{Kind: CRIUKind, Version: "4.3"}); !criu.is("4.3") || criu.is("4") || criu.is("") {
		t.Error("a CRIU")
	}
}

// From Linux 6.19 on a kernel is in several packages, of which a suite may have
// only some.
func TestKernelsAreWhole(t *testing.T) {
	x := index{Packages: []pkg{
		{Name: "linux-image-6.12.113+deb13-cloud-amd64", Version: "6.12.113-1", Suite: "stable", Size: 33 << 20},
		{Name: "linux-image-7.1.13+deb13-cloud-amd64", Version: "7.1.13-1", Suite: "stable-backports", Size: 1916},
		{Name: "linux-binary-7.1.13+deb13-cloud-amd64", Version: "7.1.13-1", Suite: "stable-backports", Size: 13 << 20},
		{Name: "linux-image-7.2.13+deb14-cloud-amd64", Version: "7.2.13-1", Suite: "unstable", Size: 1916},
		{Name: "linux-binary-7.2.13+deb14-cloud-amd64", Version: "7.2.13-1", Suite: "unstable", Size: 13 << 20},
		{Name: "linux-modules-7.2.13+deb14-cloud-amd64", Version: "7.2.13-1", Suite: "unstable", Size: 23 << 20},
		{Name: "linux-base-7.2.13+deb14-cloud-amd64", Version: "7.2.13-1", Suite: "unstable", Size: 417 << 10},
	}}
	var got []string
	for _, e := range x.kernels() {
		got = append(got, e.Version)
	}
	if len(got) != 2 || got[0] != "6.12.113" || got[1] != "7.2.13" {
		t.Errorf("kernels %q", got)
	}
}
