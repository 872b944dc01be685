package seccomp

import (
	"encoding/binary"
	"slices"
	"testing"

	"crucible/container/confine"

	"golang.org/x/sys/unix"
)

// Conditional jumps reach 255 instructions: both ends of one, at every
// distance around that.
func TestJumpDistances(t *testing.T) {
	for near := 240; near < 270; near++ {
		for between := range 20 {
			for _, swap := range []bool{false, true} {
				p := &program{verdicts: make(map[uint32]int)}
				pad := func(n int) {
					for range n {
						p.emit(unix.BPF_RET|unix.BPF_K, 0xbad, 0, 0)
					}
				}
				yes := p.emit(unix.BPF_RET|unix.BPF_K, 1, 0, 0)
				pad(between)
				no := p.emit(unix.BPF_RET|unix.BPF_K, 2, 0, 0)
				pad(near)
				if swap {
					yes, no = no, yes
				}
				p.jump(unix.BPF_JEQ, 5, yes, no)
				p.load(offNumber)
				slices.Reverse(p.code)
				var f confine.Filter
				for _, i := range p.code {
					f.Program = binary.NativeEndian.AppendUint16(f.Program, i.Code)
					f.Program = binary.NativeEndian.AppendUint32(append(f.Program, i.Jt, i.Jf), i.K)
				}
				vm := machine(t, &f)
				got, want := [2]uint32{vm(call{number: 5}), vm(call{number: 6})}, [2]uint32{1, 2}
				if swap {
					want = [2]uint32{2, 1}
				}
				if got != want {
					t.Fatalf("distances %d and %d: %v, want %v", near, near+between, got, want)
				}
			}
		}
	}
}
