package fingerprint

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// A task that waits in a system call is interrupted when it is dumped, and begins
// the call again after the restore: CRIU sets the instruction pointer back to
// the instruction that makes the call. Four calls cannot be begun again, because
// the kernel keeps what is left of them to itself (-ERESTART_RESTARTBLOCK):
// CRIU has them return EINTR (compel/arch/x86/src/lib/infect.c, get_task_regs).
//
// What shows which of the two it was, is /proc/PID/syscall: the instruction
// pointer is that after the call, or that of the call. Registers are not shown.
//
//	frozen       "35 0x7f.. 0x0 ... SP PC"  inside a call, or just at its end
//	restored     "-1 SP PC-2"               about to make it again
//	             "-1 SP PC"                 it returns

// callState is a line of /proc/PID/syscall.
type callState struct {
	number int // -1: none
	args   []string
	pc     uint64
}

// parseCall reads "running", "-1 SP PC", or "NUMBER A1 ... A6 SP PC".
func parseCall(line string) (c callState, running bool, err error) {
	words := strings.Fields(line)
	if len(words) == 1 && words[0] == "running" {
		return c, true, nil
	}
	if len(words) < 3 {
		return c, false, fmt.Errorf("syscall: %q is too short", line)
	}
	if c.number, err = strconv.Atoi(words[0]); err != nil {
		return c, false, fmt.Errorf("syscall: %w", err)
	}
	if c.pc, err = strconv.ParseUint(words[len(words)-1], 0, 64); err != nil {
		return c, false, fmt.Errorf("syscall: %w", err)
	}
	c.args = words[1 : len(words)-2]
	return c, false, nil
}

// stillness is how long a frozen task may take to leave its processor.
const stillness = 100 * time.Millisecond

// readCall reads the line. A task that the freezer counts as frozen may still be
// on its way off the processor, and is then "running"; there is no event for that.
func (t *taker) readCall(path string) (c callState, running bool, err error) {
	for wait := 10 * time.Microsecond; ; wait *= 2 {
		line, err := text(path)
		if err != nil {
			return c, false, err
		}
		if c, running, err = parseCall(line); !running || err != nil || wait > stillness {
			return c, running, err
		}
		time.Sleep(wait)
	}
}

// takeCall adds where a thread stands, and whether it is inside a system call
// or about to make one.
func (t *taker) takeCall(key string, p *process, th thread) {
	c, running, err := t.readCall(filepath.Join(p.path("task"), strconv.Itoa(th.tid), "syscall"))
	if os.IsNotExist(err) {
		return // a kernel without CONFIG_HAVE_ARCH_TRACEHOOK
	}
	if err != nil {
		t.cannot(key+"/call", err)
		return
	}
	if running {
		t.put(key+"/call", "running: not frozen")
		return
	}
	// A call that is to be made again may still have its number.
	instruction := t.callInstruction(p, c.pc)
	c.pc += uint64(instruction)
	note := ""
	if c.number >= 0 {
		note = callName(c.number) + "(" + strings.Join(c.args, ", ") + ")"
	}
	if c.number >= 0 || instruction > 0 {
		t.note(key+"/call", "inside", note)
	} else {
		t.put(key+"/call", "outside")
	}
	t.put(key+"/pc", fmt.Sprintf("%#x", c.pc))
}

// callInstruction is the length of the instruction at pc if it makes a call, or 0.
func (t *taker) callInstruction(p *process, pc uint64) int {
	f, err := os.Open(p.path("mem"))
	if err != nil {
		return 0
	}
	defer f.Close()
	for _, instruction := range callInstructions(runtime.GOARCH) {
		code := make([]byte, len(instruction))
		if n, _ := f.ReadAt(code, int64(pc)); n == len(code) && bytes.Equal(code, instruction) {
			return n
		}
	}
	return 0
}

func callInstructions(arch string) [][]byte {
	switch arch {
	case "amd64":
		return [][]byte{{0x0f, 0x05}, {0xcd, 0x80}} // syscall, int 0x80
	case "arm64":
		return [][]byte{{0x01, 0x00, 0x00, 0xd4}} // svc #0
	case "arm":
		return [][]byte{{0x00, 0x00, 0x00, 0xef}, {0x00, 0xdf}} // svc 0, and in thumb
	case "riscv64":
		return [][]byte{{0x73, 0x00, 0x00, 0x00}} // ecall
	}
	return nil
}

// restartBlock: a call that the kernel goes on with by restart_syscall(2) after
// a stop, and that CRIU therefore has return EINTR. With poll it is the call
// itself, whatever its time limit (fs/select.c, do_restart_poll). A futex with a
// time limit is one, too, and is left out: whoever waits for one must take a return
// without cause for granted, and look again (futex(2): "spurious wake-up"). All
// that Go programs and threads do while they wait would be reported otherwise.
func restartBlock(note string) bool {
	name, _, _ := strings.Cut(note, "(")
	switch name {
	case "nanosleep", "clock_nanosleep", "poll", "restart_syscall":
		return true
	}
	return false
}
