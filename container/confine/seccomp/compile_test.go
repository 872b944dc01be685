package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"crucible/container/confine"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func number(n uint) *uint { return &n }

func TestCompileErrors(t *testing.T) {
	rule := func(s specs.LinuxSyscall) specs.LinuxSeccomp {
		return specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{s}}
	}
	for want, profile := range map[string]specs.LinuxSeccomp{
		`defaultAction: unknown action ""`:                                {},
		`defaultAction: SCMP_ACT_NOTIFY: not supported`:                   {DefaultAction: specs.ActNotify},
		`defaultAction: SCMP_ACT_KILL takes no error number`:              {DefaultAction: specs.ActKill, DefaultErrnoRet: number(1)},
		`listenerPath and listenerMetadata: not supported`:                {DefaultAction: specs.ActAllow, ListenerPath: "/x"},
		`flags: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" not supported`:   {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}},
		`architectures: unknown architecture "x86"`:                       {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"x86"}},
		`syscalls[0] [a]: action: unknown action "SCMP_ACT_MAYBE"`:        rule(specs.LinuxSyscall{Names: []string{"a"}, Action: "SCMP_ACT_MAYBE"}),
		`syscalls[0] [a]: action: SCMP_ACT_NOTIFY: not supported`:         rule(specs.LinuxSyscall{Names: []string{"a"}, Action: specs.ActNotify}),
		`syscalls[0] [a]: action: error number 4096 is above 4095`:        rule(specs.LinuxSyscall{Names: []string{"a"}, Action: specs.ActErrno, ErrnoRet: number(4096)}),
		`syscalls[0] [a]: args: index 6: a system call has six arguments`: rule(specs.LinuxSyscall{Names: []string{"a"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
		`syscalls[0] [a]: args: unknown operator "="`:                     rule(specs.LinuxSyscall{Names: []string{"a"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "="}}}),
		`syscalls[0]: names: none`:                                        rule(specs.LinuxSyscall{Action: specs.ActErrno}),
	} {
		t.Run(want, func(t *testing.T) {
			_, err := Compile(&profile)
			if err == nil || err.Error() != "seccomp: "+want {
				t.Errorf("error %v", err)
			}
		})
	}
	if f, err := Compile(nil); f != nil || err != nil {
		t.Errorf("no profile gives %v, %v", f, err)
	}
	if _, err := compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "s390x"); err == nil {
		t.Error("compiled for a machine without a table")
	}
}

// call is what the kernel shows a filter.
type call struct {
	audit, number uint32
	args          [6]uint64
}

// machine executes a filter as the kernel would. The interpreter is made for
// packets and reads big-endian words, so the words are written that way.
func machine(t testing.TB, f *confine.Filter) func(call) uint32 {
	t.Helper()
	var program []bpf.Instruction
	for b := f.Program; len(b) > 0; b = b[8:] {
		program = append(program, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:]),
		}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return func(c call) uint32 {
		data := binary.BigEndian.AppendUint32(nil, c.number)
		data = binary.BigEndian.AppendUint32(data, c.audit)
		data = append(data, 0, 0, 0, 0, 0, 0, 0, 0) // instruction pointer
		for _, a := range c.args {
			data = binary.BigEndian.AppendUint32(data, uint32(a))
			data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
		}
		verdict, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(verdict)
	}
}

// holds and decide are the meaning of a profile, written down the plain way.
func holds(a specs.LinuxSeccompArg, args [6]uint64, wide bool) bool {
	x, v, w := args[a.Index], a.Value, a.ValueTwo
	if !wide {
		x, v, w = uint64(uint32(x)), uint64(uint32(v)), uint64(uint32(w))
	}
	switch a.Op {
	case specs.OpNotEqual:
		return x != v
	case specs.OpLessThan:
		return x < v
	case specs.OpLessEqual:
		return x <= v
	case specs.OpEqualTo:
		return x == v
	case specs.OpGreaterEqual:
		return x >= v
	case specs.OpGreaterThan:
		return x > v
	}
	return x&v == w
}

func matches(s specs.LinuxSyscall, args [6]uint64, wide bool) bool {
	all, some, repeated := true, false, false
	seen := make(map[uint]bool)
	for _, a := range s.Args {
		ok := holds(a, args, wide)
		all, some, repeated = all && ok, some || ok, repeated || seen[a.Index]
		seen[a.Index] = true
	}
	if repeated {
		return some
	}
	return all
}

// namesOf turns the tables round, for each architecture a profile is about.
func namesOf(t testing.TB, profile *specs.LinuxSeccomp, goarch string) map[specs.Arch]map[uint32]string {
	list, err := wanted(goarch, profile.Architectures)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[specs.Arch]map[uint32]string)
	for _, a := range list {
		table, err := a.numbers()
		if err != nil {
			t.Fatal(err)
		}
		names[a.name] = make(map[uint32]string)
		for name, n := range table {
			names[a.name][n] = name
		}
	}
	return names
}

