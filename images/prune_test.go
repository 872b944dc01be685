package images

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"crucible/images/pack"
	"crucible/proto/imagepb"
)

func TestPruneKeeps(t *testing.T) {
	tiny := func(t *testing.T, s Store, parent *Image, preDump bool) *Image {
		return grow(t, s, parent, &imagepb.Traits{PreDump: preDump})
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, s Store)
		o    PruneOptions
		gone string
		kept string // number and the beginning of why
	}{
		{"all", func(t *testing.T, s Store) { tiny(t, s, nil, false); tiny(t, s, nil, false) }, PruneOptions{}, "", ""},
		{"the newest", func(t *testing.T, s Store) {
			for range 5 {
				tiny(t, s, nil, false)
			}
		}, PruneOptions{Keep: 2}, "1 2 3", ""},
		{"fewer than that", func(t *testing.T, s Store) { tiny(t, s, nil, false) }, PruneOptions{Keep: 2}, "", ""},
		{"of another name", func(t *testing.T, s Store) { tiny(t, s, nil, false); tiny(t, s, nil, false) }, PruneOptions{Keep: 1, Name: "db"}, "", ""},
		{"a chain", func(t *testing.T, s Store) {
			tiny(t, s, nil, false)
			one := tiny(t, s, nil, false)
			two := tiny(t, s, one, false)
			tiny(t, s, nil, false)
			tiny(t, s, two, false)
		}, PruneOptions{Keep: 1}, "1 4", "2: web@3 builds on it, 3: web@5 builds on it"},
		{"a chain that ends", func(t *testing.T, s Store) {
			tiny(t, s, tiny(t, s, nil, false), false)
			tiny(t, s, nil, false)
		}, PruneOptions{Keep: 1}, "1 2", ""},
		{"pre-dumps do not count", func(t *testing.T, s Store) {
			tiny(t, s, nil, false)
			tiny(t, s, nil, false)
			tiny(t, s, nil, true)
		}, PruneOptions{Keep: 1}, "1", ""},
		{"what a container needs", func(t *testing.T, s Store) {
			for range 3 {
				tiny(t, s, nil, false)
			}
		}, PruneOptions{Keep: 1, Needed: func(ref string) string {
			if ref == "web@1" {
				return "a container needs it"
			}
			return ""
		}}, "2", "1: a container needs it"},
		{"what is being read", func(t *testing.T, s Store) {
			one := tiny(t, s, nil, false)
			two := tiny(t, s, one, false)
			tiny(t, s, nil, false)
			hold, err := two.Hold()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { hold.Close() })
		}, PruneOptions{Keep: 1}, "", "1: web@2 builds on it, 2: a command is reading it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Store{Dir: filepath.Join(t.TempDir(), "images")}
			c.make(t, s)
			before, err := s.Numbers("web")
			if err != nil {
				t.Fatal(err)
			}
			for _, dry := range []bool{true, false} {
				c.o.DryRun = dry
				p, err := s.Prune(t.Context(), c.o)
				if err != nil {
					t.Fatal(err)
				}
				var gone, kept []string
				for _, i := range p.Images {
					gone = append(gone, strings.TrimPrefix(i.Ref, "web@"))
				}
				for _, i := range p.Kept {
					kept = append(kept, strings.TrimPrefix(i.Ref, "web@")+": "+i.Why)
				}
				if strings.Join(gone, " ") != c.gone || strings.Join(kept, ", ") != c.kept {
					t.Errorf("dry run %t: gone %q, kept %q; want %q and %q", dry, gone, kept, c.gone, c.kept)
				}
				after, err := s.Numbers("web")
				if err != nil {
					t.Fatal(err)
				}
				if left := len(before) - len(gone); dry && len(after) != len(before) || !dry && len(after) != left {
					t.Errorf("dry run %t: %v are there of %v", dry, after, before)
				}
			}
		})
	}
}

