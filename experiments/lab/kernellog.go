package lab

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelLog reads /dev/kmsg from where it was opened on: one record a read
// (Documentation/ABI/testing/dev-kmsg).
type kernelLog struct{ fd int }

func openKernelLog() (*kernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/kmsg", Err: err}
	}
	if _, err := unix.Seek(fd, 0, 2); err != nil { // SEEK_END: what comes from now on
		unix.Close(fd)
		return nil, &os.PathError{Op: "seek", Path: "/dev/kmsg", Err: err}
	}
	return &kernelLog{fd}, nil
}

// complaints are those that came since the last call.
func (k *kernelLog) complaints() []string {
	var found []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(k.fd, buf)
		switch {
		case errors.Is(err, unix.EPIPE): // records were overwritten before we came
			continue
		case err != nil || n <= 0:
			return found
		}
		// priority,sequence,time,flags;text
		_, text, _ := strings.Cut(string(buf[:n]), ";")
		text, _, _ = strings.Cut(text, "\n")
		if complains(text) {
			found = append(found, text)
		}
	}
}

func (k *kernelLog) close() { unix.Close(k.fd) }
