package fork

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// differing are the namespaces of a process that the calling thread is not in.
// (Entering the same user namespace once more would be refused.)
func differing(pid int, pidfd *os.File) (uintptr, error) {
	var flags uintptr
	for _, ns := range []struct {
		name string
		flag uintptr
	}{
		{"user", unix.CLONE_NEWUSER}, {"mnt", unix.CLONE_NEWNS}, {"pid", unix.CLONE_NEWPID},
		{"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC}, {"net", unix.CLONE_NEWNET},
		{"cgroup", unix.CLONE_NEWCGROUP}, {"time", unix.CLONE_NEWTIME},
	} {
		var theirs, ours unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/"+ns.name, &ours); err == unix.ENOENT {
			continue // a kernel without this kind
		} else if err != nil {
			return 0, fmt.Errorf("our %s namespace: %w", ns.name, err)
		}
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name), &theirs); err != nil {
			return 0, fmt.Errorf("%s namespace of process %d: %w", ns.name, pid, err)
		}
		if ours.Dev != theirs.Dev || ours.Ino != theirs.Ino {
			flags |= ns.flag
		}
	}
	// Was it still the same process that was looked at?
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), 0, nil, 0); err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, err)
	}
	return flags, nil
}
