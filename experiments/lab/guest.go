package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Worker does a job of a kind in the guest: it calls report for each result,
// after begin for what it is about. What it leaves in Results goes to the host.
type Worker func(args json.RawMessage, g *Guest) error

// programPath is crucible in the guest. It is not in /: there an executable cannot
// be sealed by an overlay, and would be copied at each start of a container.
const programPath = "/usr/bin/crucible"

// jobName is the name under which crucible is started for the job.
const jobName = "crucible-lab-job"

// MaybeGuest becomes a guest's first process, or that of its job, if this
// process was started as one, and then never returns.
func MaybeGuest(workers map[string]Worker) {
	switch {
	case os.Getpid() == 1 && os.Args[0] == "/init":
		guestInit()
	case os.Args[0] == jobName:
		os.Exit(doJob(workers))
	}
}

// guestInit is the first process: it sets the guest up, starts the job, reaps
// what is orphaned, and resets the machine when the job has ended.
func guestInit() {
	p, err := readPlan()
	if err == nil {
		err = p.mountAll()
	}
	if err == nil {
		err = p.setUp()
	}
	if err == nil {
		err = p.supervise()
	}
	if err != nil {
		say(Message{Fault: err.Error()})
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	for { // the kernel panics when its first process ends
		unix.Pause()
	}
}

func readPlan() (*plan, error) {
	text, err := os.ReadFile(planPath)
	if err != nil {
		return nil, err
	}
	p := new(plan)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("%s: %w", planPath, err)
	}
	return p, nil
}

// supervise starts the job's process and reaps until it has ended. The job is
// not done here, because who reaps every child cannot wait for one.
func (p *plan) supervise() error {
	job := exec.Command(programPath)
	job.Args = []string{jobName}
	job.Env = p.environment()
	job.Dir = "/root"
	job.Stderr = os.Stderr
	job.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if p.Job.Shell != nil {
		console, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		job.Stdin, job.Stdout, job.Stderr = console, console, console
		job.SysProcAttr.Setctty = true
	}
	if err := job.Start(); err != nil {
		return fmt.Errorf("start the job: %w", err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the job: %w", err)
		case pid == job.Process.Pid && status.ExitStatus() != 0:
			return fmt.Errorf("the job's process ended with %s", describe(status))
		case pid == job.Process.Pid:
			return nil
		}
	}
}

func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return "signal " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("status %d", status.ExitStatus())
}

func (p *plan) environment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "TERM=linux",
		"CRUCIBLE_BINARY=" + programPath, // for tests of crucible, see testenv.Binary
	}
	if p.Criu != "" {
		env[0] += ":" + filepath.Dir(p.Criu)
		env = append(env, "CRUCIBLE_CRIU="+p.Criu)
	}
	if p.Count {
		// A collection by the Go runtime falls into a section, or does not.
		env = append(env, "GOGC=off")
	}
	return env
}

// uptime is the time since the kernel's start.
func uptime() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}