// Packs that nobody needs go, those that are mostly unused are rewritten.
func TestPrunePacks(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	a := withMemory(t, s, "a", nil, memory(span(1, 1000)...))
	b := memory(append(span(900, 1000), 5, 5, 0, 6)...)
	mustPack(t, a)
	i := withMemory(t, s, "b", nil, b)
	mustPack(t, i)
	if p, err := s.Prune(t.Context(), PruneOptions{}); err != nil || p.Packs+p.Rewritten != 0 || p.Freed != 0 {
		t.Errorf("nothing to do: %+v, %v", p, err)
	}
	if err := s.Remove(t.Context(), a.Ref()); err != nil {
		t.Fatal(err)
	}
	// What a killed packer has left.
	if err := os.WriteFile(filepath.Join(string(s.packs()), pack.Unfinished+"1"), make([]byte, 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := i.OpenPages("criu/pages-1.img")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if p, err := s.Prune(t.Context(), PruneOptions{DryRun: true}); err != nil || p.Rewritten != 1 || p.Freed < 400*pack.PageSize {
		t.Errorf("dry run: %+v, %v", p, err)
	}
	p, err := s.Prune(t.Context(), PruneOptions{})
	if err != nil || p.Rewritten != 1 || p.Packs != 0 || p.Freed < 400*pack.PageSize {
		t.Errorf("rewritten: %+v, %v", p, err)
	}
	// Who has it open reads on; who opens it finds the new pack.
	got := make([]byte, len(b))
	if _, err := open.ReadAt(got, 0); err != nil || string(got) != string(b) {
		t.Errorf("open while packs were rewritten: %v", err)
	}
	if err := errors.Join(holds(i, "criu/pages-1.img", b), i.Verify(t.Context(), VerifyOptions{})); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), i.Ref()); err != nil {
		t.Fatal(err)
	}
	if p, err = s.Prune(t.Context(), PruneOptions{}); err != nil || p.Packs != 1 {
		t.Errorf("unused: %+v, %v", p, err)
	}
	entries, err := os.ReadDir(string(s.packs()))
	if err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// An index that cannot be read may need anything: nothing is removed.
func TestPruneIsCareful(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	i := withMemory(t, s, "web", nil, memory(span(1, 100)...))
	other := withMemory(t, s, "web", nil, memory(span(200, 300)...))
	mustPack(t, i)
	mustPack(t, other)
	index := filepath.Join(i.Dir(), "packed/pages-1.index")
	spoil(t, index, func(b []byte) []byte { b[10] ^= 1; return b })
	if err := s.Remove(t.Context(), other.Ref()); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Prune(t.Context(), PruneOptions{}); !errors.Is(err, Damaged) || p.Packs+p.Rewritten != 0 || !strings.Contains(err.Error(), "packed/pages-1.index") {
		t.Errorf("with a damaged index: %+v, %v", p, err)
	}
	spoil(t, index, func(b []byte) []byte { b[10] ^= 1; return b })
	if err := os.Remove(filepath.Join(i.Dir(), Manifest)); err != nil {
		t.Fatal(err)
	}
	// An image that cannot be opened counts all the same.
	if p, err := s.Prune(t.Context(), PruneOptions{}); err != nil || p.Packs != 1 {
		t.Errorf("without a manifest: %+v, %v", p, err)
	}
	if err := holds(i, "criu/pages-1.img", memory(span(1, 100)...)); err != nil {
		t.Error(err)
	}
}

// Images come, are packed and go, in any order; what is there is always what
// was written.
func TestPruneAtRandom(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	r := rand.New(rand.NewPCG(3, 4))
	model := map[string][]byte{} // by NAME@N
	rewritten, removed := 0, 0
	for step := range 150 {
		names := []string{"a", "b", "c"}
		name := names[r.IntN(len(names))]
		all, err := s.List(name)
		if err != nil {
			t.Fatal(err)
		}
		switch what := r.IntN(10); {
		case what < 4 || len(all) == 0:
			var numbers []int
			for range r.IntN(60) {
				from := r.IntN(3000)
				numbers = append(numbers, span(from, from+r.IntN(9))...)
			}
			b := memory(numbers...)
			i := withMemory(t, s, name, nil, b)
			model[i.Ref()] = b
			if what%2 == 0 {
				mustPack(t, i)
			}
		case what < 6:
			mustPack(t, all[r.IntN(len(all))])
		case what < 8:
			i := all[r.IntN(len(all))]
			if err := s.Remove(t.Context(), i.Ref()); err != nil {
				t.Fatal(err)
			}
			delete(model, i.Ref())
		default:
			p, err := s.Prune(t.Context(), PruneOptions{Keep: r.IntN(5), Workers: 2})
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range p.Images {
				delete(model, i.Ref)
			}
			rewritten, removed = rewritten+p.Rewritten, removed+p.Packs
		}
		if step%10 == 9 {
			checkModel(t, s, model)
		}
	}
	checkModel(t, s, model)
	if rewritten == 0 || removed == 0 {
		t.Errorf("%d packs were rewritten, %d removed: this tests nothing", rewritten, removed)
	}
	// In the end there is no more than what is needed.
	if _, err := s.Prune(t.Context(), PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(); err != nil || u.Unused*2 > u.PackBytes {
		t.Errorf("%d of %d bytes are unused: %v", u.Unused, u.PackBytes, err)
	}
}

// checkModel compares the store with what ought to be in it.
func checkModel(t *testing.T, s Store, model map[string][]byte) {
	t.Helper()
	all, err := s.List("")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(model) {
		t.Errorf("%d images, want %d", len(all), len(model))
	}
	for _, i := range all {
		if err := errors.Join(holds(i, "criu/pages-1.img", model[i.Ref()]), i.Verify(t.Context(), VerifyOptions{})); err != nil {
			t.Error(err)
		}
	}
}

// All at once: whoever meets whom, what is there is whole.
func TestPackingTogether(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	withMemory(t, s, "a", nil, memory(span(0, 50)...))
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 25 {
				if err := oneOfMany(t, s, r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	all, err := s.List("")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if err := i.Verify(t.Context(), VerifyOptions{}); err != nil {
			t.Error(err)
		}
	}
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// oneOfMany does one thing to a store that others use, too.
func oneOfMany(t *testing.T, s Store, r *rand.Rand) error {
	name := string('a' + rune(r.IntN(2)))
	if r.IntN(3) == 0 {
		from := r.IntN(400)
		withMemory(t, s, name, nil, memory(span(from, from+r.IntN(100))...))
	}
	if r.IntN(5) == 0 {
		_, err := s.Prune(t.Context(), PruneOptions{Keep: 1 + r.IntN(4)})
		return err
	}
	all, err := s.List(name)
	if err != nil || len(all) == 0 {
		return err
	}
	i := all[r.IntN(len(all))]
	if r.IntN(2) == 0 {
		_, err = i.Pack(t.Context(), PackOptions{})
	} else if hold, held := i.Hold(); held != nil {
		err = held
	} else {
		defer hold.Close()
		v, viewed := i.View(t.Context(), ViewOptions{})
		if viewed != nil {
			return fmt.Errorf("view of %s: %w", i.Ref(), viewed)
		}
		if _, err := os.Stat(filepath.Join(v.CRIUDir(), "pages-1.img")); err != nil {
			return fmt.Errorf("view of %s: %w", i.Ref(), err)
		}
		err = errors.Join(i.Verify(t.Context(), VerifyOptions{}), v.Close())
	}
	if slices.ContainsFunc([]error{InUse, NotFound}, func(kind error) bool { return errors.Is(err, kind) }) {
		return nil
	}
	return err
}
