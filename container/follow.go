package container

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FollowLog reads on in a container's log, from where the file stands, and
// calls show for each line until the container has stopped or ctx is cancelled.
func (c *Container) FollowLog(ctx context.Context, f *os.File, show func(LogLine) error) error {
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	events := os.NewFile(uintptr(watch), "inotify")
	defer events.Close()
	if _, err := unix.InotifyAddWatch(watch, f.Name(), unix.IN_MODIFY); err != nil {
		return os.NewSyscallError("inotify_add_watch", err)
	}
	// Reading the events blocks until something is written, the container has
	// stopped, or the user has had enough.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.Wait(ctx)
		events.Close()
	}()
	r, rest := bufio.NewReader(f), ""
	buf := make([]byte, 4096)
	for last := false; ; {
		for {
			line, err := r.ReadString('\n')
			rest += line
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if l, ok := ParseLogLine(rest[:len(rest)-1]); ok {
				if err := show(l); err != nil {
					return err
				}
			}
			rest = ""
		}
		if last {
			return ctx.Err()
		}
		if _, err := events.Read(buf); err != nil {
			<-ended // the log is complete once the monitor has gone
			last = true
		}
	}
}
