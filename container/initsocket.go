package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "init"), os.NewFile(uintptr(fds[1]), "monitor"), nil
}

// sendConfig tells an init what to do. The files that are not nil go along.
func sendConfig(socket, pid int, config []byte, files ...*os.File) error {
	if len(config) > maxConfig {
		return &ConfigError{Size: len(config)}
	}
	var fds []int
	for _, f := range files {
		if f != nil {
			fds = append(fds, int(f.Fd()))
		}
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	err := unix.Sendmsg(socket, config, rights, nil, 0)
	switch {
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return earlyEnd(pid)
	case err != nil:
		return fmt.Errorf("talk to the init: %w", err)
	}
	return nil
}

// ConfigError is a configuration that is too large for an init to take.
type ConfigError struct{ Size int }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("talk to the init: its configuration has %d bytes, and may have %d", e.Size, maxConfig)
}

// Hint says what to do about it.
func (e *ConfigError) Hint() string {
	return "arguments and environment are most of it: give the program what is large in a file, with --volume"
}

// hearInit returns the terminal's master if the init sent one. The end of the
// messages is the execve of the program, or the end of the init.
func hearInit(socket, pid int, untilReady bool) (master *os.File, err error) {
	for {
		said, files, err := receive(socket)
		switch {
		case errors.Is(err, unix.ECONNRESET): // it has not even read its configuration
			return master, earlyEnd(pid)
		case err != nil:
			return master, fmt.Errorf("hear from the init: %w", err)
		case len(said) == 0 && untilReady:
			return master, earlyEnd(pid)
		case len(said) == 0:
			return master, endedEarly(pid)
		case said[0] == sayTerminal && len(files) == 1:
			master = files[0]
		case said[0] == sayReady && untilReady:
			return master, nil
		case said[0] == sayError:
			return master, decodeInitError(socket, said[1:])
		default:
			return master, fmt.Errorf("hear from the init: unexpected message %q", said)
		}
	}
}

func decodeInitError(socket int, said []byte) error {
	for {
		more, _, err := receive(socket)
		if err != nil || len(more) == 0 {
			break
		}
		said = append(said, more...)
	}
	failure := &InitError{}
	if err := json.Unmarshal(said, failure); err != nil {
		return fmt.Errorf("%s", said)
	}
	return failure
}

// receive reads one message and the descriptors that came with it.
func receive(socket int) ([]byte, []*os.File, error) {
	buf, oob := make([]byte, maxConfig), make([]byte, unix.CmsgSpace(4*4))
	type sizes struct{ n, oobn int }
	got, err := retry(func() (sizes, error) {
		n, oobn, _, _, err := unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
		return sizes{n, oobn}, err
	})
	if err != nil {
		return nil, nil, err
	}
	files, err := rights(oob[:got.oobn])
	return buf[:got.n], files, err
}

func rights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			_ = unix.SetNonblock(fd, true) // so that reads can be ended
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
