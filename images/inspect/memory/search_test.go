package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"crucible/images"
)

// spaceOf is a space of one process, with the content from an address on and a
// hole of a page behind each number of pages.
func spaceOf(t testing.TB, addr uint64, parts ...[]byte) *Space {
	t.Helper()
	pagemap, pages := header(1), []byte(nil)
	for _, p := range parts {
		n := uint64(len(p)+page-1) / page
		pagemap = now(pagemap, addr, n, present)
		pages = append(append(pages, p...), make([]byte, int(n)*page-len(p))...)
		addr += (n + 1) * page
	}
	i := write(t, images.Store{Dir: t.TempDir()}, nil, map[string][]byte{"pagemap-7.img": pagemap, "pages-1.img": pages})
	s, err := open(t, i).Process(7)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func found(t testing.TB, s *Space, p *Pattern, from, to uint64) (all []Match) {
	t.Helper()
	err := s.Search(t.Context(), p, from, to, func(m Match) error { all = append(all, m); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSearch(t *testing.T) {
	one := []byte(strings.Repeat(".", page-3) + "needle" + strings.Repeat("-", page-4) + "n")
	two := []byte("eedle needle\nline two")
	s := spaceOf(t, 0x10000, one, two)
	for _, c := range []struct {
		expr     string
		from, to uint64
		want     string
	}{
		{"needle", 0, maxAddr, "10ffd+6 13006+6"}, // over pages, but not over a hole
		{"needle", 0x10fff, maxAddr, "13006+6"},
		{"needle", 0x10ffd, 0x11003, "10ffd+6"},
		{"needle", 0x10ffd, 0x11002, ""},
		{"ne+d", 0, maxAddr, "10ffd+4 13006+4"},
		{`\bneedle`, 0, maxAddr, "10ffd+6 13006+6"},
		{`dle\b`, 0, maxAddr, "11000+3 13002+3 13009+3"},
		{"^eed", 0, maxAddr, "13000+3"},
		{"(?m)^line", 0, maxAddr, "1300d+4"},
		{"(?i)NEEDLE", 0, maxAddr, "10ffd+6 13006+6"},
		{"[^.-]+needle", 0, maxAddr, "13000+12"},
	} {
		p, err := Compile(c.expr)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range found(t, s, p, c.from, c.to) {
			got = append(got, fmt.Sprintf("%x+%d", m.Addr, m.Len))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s in %x-%x: %v, want %s", c.expr, c.from, c.to, got, c.want)
		}
	}
}

// What a search in blocks finds is what one in the whole finds.
func TestSearchBlocks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 3*block+5*page)
	for i := range text {
		text[i] = "ab\n"[random.IntN(3)]
	}
	for i := range 18000 { // matches that cross the bounds
		text[block-9000+i], text[2*block-9001+i] = 'a', 'a'
	}
	copy(text[2*block-3:], "needle")
	s := spaceOf(t, 0x10000, text)
	for _, expr := range []string{"needle", "aa", "aaaaaaaaa", "aba", "a{1000}", "(?m)^b+$", "b[^b]+b", `a\nb`} {
		p, err := Compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		var want []Match
		p.find(text, 0, len(text), func(i, j int) { want = append(want, Match{0x10000 + uint64(i), j - i}) })
		got := found(t, s, p, 0, maxAddr)
		if len(want) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %d matches, want %d", expr, len(got), len(want))
		}
	}
}

func TestSearchEnds(t *testing.T) {
	s := spaceOf(t, 0x10000, bytes.Repeat([]byte("ab"), 4*block))
	stop := errors.New("enough")
	n := 0
	err := s.Search(t.Context(), Literal([]byte("a")), 0, maxAddr, func(Match) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if err != stop || n != 3 {
		t.Errorf("%v after %d matches", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = s.Search(ctx, Literal([]byte("a")), 0, maxAddr, func(Match) error { cancel(); return nil })
	if err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCompile(t *testing.T) {
	for expr, want := range map[string]string{"(": "missing closing", "a*": "matches nothing", "": "matches nothing", "a|": "matches nothing"} {
		if _, err := Compile(expr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Compile(%q): %v", expr, err)
		}
	}
}

func FuzzSearch(f *testing.F) {
	f.Add([]byte("aab\nab"), "a+b", uint16(1), uint16(5))
	f.Fuzz(func(t *testing.T, b []byte, expr string, from, to uint16) {
		p, err := Compile(expr)
		if err != nil {
			return
		}
		lo, hi := min(int(from), len(b)), min(int(to), len(b))
		end := lo
		p.find(b, lo, hi, func(i, j int) {
			if i < end || i >= hi || j <= i || j > len(b) {
				t.Errorf("%q in %q[%d:%d]: match %d:%d behind %d", expr, b, lo, hi, i, j, end)
			}
			end = j
		})
	})
}

// BenchmarkSearch: the target is 1 GiB in a second on two processors.
func BenchmarkSearch(b *testing.B) {
	text := make([]byte, 256<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	copy(text[len(text)-100:], "the needle in the haystack")
	s := spaceOf(b, 0x10000, text)
	for _, expr := range []string{"needle in the haystack", "needle [a-z]+ the haystack", "[n]eedle in"} {
		p, err := Compile(expr)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(expr, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if len(found(b, s, p, 0, maxAddr)) != 1 {
					b.Fatal("not found")
				}
			}
		})
	}
}