func decide(profile *specs.LinuxSeccomp, goarch string, names map[specs.Arch]map[uint32]string, c call) uint32 {
	fallback, _ := parseAction(profile.DefaultAction, profile.DefaultErrnoRet)
	name, wide, known := "", false, false
	for _, a := range archesOf(goarch) {
		if names[a.name] == nil {
			continue
		}
		if a.audit != c.audit || a.audit == unix.AUDIT_ARCH_X86_64 && (a.bit != 0) != (c.number >= x32Bit) && c.number != ^uint32(0) {
			continue
		}
		known, wide, name = true, a.wide, names[a.name][c.number]
	}
	if !known {
		return unix.SECCOMP_RET_KILL_PROCESS
	}
	result, sure := fallback, false
	for _, s := range slices.Backward(profile.Syscalls) {
		action, _ := parseAction(s.Action, s.ErrnoRet)
		if !slices.Contains(s.Names, name) || action == fallback {
			continue
		}
		if len(s.Args) == 0 {
			result, sure = action, true
		} else if !sure && matches(s, c.args, wide) {
			result = action
		}
	}
	return result
}

var goarches = []string{"amd64", "arm64", "arm", "386", "riscv64"}

// calls are worth asking a filter about: all names of all architectures with
// some arguments, and numbers that nobody has.
func calls(goarch string, values []uint64, random *rand.Rand) []call {
	var list []call
	add := func(audit, n uint32) {
		for range 4 {
			c := call{audit: audit, number: n}
			for i := range c.args {
				c.args[i] = values[random.IntN(len(values))] + uint64(random.IntN(3)) - 1
			}
			list = append(list, c)
		}
	}
	for _, a := range archesOf(goarch) {
		table, _ := a.numbers()
		for _, n := range table {
			add(a.audit, n)
		}
		for _, n := range []uint32{^uint32(0), 7777, x32Bit - 1, x32Bit, x32Bit + 7777, 1 << 31} {
			add(a.audit, n)
		}
	}
	add(unix.AUDIT_ARCH_PPC64, 1)
	return list
}

func compare(t *testing.T, profile *specs.LinuxSeccomp, goarch string, list []call) *confine.Filter {
	t.Helper()
	filter, err := compile(profile, goarch)
	if err != nil {
		t.Fatal(err)
	}
	names := namesOf(t, profile, goarch)
	vm := machine(t, filter)
	for _, c := range list {
		if got, want := vm(c), decide(profile, goarch, names, c); got != want {
			text, _ := json.Marshal(profile)
			t.Fatalf("%s: %+v: filter says %#x, profile %#x\n%.2000s", goarch, c, got, want, text)
		}
	}
	return filter
}

// The profile that other engines give every container.
func TestDefaultProfile(t *testing.T) {
	data, err := os.ReadFile("testdata/default.json")
	if err != nil {
		t.Fatal(err)
	}
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal(data, &profile); err != nil {
		t.Fatal(err)
	}
	for _, goarch := range goarches {
		list := calls(goarch, []uint64{0, 1, 16, 40, 1 << 32, ^uint64(0), 0x7E020000, 0x20000}, rand.New(rand.NewPCG(1, 2)))
		filter := compare(t, &profile, goarch, list)
		again, err := compile(&profile, goarch)
		if err != nil || string(again.Program) != string(filter.Program) {
			t.Errorf("%s: two compilations differ (%v)", goarch, err)
		}
		t.Logf("%s: %d instructions", goarch, filter.Len())
	}
}

