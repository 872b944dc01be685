package images

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crucible/proto/imagepb"
)

// grow makes an image of web that builds on another one, or on none.
func grow(t testing.TB, s Store, parent *Image, traits *imagepb.Traits) *Image {
	t.Helper()
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(Bundle, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if parent != nil {
		link, err := d.BuildOn(parent)
		if err != nil {
			t.Fatal(err)
		}
		// As CRIU does it: the path is looked at, and becomes a link.
		if _, err := os.Stat(filepath.Join(d.CRIUDir(), link, "pages-1.img")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(link, filepath.Join(d.CRIUDir(), ParentLink)); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(t.Context(), parent.Ref()); !errors.Is(err, InUse) {
			t.Errorf("removed what a draft builds on: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.CRIUDir(), "pages-1.img"), []byte("pages"), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := d.Commit(t.Context(), &imagepb.Manifest{Traits: traits})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// chain makes web@1, web@2 on it, and web@3 and web@4 on web@2.
func chain(t testing.TB) (Store, [4]*Image) {
	t.Helper()
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	var i [4]*Image
	i[0] = grow(t, s, nil, nil)
	i[1] = grow(t, s, i[0], &imagepb.Traits{PreDump: true})
	i[2] = grow(t, s, i[1], nil)
	i[3] = grow(t, s, i[1], nil)
	return s, i
}

func refs(all []*Image) (list []string) {
	for _, i := range all {
		list = append(list, i.Ref())
	}
	return list
}

func TestChain(t *testing.T) {
	s, i := chain(t)
	if m := i[0].Manifest; m.Parent != nil || m.GetTraits().GetIncremental() {
		t.Errorf("web@1: %v", m)
	}
	if m := i[2].Manifest; !m.GetTraits().GetIncremental() || m.Parent.Ref != "web@2" {
		t.Errorf("web@3: %v", m)
	}
	i3, err := s.Open("web@3")
	if err != nil {
		t.Fatal(err)
	}
	all, err := i3.Chain()
	if err != nil || !slices.Equal(refs(all), []string{"web@3", "web@2", "web@1"}) {
		t.Errorf("chain %v, %v", refs(all), err)
	}
	if err := i3.Verify(t.Context(), VerifyOptions{}); err != nil {
		t.Error(err)
	}
	if c := i[1].Children(); !slices.Equal(c, []string{"web@3", "web@4"}) {
		t.Errorf("children of web@2: %v", c)
	}
	if p := i[2].ParentRef() + i[0].ParentRef(); p != "web@2" {
		t.Errorf("parents: %q", p)
	}
	if i[2].Size() != int64(len("{}pages")) {
		t.Errorf("web@3 has %d bytes of its own", i[2].Size())
	}
	// The link leads from image to image, wherever the store and the name are.
	if err := os.Rename(filepath.Join(s.Dir, "web"), filepath.Join(s.Dir, "other")); err != nil {
		t.Fatal(err)
	}
	moved := Store{Dir: s.Dir + "-moved"}
	if err := os.Rename(s.Dir, moved.Dir); err != nil {
		t.Fatal(err)
	}
	o, err := moved.Open("other@4")
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Verify(t.Context(), VerifyOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(o.CRIUDir(), ParentLink, ParentLink, "pages-1.img")); err != nil {
		t.Error(err)
	}
}

// A damaged member is named, whichever image was asked about.
func TestChainDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(i [4]*Image)
		want  string // "": intact
	}{
		"pages of the first":    {func(i [4]*Image) { spoilFile(t, i[0], "criu/pages-1.img") }, "image web@1: criu/pages-1.img has changed"},
		"link of the parent":    {func(i [4]*Image) { os.Remove(i[1].CRIUDir() + "/parent") }, "image web@2: criu/parent is missing"},
		"its own bundle":        {func(i [4]*Image) { spoilFile(t, i[2], Bundle) }, "image web@3: bundle.json has changed"},
		"a parent's bundle":     {func(i [4]*Image) { spoilFile(t, i[0], Bundle) }, ""},
		"a parent's manifest":   {func(i [4]*Image) { spoilFile(t, i[0], Manifest) }, "image web@1: manifest.pb"},
		"a parent that is gone": {func(i [4]*Image) { os.RemoveAll(i[1].Dir()) }, "image web@3: builds on web@2, which is not there"},
		"another parent": {func(i [4]*Image) {
			os.RemoveAll(i[1].Dir())
			os.Rename(grow(t, i[0].Store(), i[0], nil).Dir(), i[1].Dir())
		}, "image web@3: builds on web@2, which is another image"},
	} {
		t.Run(name, func(t *testing.T) {
			_, i := chain(t)
			c.spoil(i)
			err := i[2].Verify(t.Context(), VerifyOptions{})
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, Damaged) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("verify: %v, want %q", err, c.want)
			}
		})
	}
}

func spoilFile(t *testing.T, i *Image, file string) {
	t.Helper()
	spoil(t, filepath.Join(i.Dir(), file), func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
}

// The manifest of an image cannot send us round in a circle, or elsewhere.
func TestChainEnds(t *testing.T) {
	s, i := chain(t)
	for _, ref := range []string{"web@3", "web@4", "web", "/etc", "web@2147483648"} {
		o := &Image{Name: "web", Number: 3, store: s, Manifest: &imagepb.Manifest{Parent: &imagepb.Parent{Ref: ref}}}
		if _, err := o.Chain(); !errors.Is(err, Damaged) || !strings.Contains(err.Error(), "names") {
			t.Errorf("parent %s of web@3: %v", ref, err)
		}
	}
	d, err := s.Draft(t.Context(), "db")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.BuildOn(i[0]); err == nil {
		t.Error("db builds on web@1")
	}
	if err := d.Discard(); err != nil {
		t.Error(err)
	}
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRemoveFromChain(t *testing.T) {
	s, _ := chain(t)
	err := s.Remove(t.Context(), "web@2")
	var e *Error
	if !errors.As(err, &e) || e.Kind != InUse || !strings.Contains(e.Text, "web@3, web@4") || !strings.Contains(e.Advice, "web@3, web@4") {
		t.Errorf("removed what web@3 and web@4 build on: %v", err)
	}
	for _, ref := range []string{"web@4", "web@3", "web@2", "web@1"} {
		if err := s.Remove(t.Context(), ref); err != nil {
			t.Error(err)
		}
	}
}

func TestCheckWhole(t *testing.T) {
	_, i := chain(t)
	if err := i[2].CheckWhole(); err != nil {
		t.Error(err)
	}
	err := i[1].CheckWhole()
	var e *Error
	if !errors.As(err, &e) || e.Kind != PreDump || !strings.Contains(e.Advice, "crucible restore web@4`") {
		t.Errorf("a pre-dump: %v", err)
	}
	alone := grow(t, Store{Dir: t.TempDir()}, nil, &imagepb.Traits{PreDump: true})
	if err := alone.CheckWhole(); !errors.As(err, &e) || !strings.Contains(e.Advice, "checkpoint --parent web@1 web`") {
		t.Errorf("a pre-dump and nothing else: %v", err)
	}
}
