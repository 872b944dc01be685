package workload

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attributeCases ask about what a process says of itself to the kernel.
func attributeCases() []Case {
	return []Case{
		{Name: "process-name", Question: "Does the name that a process gave itself survive?", program: processName},
		{Name: "command-line", Question: "Do command line, environment and program file of a process survive?", program: commandLine},
		{Name: "dumpable", Question: "Does a process that may not be dumped stay so?",
			program: attribute("dumpable", unix.PR_SET_DUMPABLE, unix.PR_GET_DUMPABLE, 0, false)},
		{Name: "child-subreaper", Question: "Does a process that takes orphans in still do so?",
			program: attribute("child subreaper", unix.PR_SET_CHILD_SUBREAPER, unix.PR_GET_CHILD_SUBREAPER, 1, true)},
		{Name: "parent-death-signal", Question: "Does a process keep the signal that it wants at its parent's end?",
			program: attribute("signal", unix.PR_SET_PDEATHSIG, unix.PR_GET_PDEATHSIG, int(unix.SIGURG), true)},
		{Name: "timer-slack", Question: "Does a thread keep its timer slack?", program: attribute("timer slack", unix.PR_SET_TIMERSLACK, unix.PR_GET_TIMERSLACK, 123456, false),
			Known: &Known{StepCheck, "CRIU does not save the timer slack of a thread"}},
		{Name: "thp-disable", Question: "Does a process that wants no transparent huge pages stay so?",
			program: attribute("huge pages disabled", unix.PR_SET_THP_DISABLE, unix.PR_GET_THP_DISABLE, 1, false)},
		{Name: "personality", Question: "Does a process keep its personality?", program: personality,
			Known: &Known{StepCheck, "CRIU saves the personality and does not restore it (criu/cr-dump.c, get_task_personality)"}},
		{Name: "oom-score", Question: "Does a process keep its place in line for when memory is short?", program: oomScore},
		{Name: "nice", Question: "Does a process keep its niceness?", program: nice},
		{Name: "scheduling-policy", Question: "Do processes keep their scheduling policy?", program: schedulingPolicy},
		{Name: "cpu-affinity", Question: "Does a process stay tied to the processors that it chose?", Needs: []string{"machine/two processors"},
			Known: &Known{StepCheck, "CRIU does not save which processors a task is tied to"}, program: cpuAffinity},
	}
}

// attribute is the program that sets one by prctl(2). Some are read by way of a
// pointer.
func attribute(what string, set, get, value int, pointer bool) program {
	return func() (func() error, error) {
		if err := unix.Prctl(set, uintptr(value), 0, 0, 0); err != nil {
			return nil, lacks(what, err, unix.EINVAL)
		}
		check := func() error {
			got, err := int32(0), error(nil)
			if pointer {
				err = unix.Prctl(get, uintptr(unsafe.Pointer(&got)), 0, 0, 0)
			} else {
				var n int
				n, err = unix.PrctlRetInt(get, 0, 0, 0, 0)
				got = int32(n)
			}
			return first(err, same(what, int(got), value))
		}
		return check, check()
	}
}

func processName() (func() error, error) {
	name := []byte("(odd) name \x00")
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return nil, err
	}
	check := func() error {
		comm, err := os.ReadFile("/proc/self/comm")
		return first(err, same("name", string(comm), "(odd) name \n"))
	}
	return check, check()
}

func commandLine() (func() error, error) {
	return unchanged(func() (string, error) {
		out := ""
		for _, f := range []string{"cmdline", "environ", "auxv"} {
			text, err := os.ReadFile("/proc/self/" + f)
			if err != nil {
				return "", err
			}
			out += fmt.Sprintf("%s %q\n", f, text)
		}
		exe, err := os.Readlink("/proc/self/exe")
		fields, err2 := statFields(1)
		if err2 == nil {
			out += strings.Join(fields[23:26], " ") + " " + strings.Join(fields[42:49], " ") // where code, stack, data, brk, arguments are
		}
		return out + exe, first(err, err2)
	})
}

// personalityQuery reads the personality (personality(2)).
const personalityQuery = 0xffffffff

func personality() (func() error, error) {
	const noRandom, readImpliesExec = 0x0040000, 0x0400000 // include/uapi/linux/personality.h
	if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, noRandom|readImpliesExec, 0, 0); errno != 0 {
		return nil, lacks("personality", errno)
	}
	return func() error {
		got, _, _ := unix.RawSyscall(unix.SYS_PERSONALITY, personalityQuery, 0, 0)
		return same("personality", got, uintptr(noRandom|readImpliesExec))
	}, nil
}

func oomScore() (func() error, error) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("345"), 0); err != nil {
		return nil, err
	}
	return func() error {
		text, err := os.ReadFile("/proc/self/oom_score_adj")
		return first(err, same("oom_score_adj", string(text), "345\n"))
	}, nil
}

func nice() (func() error, error) {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 5); err != nil {
		return nil, fmt.Errorf("setpriority: %w", err)
	}
	return func() error {
		got, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 less the niceness
		return first(err, same("niceness", 20-got, 5))
	}, nil
}

func schedulingPolicy() (func() error, error) {
	const batch, idle = 3, 5 // SCHED_BATCH, SCHED_IDLE
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	var pids [2]int
	for i, policy := range []uintptr{batch, idle} {
		priority := int32(0)
		pids[i], err = fork(func() {
			unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, policy, uintptr(unsafe.Pointer(&priority)))
			l.tell(0)
			pause()
		})
		if err != nil {
			return nil, err
		}
	}
	check := func() error {
		for i, policy := range []uintptr{batch, idle} {
			got, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(pids[i]), 0, 0)
			if errno != 0 {
				return fmt.Errorf("sched_getscheduler: %w", errno)
			}
			if err := same("policy", got, policy); err != nil {
				return err
			}
		}
		return nil
	}
	return check, first(l.answers(2), check())
}

func cpuAffinity() (func() error, error) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, err
	}
	if all.Count() < 2 {
		return nil, &LackError{"machine/two processors", "the container may use one"}
	}
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, err
	}
	return func() error {
		var got unix.CPUSet
		err := unix.SchedGetaffinity(0, &got)
		return first(err, same("processors", got.Count(), 1))
	}, nil
}
