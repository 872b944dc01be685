package memory

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"crucible/images"
)

// image is a process with one page for each letter of a text: - is a hole, ~
// stayed with the process, 0 is a page of zeros; a capital letter is in the parent.
func letters(t testing.TB, s images.Store, parent *images.Image, text string) *images.Image {
	t.Helper()
	pagemap, pages := header(1), []byte(nil)
	for n, c := range []byte(text) {
		addr := uint64(n) * page
		switch {
		case c == '-':
		case c == '~':
			pagemap = now(pagemap, addr, 1, lazy)
		case c >= 'A' && c <= 'Z':
			pagemap = now(pagemap, addr, 1, inParent)
		case c == '0':
			pagemap, pages = now(pagemap, addr, 1, present), append(pages, make([]byte, page)...)
		default:
			pagemap, pages = now(pagemap, addr, 1, present), append(pages, fill(string(c))...)
		}
	}
	return write(t, s, parent, map[string][]byte{"pagemap-7.img": pagemap, "pages-1.img": pages})
}

func process(t testing.TB, i *images.Image) *Space {
	t.Helper()
	s, err := open(t, i).Process(7)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// show writes a comparison as a letter for each page.
func show(c *Compared, pages int) string {
	out := bytes.Repeat([]byte("."), pages)
	for _, d := range c.Differences {
		for n := range d.Pages {
			out[d.Addr/page+n] = " !+-"[d.Change]
		}
	}
	return fmt.Sprintf("%s same %d shared %d", out, c.Same, c.Shared)
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b string
		zero bool
		want string
	}{
		{"abc", "abc", false, "... same 3 shared 0"},
		{"abcd", "axyd", false, ".!!. same 2 shared 0"},
		{"ab--", "-bc-", false, "-.+. same 1 shared 0"},
		{"ab0-", "-b-0", false, "-.-+ same 1 shared 0"},
		{"ab0-", "-b-0", true, "-... same 3 shared 0"},
		{"a~b~", "~~bc", false, "-..+ same 1 shared 0"},
		{"", "ab", false, "++ same 0 shared 0"},
		{"ab", "", false, "-- same 0 shared 0"},
		{"---", "---", false, "... same 0 shared 0"},
	} {
		s := images.Store{Dir: t.TempDir()}
		a, b := process(t, letters(t, s, nil, c.a)), process(t, letters(t, s, nil, c.b))
		got, err := Window{A: a, B: b, Length: 1 << 40, Zero: c.zero}.Compare(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if text := show(got, max(len(c.a), len(c.b))); text != c.want {
			t.Errorf("%s against %s: %s, want %s", c.a, c.b, text, c.want)
		}
	}
}

func TestCompareInChain(t *testing.T) {
	s := images.Store{Dir: t.TempDir()}
	one := letters(t, s, nil, "abcdefgh")
	two := letters(t, s, one, "ABxDEF-h")
	got, err := Window{A: process(t, one), B: process(t, two), Length: 1 << 40}.Compare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, want := show(got, 8), "..!...-. same 6 shared 5"; text != want {
		t.Errorf("%s, want %s", text, want)
	}
	// Windows that do not begin at the same address.
	got, err = Window{A: process(t, one), B: process(t, two), FromA: 0x1000, FromB: 0x3000, Length: 0x3000}.Compare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, want := show(got, 8), "...!!!.. same 0 shared 0"; text != want {
		t.Errorf("%s, want %s", text, want)
	}
}

// What is compared in pieces is what is compared page by page.
func TestCompareBlocks(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	text := func() string {
		b := make([]byte, 3*block/page+17)
		for i := range b {
			b[i] = 'a'
			if random.IntN(50) == 0 {
				b[i] = "b-"[random.IntN(2)]
			}
		}
		return string(b)
	}
	s := images.Store{Dir: t.TempDir()}
	a, b := text(), text()
	want, same := []byte(nil), 0
	for i := range a {
		c := byte('.')
		switch {
		case a[i] == b[i]:
			if a[i] != '-' {
				same++
			}
		case a[i] == '-':
			c = '+'
		case b[i] == '-':
			c = '-'
		default:
			c = '!'
		}
		want = append(want, c)
	}
	got, err := Window{A: process(t, letters(t, s, nil, a)), B: process(t, letters(t, s, nil, b)), Length: 1 << 40}.Compare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, want := show(got, len(a)), fmt.Sprintf("%s same %d shared 0", want, same); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestCompareFails(t *testing.T) {
	s := images.Store{Dir: t.TempDir()}
	a, b := process(t, letters(t, s, nil, "ab")), process(t, letters(t, s, nil, "ac"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Window{A: a, B: b, Length: 1 << 40}).Compare(ctx); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := (Window{A: a, B: b, FromA: 1, Length: 1 << 40}).Compare(t.Context()); err == nil {
		t.Error("compared at another place in the page")
	}
}

// BenchmarkCompare: the target is 1 GiB against 1 GiB in two seconds on two processors.
func BenchmarkCompare(b *testing.B) {
	text := make([]byte, 256<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	one, two := spaceOf(b, 0x10000, text), spaceOf(b, 0x10000, text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		c, err := Window{A: one, B: two, Length: 1 << 40}.Compare(b.Context())
		if err != nil || c.Same != uint64(len(text))/page {
			b.Fatal(c, err)
		}
	}
}
