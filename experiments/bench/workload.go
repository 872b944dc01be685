package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What this program is in a container. Each answers questions on a unix
// socket, which the host reaches through /proc/PID/root.
//
//	hold SOCKET MIB          has so much incompressible memory; "ready", "touch"
//	scatter SOCKET PIECES    has memory in so many pieces; "ready"
//	beat SOCKET              looks at the clock without end; "gaps"
//	echo SOCKET PORT         sends back over TCP what it gets; "ready"

// work runs a workload and does not return while all is well.
func work(argv []string) error {
	debug.SetGCPercent(-1)
	if len(argv) < 2 {
		return errors.New("no workload")
	}
	switch {
	case argv[0] == "hold" && len(argv) == 3:
		return hold(argv[1], argv[2])
	case argv[0] == "scatter" && len(argv) == 3:
		return scatter(argv[1], argv[2])
	case argv[0] == "beat":
		return beat(argv[1])
	case argv[0] == "echo" && len(argv) == 3:
		return echo(argv[1], argv[2])
	}
	return fmt.Errorf("unknown workload %q", argv)
}

// answer serves the unix socket.
func answer(socket string, reply func(question string) string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		question, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			_, _ = fmt.Fprintln(c, reply(question[:len(question)-1]))
		}
		c.Close()
	}
}

// ask puts a question to the program in a container.
func ask(pid int, socket, question string) (string, error) {
	c, err := net.DialTimeout("unix", fmt.Sprintf("/proc/%d/root%s", pid, socket), patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c, question); err != nil {
		return "", err
	}
	// To the end: when that has come, nothing of the connection is left that
	// would be in the way of a checkpoint.
	said, err := io.ReadAll(c)
	if err == nil && len(said) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(said), err
}

// hold fills its memory with what no compression makes smaller. A question is
// answered with 16 pages from all over it.
func hold(socket, mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map %d MiB: %w", n, err)
	}
	fill(memory)
	return answer(socket, func(string) string {
		sum := 0
		for at := 0; at < len(memory); at += len(memory) / 16 {
			sum += int(memory[at])
		}
		return strconv.Itoa(sum)
	})
}

// scatter has memory of which every other page was touched, half of it in
// mappings of one page each.
func scatter(socket, pieces string) error {
	n, err := strconv.Atoi(pieces)
	if err != nil {
		return err
	}
	page := os.Getpagesize()
	memory, err := unix.Mmap(-1, 0, 2*n*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = unix.Madvise(memory, unix.MADV_NOHUGEPAGE)
	}
	for i := 0; i < n && err == nil; i++ {
		at := memory[2*i*page:][:page]
		at[0] = 1
		if i%2 == 0 {
			err = unix.Mprotect(at, unix.PROT_READ)
		}
	}
	if err != nil {
		return fmt.Errorf("scatter %d pages: %w", n, err)
	}
	return answer(socket, func(string) string { return "scattered" })
}

// fill is Marsaglia's xorshift64: the fastest that leaves no pattern.
func fill(memory []byte) {
	x := uint64(88172645463325252)
	for i := 0; i+8 <= len(memory); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		word := memory[i : i+8 : i+8]
		word[0], word[1], word[2], word[3] = byte(x), byte(x>>8), byte(x>>16), byte(x>>24)
		word[4], word[5], word[6], word[7] = byte(x>>32), byte(x>>40), byte(x>>48), byte(x>>56)
	}
}

// pause is a stretch in which the program in the container did not run. Times
// are those of CLOCK_MONOTONIC, which all containers here share with the host.
type pause struct {
	From  int64 `json:"from"` // nanoseconds
	Until int64 `json:"until"`
}

// beat looks at the clock every tenth of a millisecond, and remembers the
// times when that took it more than one.
func beat(socket string) error {
	// Only after a look at the clock is anything handed over: an answer cannot
	// overtake the end of a pause.
	handed := make(chan []pause)
	go func() {
		runtime.LockOSThread()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		var pauses []pause
		last := monotonic()
		for {
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil)
			now := monotonic()
			if now-last > int64(time.Millisecond) {
				pauses = append(pauses, pause{last, now})
			}
			last = now
			select {
			case handed <- pauses:
				pauses = nil
			default:
			}
		}
	}()
	return answer(socket, func(string) string {
		out, _ := json.Marshal(<-handed)
		return string(out)
	})
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// longestPause is the longest one that touches an interval.
func longestPause(pauses []pause, from, until int64) time.Duration {
	longest := int64(0)
	for _, p := range pauses {
		if p.Until > from && p.From < until {
			longest = max(longest, p.Until-p.From)
		}
	}
	return time.Duration(longest)
}

// echo is the server for pingers. Go's own listener would be MPTCP, which
// CRIU cannot dump.
func echo(socket, port string) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp4", ":"+port)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return answer(socket, func(string) string { return "ready" })
}
