package seccomp

import (
	"fmt"
	"runtime"

	"crucible/container/confine"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Compile turns a profile into a filter for this machine. No profile, no
// filter.
func Compile(profile *specs.LinuxSeccomp) (*confine.Filter, error) {
	if profile == nil {
		return nil, nil
	}
	filter, err := compile(profile, runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	return filter, nil
}

func compile(profile *specs.LinuxSeccomp, goarch string) (*confine.Filter, error) {
	flags, err := parseFlags(profile)
	if err != nil {
		return nil, err
	}
	rules, fallback, err := parseRules(profile)
	if err != nil {
		return nil, err
	}
	arches, err := wanted(goarch, profile.Architectures)
	if err != nil {
		return nil, err
	}
	var policies []policy
	for _, a := range arches {
		p, err := newPolicy(a, rules, fallback)
		if err != nil {
			return nil, err
		}
		policies = append(policies, p)
	}
	code, err := assemble(policies, fallback)
	if err != nil {
		return nil, err
	}
	return &confine.Filter{Flags: flags, Program: code}, nil
}

func parseFlags(profile *specs.LinuxSeccomp) (uint32, error) {
	if profile.ListenerPath != "" || profile.ListenerMetadata != "" {
		return 0, fmt.Errorf("listenerPath and listenerMetadata: not supported")
	}
	var flags uint32
	for _, f := range profile.Flags {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// About other threads, which the execve ends.
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		default:
			return 0, fmt.Errorf("flags: %q not supported", f)
		}
	}
	return flags, nil
}

// parseAction gives what the filter returns (linux/seccomp.h).
func parseAction(action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	// The specification: EPERM unless said otherwise.
	data := uint32(unix.EPERM)
	if errno != nil {
		if *errno > 4095 { // MAX_ERRNO, to which the kernel cuts it
			return 0, fmt.Errorf("error number %d is above 4095", *errno)
		}
		data = uint32(*errno)
	}
	switch action {
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	}
	if errno != nil {
		return 0, fmt.Errorf("%s takes no error number", action)
	}
	switch action {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActNotify:
		return 0, fmt.Errorf("%s: not supported", action)
	}
	return 0, fmt.Errorf("unknown action %q", action)
}

// rule is what a profile says about some calls, read and checked.
type rule struct {
	names  []string
	action uint32
	anyOf  [][]condition // alternatives, each a list of which all must hold; none: always
}

// condition compares one argument.
type condition struct {
	argument uint
	op       specs.LinuxSeccompOperator
	value    uint64
	masked   uint64 // what SCMP_CMP_MASKED_EQ wants to find under the mask
}

func parseRules(profile *specs.LinuxSeccomp) (rules []rule, fallback uint32, err error) {
	fallback, err = parseAction(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, 0, fmt.Errorf("defaultAction: %w", err)
	}
	for i, s := range profile.Syscalls {
		r := rule{names: s.Names}
		if r.action, err = parseAction(s.Action, s.ErrnoRet); err != nil {
			return nil, 0, fmt.Errorf("syscalls[%d] %v: action: %w", i, s.Names, err)
		}
		if r.anyOf, err = parseConditions(s.Args); err != nil {
			return nil, 0, fmt.Errorf("syscalls[%d] %v: args: %w", i, s.Names, err)
		}
		if len(s.Names) == 0 {
			return nil, 0, fmt.Errorf("syscalls[%d]: names: none", i)
		}
		if r.action != fallback {
			rules = append(rules, r)
		}
	}
	return rules, fallback, nil
}

func parseConditions(args []specs.LinuxSeccompArg) ([][]condition, error) {
	if len(args) == 0 {
		return nil, nil
	}
	var all []condition
	var seen, repeated [6]bool
	alternatives := false
	for _, a := range args {
		if a.Index > 5 {
			return nil, fmt.Errorf("index %d: a system call has six arguments", a.Index)
		}
		switch a.Op {
		case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
			specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		default:
			return nil, fmt.Errorf("unknown operator %q", a.Op)
		}
		repeated[a.Index], seen[a.Index] = seen[a.Index], true
		alternatives = alternatives || repeated[a.Index]
		all = append(all, condition{a.Index, a.Op, a.Value, a.ValueTwo})
	}
	if !alternatives {
		return [][]condition{all}, nil
	}
	var anyOf [][]condition
	for _, c := range all {
		anyOf = append(anyOf, []condition{c})
	}
	return anyOf, nil
}

// policy is what happens to the calls of one architecture.
type policy struct {
	arch
	calls map[uint32]callRules
}

// callRules are the rules for one call: one without conditions, or several
// with.
type callRules struct {
	always      bool
	action      uint32
	conditional []rule
}

func newPolicy(a arch, rules []rule, fallback uint32) (policy, error) {
	numbers, err := a.numbers()
	if err != nil {
		return policy{}, err
	}
	p := policy{arch: a, calls: make(map[uint32]callRules, len(numbers))}
	for _, r := range rules {
		for _, name := range r.names {
			if n, found := numbers[name]; found {
				p.add(n, r)
			}
			if a.name == specs.ArchX86 {
				p.addHidden(numbers, name, r, fallback)
			}
		}
	}
	return p, nil
}

func (p policy) add(number uint32, r rule) {
	c := p.calls[number]
	switch {
	case c.always:
	case r.anyOf == nil:
		c = callRules{always: true, action: r.action}
	default:
		c.conditional = append(c.conditional, r)
	}
	p.calls[number] = c
}

// addHidden applies a rule to the same call inside socketcall or ipc. Its
// arguments are behind a pointer there, so a rule with conditions is applied
// without them if it forbids, and not at all if it allows.
func (p policy) addHidden(numbers map[string]uint32, name string, r rule, fallback uint32) {
	call, number := hidden(name)
	if call == "" || r.anyOf != nil && severity(r.action) < severity(fallback) {
		return
	}
	// The upper half of ipc's first argument is a version.
	which := condition{argument: 0, op: specs.OpMaskedEqual, value: 0xffff, masked: number}
	if call == "socketcall" {
		which = condition{argument: 0, op: specs.OpEqualTo, value: number}
	}
	p.add(numbers[call], rule{action: r.action, anyOf: [][]condition{{which}}})
}

// severity orders actions as the kernel does when filters disagree
// (SECCOMP_RET_ACTION_FULL, compared as a signed number: the least wins).
func severity(action uint32) int64 { return -int64(int32(action & unix.SECCOMP_RET_ACTION_FULL)) }
