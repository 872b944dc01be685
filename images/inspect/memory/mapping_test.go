package memory

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"crucible/images"
	"crucible/images/inspect/criufile"
	"crucible/proto/imagepb"
)

// encode makes a file of CRIU's from JSON.
func encode(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := criufile.Encode(t.Context(), &b, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// vma is a mapping of an mm-*.img, with numbers of pages.
func vma(start, pages, offset, id uint64, prot, flags, status uint32) string {
	return fmt.Sprintf(`{"start": %d, "end": %d, "pgoff": %d, "shmid": %d, "prot": %d, "flags": %d, "status": %d, "fd": -1}`,
		start*page, (start+pages)*page, offset*page, id, prot, flags, status)
}

func mm(vmas ...string) string {
	zero := ""
	for _, f := range []string{"start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "arg_start", "arg_end", "env_start", "env_end"} {
		zero += `"mm_` + f + `": 0, `
	}
	return `{"magic": "MM", "entries": [{` + zero + `"mm_start_stack": ` + fmt.Sprint(0x90*page+8) + `, "exe_file_id": 1, "vmas": [` + strings.Join(vmas, ", ") + `]}]}`
}

const fown = `"fown": {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}`

func regular(id int, name string) string {
	return fmt.Sprintf(`{"type": "REG", "id": %d, "reg": {"id": %d, "flags": 0, "pos": 0, %s, "name": %q}}`, id, id, fown, name)
}

// process 7 has one mapping of each kind.
func mapped7(t testing.TB) *Memory {
	vmas := mm(
		vma(0x10, 4, 2, 1, 5, 2, 1|statusFilePrivate),
		vma(0x20, 2, 0, 0, 3, 0x22, 1|statusHeap|statusAnonPrivate),
		vma(0x30, 3, 0, 0, 3, 0x22, 1|statusAnonPrivate),
		vma(0x33, 4, 1, 2, 3, 1, 1|statusFileShared|statusMemfd),
		vma(0x40, 2, 0, 3, 1, 1, 1|statusFileShared),
		vma(0x50, 2, 0, 44, 3, 0x21, 1|statusAnonShared),
		vma(0x60, 1, 0, 0, 5, 0x22, 1|statusVDSO|statusAnonPrivate),
		vma(0x90, 2, 0, 0, 3, 0x122, 1|statusAnonPrivate),
	)
	files := `{"magic": "FILES", "entries": [` + regular(1, "/bin/program") + `, ` + regular(3, "/var/log") +
		`, {"type": "MEMFD", "id": 2, "memfd": {"id": 2, "flags": 2, "pos": 0, ` + fown + `, "inode_id": 9}}]}`
	memfd := `{"magic": "MEMFD_INODE", "entries": [{"name": "hidden", "uid": 0, "gid": 0, "size": 16384, "shmid": 55, "seals": 0, "inode_id": 9}]}`
	pagemap := now(now(now(now(header(1), 0x11*page, 1, present), 0x20*page, 1, present), 0x32*page, 1, present), 0x91*page, 1, lazy)
	i := write(t, images.Store{Dir: t.TempDir()}, nil, map[string][]byte{
		"mm-7.img": encode(t, vmas), "files.img": encode(t, files), "memfd.img": encode(t, memfd),
		"pagemap-7.img": pagemap, "pages-1.img": fill("pha"),
		"pagemap-shmem-55.img": now(header(2), 0, 2, present), "pages-2.img": fill("01"),
	})
	return open(t, i)
}

func TestMappings(t *testing.T) {
	m := mapped7(t)
	all, err := m.Mappings(7)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, p := range all {
		u, err := m.Usage(7, p)
		if err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprintf("%x-%x %s %s %q +%d: here %d zero %d elsewhere %d remote %d\n", p.Start/page, p.End/page, p.Permissions, p.Kind, p.What(), p.Offset/page,
			u.Here, u.Zero, u.Elsewhere, u.Remote)
	}
	want := `10-14 r-xp file "/bin/program" +2: here 1 zero 0 elsewhere 3 remote 0
20-22 rw-p heap "[heap]" +0: here 1 zero 1 elsewhere 0 remote 0
30-33 rw-p anonymous "" +0: here 1 zero 2 elsewhere 0 remote 0
33-37 rw-s shared memory "hidden" +1: here 1 zero 3 elsewhere 0 remote 0
40-42 r--s file "/var/log" +0: here 0 zero 0 elsewhere 2 remote 0
50-52 rw-s shared memory "/dev/zero" +0: here 0 zero 2 elsewhere 0 remote 0
60-61 r-xp vdso "[vdso]" +0: here 0 zero 0 elsewhere 1 remote 0
90-92 rw-p stack "[stack]" +0: here 0 zero 1 elsewhere 0 remote 1
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if flags := strings.Join(all[7].FlagNames(), " "); flags != "private anonymous growsdown" {
		t.Errorf("flags of the stack: %s", flags)
	}
	if advice := strings.Join(Mapping{Advice: 1<<10 | 1<<40}.AdviceNames(), " "); advice != "dontfork 0x10000000000" {
		t.Errorf("advice: %s", advice)
	}
}

func TestAddressSpace(t *testing.T) {
	space, err := mapped7(t).AddressSpace(7)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := space.Parts(0x31*page+10, 0x35*page+20)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, p := range parts {
		b := make([]byte, p.Size)
		_, err := p.ReadAt(b, 0)
		got += fmt.Sprintf("%x+%d %s %q %v\n", p.Addr, p.Size, p.State, b[:1], err)
	}
	// What is at the beginning of the memfd is not mapped.
	want := `3100a+4086 zeros "\x00" <nil>
32000+4096 dumped "a" <nil>
33000+4096 dumped "1" <nil>
34000+4116 zeros "\x00" <nil>
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	parts, err = space.Parts(0x8f*page, 0x95*page)
	if err != nil {
		t.Fatal(err)
	}
	got = ""
	for _, p := range parts {
		_, err := p.ReadAt(make([]byte, 1), 0)
		got += fmt.Sprintf("%x+%d %s %v\n", p.Addr/page, p.Size/page, p.State, err)
	}
	want = `8f+1 unmapped no page at 8f000 was dumped
90+1 zeros <nil>
91+1 remote the page at 91000 stayed with the process
92+3 unmapped no page at 92000 was dumped
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if p := space.Mapping(0x36 * page); p == nil || p.Name != "hidden" {
		t.Errorf("mapping of 36: %v", p)
	}
	if p := space.Mapping(0x37 * page); p != nil {
		t.Errorf("mapping of 37: %v", p)
	}
}

func TestBadMappings(t *testing.T) {
	for name, c := range map[string]struct {
		mm   []byte
		want string
	}{
		"missing":     {nil, "criu/mm-7.img is missing"},
		"no mm":       {[]byte("nonsense"), "criu/mm-7.img cannot be read"},
		"cut off":     {encode(t, mm(vma(0x10, 4, 0, 0, 3, 0x22, 1)))[:30], "criu/mm-7.img cannot be read: entry 1"},
		"backwards":   {encode(t, mm(strings.Replace(vma(0x10, 4, 0, 0, 3, 0x22, 1), `"end": 81920`, `"end": 4096`, 1))), "has a mapping 10000-1000, which cannot be"},
		"overlapping": {encode(t, mm(vma(0x10, 4, 0, 0, 3, 0x22, 1), vma(0x13, 1, 0, 0, 3, 0x22, 1))), "has a mapping 13000-14000"},
		"unaligned":   {encode(t, mm(strings.Replace(vma(0x10, 4, 0, 0, 3, 0x22, 1), `"pgoff": 0`, `"pgoff": 5`, 1))), "has a mapping"},
	} {
		files := map[string][]byte{"pagemap-7.img": now(header(1), 0x1000, 1, present), "pages-1.img": fill("a")}
		if c.mm != nil {
			files["mm-7.img"] = c.mm
		}
		_, err := open(t, write(t, images.Store{Dir: t.TempDir()}, nil, files)).Mappings(7)
		if !errors.Is(err, images.Damaged) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// An offset from an image can be anything: nothing is there, then.
func TestFarOffset(t *testing.T) {
	m := mapped7(t)
	p := Mapping{Start: 0x1000, End: 0x9000, Kind: SharedMemory, Shared: 55, Offset: ^uint64(0) &^ 0xfff}
	u, err := m.Usage(7, p)
	if err != nil || u.Here != 0 || u.Zero != 8 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestPreDump(t *testing.T) {
	s := images.Store{Dir: t.TempDir()}
	i := write(t, s, nil, map[string][]byte{"pagemap-7.img": now(header(1), 0x1000, 2, present), "pages-1.img": fill("ab")})
	i.Manifest.Traits = &imagepb.Traits{PreDump: true}
	m := open(t, i)
	if _, err := m.Mappings(7); !errors.Is(err, images.PreDump) {
		t.Errorf("mappings: %v", err)
	}
	space, err := m.AddressSpace(7)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := space.Parts(0x800, 0x5000)
	if err != nil || len(parts) != 3 || parts[1].Addr != 0x1000 || parts[1].Size != 0x2000 || parts[1].State != Dumped || parts[2].State != Unmapped {
		t.Errorf("parts %+v, %v", parts, err)
	}
}
