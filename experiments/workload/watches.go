package workload

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func inotify() (func() error, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, lacks("inotify", err)
	}
	if err := os.Mkdir("/srv/watched", 0o755); err != nil {
		return nil, err
	}
	watch, err := unix.InotifyAddWatch(fd, "/srv/watched", unix.IN_CREATE|unix.IN_DELETE)
	if err != nil {
		return nil, fmt.Errorf("inotify_add_watch: %w", err)
	}
	return func() error {
		if err := os.WriteFile("/srv/watched/new", nil, 0o644); err != nil {
			return err
		}
		if err := readable(fd); err != nil {
			return err
		}
		b := make([]byte, 256)
		n, err := unix.Read(fd, b)
		if err != nil || n < unix.SizeofInotifyEvent {
			return fmt.Errorf("read %d bytes: %w", n, err)
		}
		return first(same("watch", int(binary.NativeEndian.Uint32(b)), watch), same("what happened", binary.NativeEndian.Uint32(b[4:]), uint32(unix.IN_CREATE)),
			same("name", strings.TrimRight(string(b[unix.SizeofInotifyEvent:n]), "\x00"), "new"))
	}, nil
}

func fanotify() (func() error, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		return nil, lacks("fanotify", err)
	}
	if err := os.Mkdir("/srv/marked", 0o755); err != nil {
		return nil, err
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_CLOSE_WRITE|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, "/srv/marked"); err != nil {
		return nil, fmt.Errorf("fanotify_mark: %w", err)
	}
	return func() error {
		if err := os.WriteFile("/srv/marked/new", []byte("x"), 0o644); err != nil {
			return err
		}
		if err := readable(fd); err != nil {
			return err
		}
		b := make([]byte, 256)
		n, err := unix.Read(fd, b)
		if err != nil || n < 24 { // struct fanotify_event_metadata
			return fmt.Errorf("read %d bytes: %w", n, err)
		}
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", int32(binary.NativeEndian.Uint32(b[16:]))))
		return first(err, same("what happened", binary.NativeEndian.Uint64(b[8:]), uint64(unix.FAN_CLOSE_WRITE)), same("file", name, "/srv/marked/new"))
	}, nil
}

func pidfd() (func() error, error) {
	pid, err := fork(pause)
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, lacks("pidfd_open", err)
	}
	return func() error {
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
			return fmt.Errorf("pidfd_send_signal: %w", err)
		}
		if err := readable(fd); err != nil {
			return err
		}
		var s unix.WaitStatus
		_, err := unix.Wait4(pid, &s, 0, nil)
		return first(err, same("signal that ended the child", s.Signal(), unix.SIGKILL))
	}, nil
}
