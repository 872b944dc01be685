package cgroup

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestDeviceLines(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	for _, c := range []struct {
		rule specs.LinuxDeviceCgroup
		want []string
	}{
		{specs.LinuxDeviceCgroup{}, []string{"a"}},
		{specs.LinuxDeviceCgroup{Type: "a", Access: "mwr"}, []string{"a"}},
		{specs.LinuxDeviceCgroup{Type: "a", Access: "m"}, []string{"b *:* m", "c *:* m"}},
		{specs.LinuxDeviceCgroup{Type: "c", Major: n(1), Minor: n(3), Access: "rw"}, []string{"c 1:3 rw"}},
		{specs.LinuxDeviceCgroup{Type: "b", Major: n(8), Minor: n(-1)}, []string{"b 8:* mrw"}},
	} {
		r, err := newRule(c.rule)
		if err != nil {
			t.Errorf("%+v: %v", c.rule, err)
		}
		if d := cmp.Diff(c.want, r.lines()); d != "" {
			t.Errorf("%+v: %s", c.rule, d)
		}
	}
}

// run interprets a device program: the instructions that deviceProgram uses.
func run(t *testing.T, p []byte, kind, access, major, minor uint32) uint64 {
	t.Helper()
	context := map[int16]uint32{0: access<<16 | kind, 4: major, 8: minor}
	var r [11]uint64
	for at := 0; at < len(p)/8; at++ {
		i := p[at*8:]
		dst, src := i[1]&15, i[1]>>4
		off, imm := int16(binary.NativeEndian.Uint16(i[2:])), binary.NativeEndian.Uint32(i[4:])
		switch i[0] {
		case opLoad32:
			if src != 1 {
				t.Fatalf("insn %d loads from r%d", at, src)
			}
			r[dst] = uint64(context[off])
		case opMovImm:
			r[dst] = uint64(imm)
		case opMovReg:
			r[dst] = r[src]
		case opAndImm:
			r[dst] = uint64(uint32(r[dst]) & imm)
		case opRshImm:
			r[dst] = uint64(uint32(r[dst]) >> imm)
		case opJumpNe:
			if uint32(r[dst]) != imm {
				at += int(off)
			}
		case opJumpEq:
			if uint32(r[dst]) == imm {
				at += int(off)
			}
		case opExit:
			return r[0]
		default:
			t.Fatalf("insn %d: code %#x", at, i[0])
		}
	}
	t.Fatal("the program ran off its end")
	return 0
}

// allowed is what the program must say: for each access the last rule about it
// counts.
func allowed(rules []rule, kind, access, major, minor uint32) bool {
	for bit := uint32(1); bit <= accessAll; bit <<= 1 {
		if access&bit == 0 {
			continue
		}
		ok := true
		for _, r := range rules {
			if r.access&bit != 0 && (r.kind == 'a' || r.kind == 'b' && kind == typeBlock || r.kind == 'c' && kind == typeChar) &&
				(r.major < 0 || uint32(r.major) == major) && (r.minor < 0 || uint32(r.minor) == minor) {
				ok = r.allow
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

func TestDeviceProgram(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	denied := 0
	for range 2000 {
		var rules []rule
		for range random.IntN(6) {
			rules = append(rules, rule{
				allow: random.IntN(2) == 0, kind: "abc"[random.IntN(3)],
				major: int64(random.IntN(4) - 1), minor: int64(random.IntN(4) - 1), access: 1 + random.Uint32N(accessAll),
			})
		}
		p := deviceProgram(rules)
		for range 50 {
			kind, access, major, minor := 1+random.Uint32N(2), 1+random.Uint32N(accessAll), random.Uint32N(3), random.Uint32N(3)
			want := allowed(rules, kind, access, major, minor)
			if got := run(t, p, kind, access, major, minor) == 1; got != want {
				t.Fatalf("rules %+v: kind %d access %d device %d:%d: %v, want %v", rules, kind, access, major, minor, got, want)
			}
			if !want {
				denied++
			}
		}
	}
	if denied < 1000 {
		t.Errorf("only %d cases were denied", denied)
	}
}

func TestDefaultDevices(t *testing.T) {
	s := &resources{version: version(2)}
	s.devices([]specs.LinuxDeviceCgroup{{Allow: false}})
	if s.err != nil || len(s.list) != 1 || s.list[0].program == nil {
		t.Fatalf("%v, %v", s.list, s.err)
	}
	p := s.list[0].program
	for _, c := range []struct {
		kind, access, major, minor uint32
		want                       uint64
	}{
		{typeChar, accessRead | accessWrite, 1, 3, 1},   // null
		{typeChar, accessRead | accessWrite, 136, 9, 1}, // a pseudo terminal
		{typeChar, accessMknod, 7, 7, 1},
		{typeChar, accessRead, 1, 1, 0}, // mem
		{typeBlock, accessRead, 8, 0, 0},
		{typeBlock, accessMknod | accessRead, 8, 0, 0},
	} {
		if got := run(t, p, c.kind, c.access, c.major, c.minor); got != c.want {
			t.Errorf("%+v: program says %d", c, got)
		}
	}
}
