package workload

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func terminalCases() []Case {
	return []Case{
		{Name: "terminal", Question: "Does a container keep its controlling terminal, with size, modes and foreground group?",
			define: func(d *definition) { d.Terminal = true }, program: terminal},
		{Name: "pty-pair", Question: "Does a pair of pseudo terminals that a program made keep its sides, size and modes?", program: ptyPair},
	}
}

// modes are what stty(1) shows of a terminal.
func modes(fd int) (string, error) {
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return "", fmt.Errorf("size of the terminal: %w", err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("modes of the terminal: %w", err)
	}
	return fmt.Sprintf("size %+v modes %+v\n", *size, *t), nil
}

func setModes(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("modes of the terminal: %w", err)
	}
	t.Lflag &^= unix.ECHO
	t.Iflag |= unix.IXOFF
	t.Cc[unix.VERASE] = 'x'
	return first(unix.IoctlSetTermios(fd, unix.TCSETS, t), unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 111}))
}

func terminal() (func() error, error) {
	if err := setModes(0); err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) {
		out, err := modes(0)
		if err != nil {
			return "", err
		}
		group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
		session, err2 := unix.IoctlGetInt(0, unix.TIOCGSID)
		name, err3 := os.Readlink("/proc/self/fd/0")
		tty, err4 := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err4 == nil {
			err4 = unix.Close(tty)
		}
		return out + fmt.Sprintln("group", group, "session", session, "name", name), first(err, err2, err3, err4)
	})
}

func ptyPair() (func() error, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	slave, err := unix.Open(fmt.Sprintf("/dev/pts/%d", number), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := setModes(slave); err != nil {
		return nil, err
	}
	look, err := unchanged(func() (string, error) { return modes(slave) })
	return func() error {
		return first(look(),
			send(master, []byte("typed\n")), mustReceive("what was typed", slave, []byte("typed\n")),
			send(slave, []byte("shown\n")), mustReceive("what is shown", master, []byte("shown\r\n")))
	}, err
}
