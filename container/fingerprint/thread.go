package fingerprint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeThread adds what each thread has for itself.
func (t *taker) takeThread(p *process, th thread) {
	key := fmt.Sprintf("%s/thread/%d", p.key(), th.inside)
	at := func(file string) string { return filepath.Join(p.path("task"), strconv.Itoa(th.tid), file) }
	t.statusOf(at("status"), key+"/status/", perThread)
	t.file(key+"/comm", at("comm"))
	if p.zombie {
		return
	}
	t.takeScheduling(key, th)
	t.file(key+"/timerslack", filepath.Join("/proc", strconv.Itoa(th.tid), "timerslack_ns"))
	if label, err := text(at("attr/current")); err == nil { // EINVAL: there is no security module
		t.put(key+"/attr/current", label)
	} else if !errors.Is(err, unix.EINVAL) && !os.IsNotExist(err) {
		t.cannot(key+"/attr/current", err)
	}
	t.takeCgroupOf(key, at("cgroup"))
	t.takeRobustList(key, p, th)
	t.takeCall(key, p, th)
}

// schedAttr is struct sched_attr of sched_setattr(2).
type schedAttr struct {
	size, policy              uint32
	flags                     uint64
	nice                      int32
	priority                  uint32
	runtime, deadline, period uint64
	utilMinimum, utilMaximum  uint32
	afterThatOfALaterKernel   [64]byte
}

func (t *taker) takeScheduling(key string, th thread) {
	var a schedAttr
	// The size given is what the kernel may fill in (kernel/sched/syscalls.c).
	if _, _, errno := unix.Syscall6(unix.SYS_SCHED_GETATTR, uintptr(th.tid), uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a), 0, 0, 0); errno != 0 {
		t.cannot(key+"/sched", errno)
	} else {
		t.put(key+"/sched/policy", fmt.Sprint(a.policy))
		t.put(key+"/sched/flags", fmt.Sprintf("%#x", a.flags))
		t.put(key+"/sched/nice", fmt.Sprint(a.nice))
		t.put(key+"/sched/priority", fmt.Sprint(a.priority))
		t.put(key+"/sched/runtime", fmt.Sprint(a.runtime))
		t.put(key+"/sched/deadline", fmt.Sprint(a.deadline))
		t.put(key+"/sched/period", fmt.Sprint(a.period))
		t.put(key+"/sched/utilization", fmt.Sprintf("%d to %d", a.utilMinimum, a.utilMaximum))
	}
	const whoProcess = 1 // IOPRIO_WHO_PROCESS, which is a thread
	priority, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, whoProcess, uintptr(th.tid), 0)
	if errno != 0 {
		t.cannot(key+"/io-priority", errno)
		return
	}
	t.put(key+"/io-priority", fmt.Sprintf("class %d, level %d", priority>>13&7, priority&0x1fff))
}

// takeRobustList adds where the thread keeps its list of robust futexes,
// get_robust_list(2): without it a lock that it holds is not given up when it dies.
func (t *taker) takeRobustList(key string, p *process, th thread) {
	var head, size uintptr
	if _, _, errno := unix.Syscall(unix.SYS_GET_ROBUST_LIST, uintptr(th.tid), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		t.cannot(key+"/robust-list", errno)
		return
	}
	t.put(key+"/robust-list", fmt.Sprintf("%#x", head))
	p.robust = append(p.robust, uint64(head))
}
