package seccomp

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h), on little-endian machines.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// target is where a jump leads: an instruction, or straight to a verdict.
type target struct {
	leaf   bool
	action uint32 // leaf
	at     int    // not leaf: how many instructions there were when it was written
}

func verdict(action uint32) target { return target{leaf: true, action: action} }

// program is written from its end to its beginning, because jumps of classic
// BPF lead forward only: what a jump leads to is there already, and its
// distance is known.
type program struct {
	code     []unix.SockFilter // the last instruction first
	verdicts map[uint32]int    // where the nearest return of a verdict is
}

func (p *program) emit(code uint16, k uint32, yes, no uint8) target {
	p.code = append(p.code, unix.SockFilter{Code: code, Jt: yes, Jf: no, K: k})
	return target{at: len(p.code)}
}

// reach says how far a target is from the next instruction to be written, and
// brings it closer if a conditional jump (8 bits) could not reach it.
func (p *program) reach(t target, spare int) target {
	if t.leaf {
		at, found := p.verdicts[t.action]
		if !found || len(p.code)-at+spare > 255 {
			at = p.emit(unix.BPF_RET|unix.BPF_K, t.action, 0, 0).at
			p.verdicts[t.action] = at
		}
		return target{at: at}
	}
	if distance := len(p.code) - t.at; distance+spare > 255 {
		return p.emit(unix.BPF_JMP|unix.BPF_JA, uint32(distance), 0, 0)
	}
	return t
}

// jump writes "if A op k goto yes else goto no".
func (p *program) jump(op uint16, k uint32, yes, no target) target {
	// Bringing the second one closer may put one instruction in between.
	yes = p.reach(yes, 1)
	no = p.reach(no, 0)
	return p.emit(unix.BPF_JMP|op|unix.BPF_K, k, uint8(len(p.code)-yes.at), uint8(len(p.code)-no.at))
}

func (p *program) load(offset uint32) target {
	return p.emit(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, 0, 0)
}

// first makes a target the very next instruction, so that one can be put in
// front of it.
func (p *program) first(t target) target {
	if t.leaf || t.at != len(p.code) {
		t = p.reach(t, 0)
		if t.at != len(p.code) {
			return p.emit(unix.BPF_JMP|unix.BPF_JA, uint32(len(p.code)-t.at), 0, 0)
		}
	}
	return t
}

// assemble writes the whole filter:
//
//	architecture? -> number? (a binary search) -> arguments? -> verdict
func assemble(policies []policy, fallback uint32) ([]byte, error) {
	p := &program{verdicts: make(map[uint32]int)}
	kill := verdict(unix.SECCOMP_RET_KILL_PROCESS)
	next := kill
	for i := len(policies) - 1; i >= 0; i-- {
		audit := policies[i].audit
		same := policies[i : i+1]
		for i > 0 && policies[i-1].audit == audit { // x86-64 and x32
			i--
			same = policies[i : i+len(same)+1]
		}
		p.first(p.search(p.spans(same, fallback)))
		next = p.jump(unix.BPF_JEQ, audit, p.load(offNumber), next)
	}
	p.first(next)
	p.load(offArch)
	if len(p.code) > 4096 { // BPF_MAXINSNS
		return nil, fmt.Errorf("the profile makes a filter of %d instructions, the kernel takes 4096", len(p.code))
	}
	slices.Reverse(p.code)
	var out []byte
	for _, i := range p.code {
		out = binary.NativeEndian.AppendUint16(out, i.Code)
		out = append(out, i.Jt, i.Jf)
		out = binary.NativeEndian.AppendUint32(out, i.K)
	}
	return out, nil
}

// span is a range of numbers, up to the next span's first, with one body.
type span struct {
	first uint32
	body  target
}

// spans cover all numbers that one audit architecture can show.
func (p *program) spans(policies []policy, fallback uint32) []span {
	other := verdict(fallback)
	list := []span{{0, other}}
	isX86, x32 := policies[0].name == specs.ArchX86_64, len(policies) > 1
	for _, pol := range policies {
		for _, n := range slices.Sorted(maps.Keys(pol.calls)) {
			list = append(list, span{n, p.body(pol.calls[n], pol.wide, fallback)})
			if _, next := pol.calls[n+1]; !next {
				list = append(list, span{n + 1, other})
			}
		}
	}
	if isX86 && !x32 {
		// -1 is the number that a tracer leaves to have a call skipped.
		list = append(list, span{x32Bit, verdict(unix.SECCOMP_RET_KILL_PROCESS)}, span{^uint32(0), other})
	}
	slices.SortStableFunc(list, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return slices.CompactFunc(list, func(a, b span) bool { return a.body == b.body })
}

// search finds the span of the number in A.
func (p *program) search(list []span) target {
	if len(list) == 1 {
		return list[0].body
	}
	half := len(list) / 2
	upper := p.search(list[half:])
	lower := p.search(list[:half])
	return p.jump(unix.BPF_JGE, list[half].first, upper, lower)
}

// body decides about one call by its arguments.
func (p *program) body(c callRules, wide bool, fallback uint32) target {
	if c.always {
		return verdict(c.action)
	}
	next := verdict(fallback)
	for i := len(c.conditional) - 1; i >= 0; i-- {
		r := c.conditional[i]
		for j := len(r.anyOf) - 1; j >= 0; j-- {
			hit := verdict(r.action)
			for _, cond := range slices.Backward(r.anyOf[j]) {
				hit = p.compare(cond, wide, hit, next)
			}
			next = hit
		}
	}
	return next
}

// compare writes one condition. A has 32 bits, so a wide argument takes two
// looks: the upper half decides unless it is equal.
func (p *program) compare(c condition, wide bool, yes, no target) target {
	op := uint16(unix.BPF_JEQ)
	mask := ^uint64(0)
	value := c.value
	switch c.op {
	case specs.OpMaskedEqual:
		mask, value = c.value, c.masked
	case specs.OpNotEqual:
		yes, no = no, yes
	case specs.OpGreaterEqual:
		op = unix.BPF_JGE
	case specs.OpGreaterThan:
		op = unix.BPF_JGT
	case specs.OpLessThan: // not >=
		op, yes, no = unix.BPF_JGE, no, yes
	case specs.OpLessEqual: // not >
		op, yes, no = unix.BPF_JGT, no, yes
	}
	low, high := offArgs+8*uint32(c.argument), offArgs+8*uint32(c.argument)+4
	t := p.half(op, low, uint32(mask), uint32(value), yes, no)
	if !wide {
		return t
	}
	if op == unix.BPF_JEQ {
		return p.half(op, high, uint32(mask>>32), uint32(value>>32), t, no)
	}
	equal := p.jump(unix.BPF_JEQ, uint32(value>>32), t, no)
	p.jump(unix.BPF_JGT, uint32(value>>32), yes, equal)
	return p.load(high)
}

func (p *program) half(op uint16, offset, mask, value uint32, yes, no target) target {
	p.jump(op, value, yes, no)
	if mask != ^uint32(0) {
		p.emit(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, mask, 0, 0)
	}
	return p.load(offset)
}
