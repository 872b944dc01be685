package builtin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"crucible/experiments/plan"
)

// Path is where a container has the program, and by which it knows itself.
const Path = "/crucible-builtin"

// Check is the signal at which the program looks at what it holds.
const Check = unix.SIGUSR1

// What the program says on its standard output, in a line of its own.
const (
	Ready   = "ready"
	Checked = "checked"
	Differs = "differs: " // and what
	Failed  = "failed: "  // and what could not be set up
)

// Args are the program's.
func Args(b plan.Builtin) []string {
	data, _ := json.Marshal(b) // nothing in it can fail
	return []string{Path, string(data)}
}

// MaybeRun becomes the program if this process was started as it, and then never
// returns. It comes early in main, after container.MaybeMonitor.
func MaybeRun() {
	if len(os.Args) == 2 && os.Args[0] == Path {
		err := run(os.Args[1], os.Stdout)
		fmt.Println(Failed + oneLine(err))
		os.Exit(1)
	}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// run comes back with an error only.
func run(options string, out io.Writer) error {
	// A collection would write to memory that is not said to be dirtied.
	debug.SetGCPercent(-1)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, Check)
	var b plan.Builtin
	if err := json.Unmarshal([]byte(options), &b); err != nil {
		return err
	}
	children, err := startChildren(b)
	if err != nil {
		return err
	}
	all, err := hold(b)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := c.expect(Ready); err != nil {
			return err
		}
	}
	if b.Port != 0 {
		if err := serve(b.Port); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, Ready)
	for range asked {
		err := all.check()
		for i, c := range children {
			if e := c.check(); e != nil {
				err = errors.Join(err, fmt.Errorf("process %d: %w", i+2, e))
			}
		}
		if err != nil {
			fmt.Fprintln(out, Differs+oneLine(err))
		} else {
			fmt.Fprintln(out, Checked)
		}
	}
	return nil
}

// child is another process with the same holdings.
type child struct {
	process *os.Process
	says    *bufio.Reader
}

func startChildren(b plan.Builtin) ([]child, error) {
	count := b.Processes - 1
	b.Processes, b.Port = 1, 0
	var all []child
	for range count {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = Args(b)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		all = append(all, child{cmd.Process, bufio.NewReader(out)})
	}
	return all, nil
}

func (c child) check() error {
	if err := c.process.Signal(Check); err != nil {
		return err
	}
	return c.expect(Checked)
}

func (c child) expect(want string) error {
	line, err := c.says.ReadString('\n')
	if err != nil {
		return fmt.Errorf("it says nothing: %w", err)
	}
	if line = strings.TrimSuffix(line, "\n"); line != want {
		return errors.New(line)
	}
	return nil
}

// serve sends back what comes. Go's own listener would be MPTCP, which CRIU
// cannot dump.
func serve(port uint16) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp4", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // no splice: no pipe of its own
				c.Close()
			}()
		}
	}()
	return nil
}

// startThreads starts threads that do nothing but wait.
func startThreads(count int) []int {
	tids := make(chan int)
	for range count {
		go func() {
			runtime.LockOSThread()
			tids <- unix.Gettid()
			for {
				_, _ = unix.Ppoll(nil, nil, nil) // until a signal
			}
		}()
	}
	var all []int
	for range count {
		all = append(all, <-tids)
	}
	return all
}
