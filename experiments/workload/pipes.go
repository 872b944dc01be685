package workload

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func pipeCases() []Case {
	return []Case{
		{Name: "pipe", Question: "Does a pipe keep its data, size and flags, and stay between its processes?", program: pipeWithData},
		{Name: "pipe-end", Question: "Does the reader of a pipe that was closed get the rest, and the end of file?", program: pipeEnd},
		{Name: "fifo", Question: "Does a named pipe keep its data?", program: fifo},
		{Name: "packet-pipe", Question: "Does a pipe in packet mode keep its packets?", program: packetPipe,
			Known: &Known{StepCheckpoint, "CRIU saves no pipe in packet mode (O_DIRECT; criu/pipes.c)"}},
	}
}

func pipeWithData() (func() error, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, 128<<10); err != nil {
		return nil, fmt.Errorf("set the pipe's size: %w", err)
	}
	want := pattern(80000, 1)
	if err := send(p[1], want); err != nil {
		return nil, err
	}
	l, err := newLine()
	if err != nil {
		return nil, err
	}
	if _, err := fork(func() {
		b := l.hear()
		tell(p[1], b)
		l.tell(b)
		pause()
	}); err != nil {
		return nil, err
	}
	return func() error {
		size, err := unix.FcntlInt(uintptr(p[0]), unix.F_GETPIPE_SZ, 0)
		flags, err2 := unix.FcntlInt(uintptr(p[0]), unix.F_GETFL, 0)
		if err := first(err, err2, same("size", size, 128<<10), same("O_NONBLOCK", flags&unix.O_NONBLOCK, unix.O_NONBLOCK), mustReceive("data", p[0], want)); err != nil {
			return err
		}
		_, err = l.ask(5)
		return first(err, mustReceive("what the child has written", p[0], []byte{5}))
	}, nil
}

func pipeEnd() (func() error, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	if err := first(send(p[1], []byte("rest")), unix.Close(p[1])); err != nil {
		return nil, err
	}
	return func() error {
		if err := mustReceive("rest", p[0], []byte("rest")); err != nil {
			return err
		}
		n, err := unix.Read(p[0], make([]byte, 1))
		return first(err, same("bytes at the end", n, 0))
	}, nil
}

func fifo() (func() error, error) {
	if err := unix.Mkfifo("/srv/fifo", 0o600); err != nil {
		return nil, err
	}
	r, err := unix.Open("/srv/fifo", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	w, err := unix.Open("/srv/fifo", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	want := pattern(3000, 1)
	return func() error {
		if err := first(mustReceive("data", r, want), send(w, []byte("more")), mustReceive("data", r, []byte("more"))); err != nil {
			return err
		}
		again, err := unix.Open("/srv/fifo", unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return first(err, send(again, []byte("by name")), mustReceive("data", r, []byte("by name")))
	}, send(w, want)
}

func packetPipe() (func() error, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_DIRECT); err != nil {
		return nil, lacks("packet pipes", err, unix.EINVAL)
	}
	if err := first(send(p[1], []byte("one")), send(p[1], []byte("other"))); err != nil {
		return nil, err
	}
	return func() error {
		b := make([]byte, 100)
		n, err := unix.Read(p[0], b)
		return first(err, same("packet", string(b[:max(n, 0)]), "one"), mustReceive("packet", p[0], []byte("other")))
	}, nil
}
