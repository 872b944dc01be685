package workload

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const key = 0x4711

func sysvShm() (func() error, error) {
	want := pattern(2*page, 1)
	id, err := unix.SysvShmGet(key, len(want), unix.IPC_CREAT|unix.IPC_EXCL|0o640)
	if err != nil {
		return nil, lacks("System V shared memory", err)
	}
	m, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("shmat: %w", err)
	}
	copy(m, want)
	return func() error {
		if err := same("contents", m[:len(want)], want); err != nil {
			return err
		}
		again, err := unix.SysvShmGet(key, 0, 0)
		if err := first(err, same("number", again, id)); err != nil {
			return err
		}
		var d unix.SysvShmDesc
		_, err = unix.SysvShmCtl(id, unix.IPC_STAT, &d)
		return first(err, same("attachments", int(d.Nattch), 1), same("size", int(d.Segsz), len(want)))
	}, nil
}

func sysvSem() (func() error, error) {
	const getVal, setVal = 12, 16 // include/uapi/linux/sem.h
	call := func(number, a, b, c, d uintptr) (int, error) {
		r, _, errno := unix.RawSyscall6(number, a, b, c, d, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return int(r), nil
	}
	id, err := call(unix.SYS_SEMGET, key, 3, unix.IPC_CREAT|unix.IPC_EXCL|0o640, 0)
	if err != nil {
		return nil, lacks("System V semaphores", err)
	}
	for i := range uintptr(3) {
		if _, err := call(unix.SYS_SEMCTL, uintptr(id), i, setVal, 5+i); err != nil {
			return nil, fmt.Errorf("semctl: %w", err)
		}
	}
	return func() error {
		for i := range uintptr(3) {
			value, err := call(unix.SYS_SEMCTL, uintptr(id), i, getVal, 0)
			if err := first(err, same("value", value, int(5+i))); err != nil {
				return err
			}
		}
		again, err := call(unix.SYS_SEMGET, key, 0, 0, 0)
		return first(err, same("number", again, id))
	}, nil
}

type message struct {
	kind int
	text [5]byte
}

func sysvMsg() (func() error, error) {
	id, _, errno := unix.RawSyscall(unix.SYS_MSGGET, key, unix.IPC_CREAT|unix.IPC_EXCL|0o640, 0)
	if errno != 0 {
		return nil, lacks("System V message queues", errno)
	}
	sent := []message{{7, [5]byte{'f', 'i', 'r', 's', 't'}}, {8, [5]byte{'o', 't', 'h', 'e', 'r'}}, {7, [5]byte{'t', 'h', 'i', 'r', 'd'}}}
	for i := range sent {
		if _, _, errno := unix.RawSyscall6(unix.SYS_MSGSND, id, uintptr(unsafe.Pointer(&sent[i])), 5, unix.IPC_NOWAIT, 0, 0); errno != 0 {
			return nil, fmt.Errorf("msgsnd: %w", errno)
		}
	}
	return func() error {
		for _, want := range sent {
			var got message
			if _, _, errno := unix.RawSyscall6(unix.SYS_MSGRCV, id, uintptr(unsafe.Pointer(&got)), 5, 0, unix.IPC_NOWAIT, 0); errno != 0 {
				return fmt.Errorf("msgrcv: %w", errno)
			}
			if err := same("message", got, want); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
