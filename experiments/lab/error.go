package lab

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// KernelError says that the kernel under test is at fault: what happened, after
// the guest had said that it is ready.
type KernelError struct {
	What    string   // "panicked", "fell silent"
	During  string   // the part of the job, if one had begun
	Lines   []string // of its log
	Console string   // the whole of it: a file
}

func (e *KernelError) Error() string {
	text := "the kernel " + e.What
	if e.During != "" {
		text += " during " + e.During
	}
	if len(e.Lines) > 0 {
		text += ": " + e.Lines[0]
	}
	return text
}

// Fault says that the lab could not put the question to the kernel.
type Fault struct {
	Op      string // what was being done
	Err     error
	Remedy  string
	Console string // the kernel's log, if there is one: a file
}

func (e *Fault) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *Fault) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *Fault) Hint() string {
	switch {
	case e.Remedy != "":
		return e.Remedy
	case errors.Is(e.Err, unix.ENOSPC):
		return "make room, or go elsewhere: --results says where results go, $TMPDIR where a machine's files are"
	case e.Console != "":
		return "the kernel's own words are in " + e.Console
	}
	return ""
}

// complaints are the lines of a kernel's log that tell of a defect of its own:
// a warning, an oops, a report of one of its sanitizers, a stall. The words are
// those of lib/bug.c, kernel/panic.c, arch/x86/kernel/dumpstack.c,
// mm/kasan/report.c and kernel/locking/lockdep.c.
func complaints(log []byte) []string {
	var found []string
	for line := range strings.Lines(string(log)) {
		line = strings.TrimSpace(line)
		if complains(line) {
			found = append(found, line)
		}
	}
	return found
}

func complains(line string) bool {
	for _, mark := range []string{
		"Kernel panic - not syncing", "WARNING: CPU", "WARNING: at", "WARNING: possible", "WARNING: bad unlock",
		"BUG: ", "Oops: ", "Oops[", "general protection fault", "KASAN:", "KCSAN:", "UBSAN:", "kernel BUG at",
		"INFO: task ", "INFO: rcu", "rcu: INFO:", "refcount_t:", "unregister_netdevice: waiting",
	} {
		if strings.Contains(line, mark) {
			return true
		}
	}
	return false
}
