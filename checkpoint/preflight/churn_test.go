package preflight

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A container that is never at rest: whatever comes and goes while it is read,
// nothing is said to block.
func TestChurn(t *testing.T) {
	b := startBox(t, "churn")
	seen := map[string]int{}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		r := b.inspect(Options{})
		for _, f := range r.Findings {
			// On a busy machine a connection can really wait for so long.
			if f.Blocks && f.Kind != "unix-in-flight" {
				t.Error(f)
			}
			seen[f.Kind]++
		}
		seen["looks"]++
	}
	t.Log(seen)
}

// churn is the thing: a few goroutines that make, connect, pass on and close.
func churn(string) (held, error) {
	if err := loopbackUp(); err != nil {
		return held{}, err
	}
	if _, err := unixListener("/tmp/churn"); err != nil {
		return held{}, err
	}
	for _, f := range []func(n int) error{churnUnix, churnFiles, churnProcesses, churnPolls} {
		go func() {
			for n := 0; ; n++ {
				if f(n) != nil {
					os.Exit(1) // the test finds out
				}
			}
		}()
	}
	return held{}, nil
}

func churnUnix(int) error {
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	_ = os.Remove("/tmp/busy")
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: "/tmp/busy"}); err != nil {
		return err
	}
	if err := unix.Listen(l, 5); err != nil {
		return err
	}
	for range 20 {
		c, err := unixClient("/tmp/busy", unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		if _, err := unix.Write(c, []byte("x")); err != nil {
			return err
		}
		a, _, err := unix.Accept(l)
		if err != nil {
			return err
		}
		_, _ = unix.Read(a, make([]byte, 1))
		_ = unix.Close(c)
		_ = unix.Close(a)
	}
	return nil
}

func churnFiles(int) error {
	fd, err := deleted("/srv/churn", 100)
	if err != nil {
		return err
	}
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, 100, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if err := unix.Munmap(mem); err != nil {
		return err
	}
	return unix.Close(fd)
}

func churnProcesses(int) error {
	cmd := exec.Command("/bin/sh", "-c", "/bin/true | /bin/true & setsid /bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err := cmd.Run()
	for {
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
			break // orphans: the box is their pid 1
		}
	}
	return err
}

func churnPolls(int) error {
	ep, fd, other, err := polledPipe()
	if err != nil {
		return err
	}
	dup, err := unix.Dup(fd)
	if err != nil {
		return err
	}
	_ = unix.Close(fd) // the number is free, the epoll still watches the pipe
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return err
	}
	soon := unix.Timespec{Nsec: 10000}
	if err := unix.TimerfdSettime(timer, 0, &unix.ItimerSpec{Interval: soon, Value: soon}, nil); err != nil {
		return err
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(timer), Events: unix.POLLIN}}, -1)
	for _, f := range []int{ep, dup, timer, other} {
		_ = unix.Close(f)
	}
	return nil
}