// Random profiles over few names, so that rules meet.
func TestRandomProfiles(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	names := []string{"read", "write", "open", "openat", "clone", "personality", "exit", "rt_sigaction", "no_such_call", "futex_wake", "set_tls"}
	operators := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
		specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActTrap, specs.ActTrace, specs.ActLog}
	values := []uint64{0, 1, 2, 0xffffffff, 1 << 32, 1<<32 + 1, 5 << 32, ^uint64(0)}
	pick := func(n int) int { return random.IntN(n) }
	for round := range 400 {
		profile := specs.LinuxSeccomp{DefaultAction: actions[pick(len(actions))]}
		for _, a := range []specs.Arch{specs.ArchX86, specs.ArchX32, specs.ArchARM, specs.ArchPPC} {
			if pick(2) == 0 {
				profile.Architectures = append(profile.Architectures, a)
			}
		}
		for range pick(12) {
			s := specs.LinuxSyscall{Action: actions[pick(len(actions))]}
			for range 1 + pick(4) {
				s.Names = append(s.Names, names[pick(len(names))])
			}
			for range pick(4) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(pick(6)), Op: operators[pick(len(operators))],
					Value: values[pick(len(values))], ValueTwo: values[pick(len(values))]})
			}
			if (s.Action == specs.ActErrno || s.Action == specs.ActTrace) && pick(2) == 0 {
				s.ErrnoRet = number(uint(pick(100)))
			}
			profile.Syscalls = append(profile.Syscalls, s)
		}
		goarch := goarches[round%len(goarches)]
		var few []call
		for _, a := range archesOf(goarch) {
			table, _ := a.numbers()
			for _, n := range names {
				if nr, ok := table[n]; ok {
					for range 6 {
						c := call{audit: a.audit, number: nr}
						for i := range c.args {
							c.args[i] = values[pick(len(values))]
						}
						few = append(few, c)
					}
				}
			}
		}
		few = append(few, call{audit: unix.AUDIT_ARCH_I386, number: 3}, call{audit: unix.AUDIT_ARCH_X86_64, number: x32Bit})
		compare(t, &profile, goarch, few)
	}
}

// A filter with more than 255 instructions between a jump and its target.
func TestLongJumps(t *testing.T) {
	profile := specs.LinuxSeccomp{DefaultAction: specs.ActKill}
	for i, name := range strings.Fields(namesX86_64)[:400] {
		if i%2 != 0 {
			continue
		}
		profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{
			Names: []string{name}, Action: specs.ActErrno, ErrnoRet: number(uint(i)),
			Args: []specs.LinuxSeccompArg{
				{Index: 0, Op: specs.OpGreaterThan, Value: 1 << 33},
				{Index: 1, Op: specs.OpMaskedEqual, Value: 1 << 33, ValueTwo: 0},
			},
		})
	}
	list := calls("amd64", []uint64{0, 1 << 33, 1 << 34}, rand.New(rand.NewPCG(5, 6)))
	if f := compare(t, &profile, "amd64", list); f.Len() < 1000 {
		t.Errorf("only %d instructions: this tests nothing", f.Len())
	}
	profile.Architectures = []specs.Arch{specs.ArchX86, specs.ArchX32}
	profile.Syscalls = append(profile.Syscalls, profile.Syscalls...)
	for i := range profile.Syscalls {
		profile.Syscalls[i].Args = append(profile.Syscalls[i].Args, specs.LinuxSeccompArg{Index: 3, Op: specs.OpNotEqual})
	}
	if _, err := compile(&profile, "amd64"); err == nil || !strings.Contains(err.Error(), "the kernel takes 4096") {
		t.Errorf("too long a filter: %v", err)
	}
}

// Calls inside socketcall and ipc.
func TestHiddenCalls(t *testing.T) {
	errno := func(n uint32) uint32 { return unix.SECCOMP_RET_ERRNO | n }
	deny := specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: number(7)},
		{Names: []string{"sendmmsg"}, Action: specs.ActErrno, ErrnoRet: number(8), Args: []specs.LinuxSeccompArg{{Index: 2, Op: specs.OpEqualTo, Value: 1}}},
		{Names: []string{"shmat"}, Action: specs.ActErrno, ErrnoRet: number(9)},
	}}
	allow := specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"bind"}, Action: specs.ActAllow},
		{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpNotEqual, Value: 40}}},
	}}
	for _, tc := range []struct {
		profile  *specs.LinuxSeccomp
		number   uint32
		argument uint64
		want     uint32
	}{
		{&deny, 102, 1, errno(7)},
		{&deny, 102, 2, unix.SECCOMP_RET_ALLOW},
		{&deny, 102, 20, errno(8)},
		{&deny, 117, 21, errno(9)},
		{&deny, 117, 1<<16 | 21, errno(9)},
		{&deny, 117, 22, unix.SECCOMP_RET_ALLOW},
		{&allow, 102, 2, unix.SECCOMP_RET_ALLOW},
		{&allow, 102, 1, errno(uint32(unix.EPERM))},
		{&allow, 117, 1, errno(uint32(unix.EPERM))},
	} {
		tc.profile.Architectures = []specs.Arch{specs.ArchX86}
		filter, err := compile(tc.profile, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		c := call{audit: unix.AUDIT_ARCH_I386, number: tc.number, args: [6]uint64{tc.argument}}
		if got := machine(t, filter)(c); got != tc.want {
			t.Errorf("call %d(%d): %#x, want %#x", tc.number, tc.argument, got, tc.want)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	data, err := os.ReadFile("testdata/default.json")
	if err != nil {
		b.Fatal(err)
	}
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal(data, &profile); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(&profile); err != nil {
			b.Fatal(err)
		}
	}
}
