package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/checkpoint/criu"
	"crucible/container"
	"crucible/container/proc"
	"crucible/container/testenv"
)

// stage is a state root in which commands are interrupted.
type stage struct {
	*testing.T
	bin, root, name string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	testenv.Root(t)
	s := &stage{t, testenv.Binary(t), testenv.StateRoot(t), testenv.Name(t)}
	testenv.LeakCheck(t)
	t.Cleanup(func() {
		deleteAll(t, s.root)
		for _, path := range leftovers(s.root) {
			t.Errorf("left in the state root: %s", path)
		}
	})
	return s
}

// do runs a command that must succeed.
func (s *stage) do(args ...string) string {
	s.Helper()
	out, err := s.command(args...)
	if err != nil {
		s.Fatalf("crucible %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (s *stage) command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bin, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(err.Error() + ": " + stderr.String())
	}
	return string(out), err
}

// workload starts a container whose checkpoint takes a while: it has some
// memory, and says so once it has.
func (s *stage) workload(v victim) {
	s.Helper()
	s.do("run", "-d", "--name", s.name, "--net", v.net(), "--", "python3", "-c",
		`import time; x = bytearray(b"1" * (192 << 20)); print("ready", flush=True); time.sleep(1000)`)
	s.until("the workload is ready", func() bool {
		out, err := s.command("logs", s.name)
		return err == nil && strings.Contains(out, "ready")
	})
}

// until waits for what has no event.
func (s *stage) until(what string, is func() bool) {
	s.Helper()
	for end := time.Now().Add(patience / 2); !is(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			s.Fatalf("it never comes that %s", what)
		}
	}
}

// running is a command in the background.
type running struct {
	*exec.Cmd
	stderr bytes.Buffer
}

func (s *stage) start(args ...string) *running {
	s.Helper()
	r := &running{Cmd: exec.Command(s.bin, args...)}
	r.Cmd.Stderr = &r.stderr
	if err := r.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = r.Process.Kill(); _ = r.Wait() })
	return r
}

// end waits for the command, and returns its exit code, or -1 if it was killed.
func (r *running) end(s *stage) int {
	s.Helper()
	alarm := time.AfterFunc(patience/2, func() {
		s.Errorf("crucible %s does not end", strings.Join(r.Args[1:], " "))
		_ = r.Process.Kill()
	})
	defer alarm.Stop()
	_ = r.Wait()
	return r.ProcessState.ExitCode()
}

// below finds a descendant of a process by a word in its arguments.
func below(pid int, word string) int {
	tree, err := proc.Root.Tree(pid)
	if err != nil {
		return 0
	}
	for _, p := range tree.All() {
		args, err := proc.Root.Args(p.PID)
		if err == nil && p.PID != pid && strings.Contains(strings.Join(args, " "), word) {
			return p.PID
		}
	}
	return 0
}

// monitor finds the monitor of a container that need not be recorded yet.
func (s *stage) monitor(name string) int {
	pids, err := proc.Root.PIDs()
	if err != nil {
		s.Fatal(err)
	}
	for _, pid := range pids {
		args, err := proc.Root.Args(pid)
		if err == nil && len(args) > 2 && strings.HasPrefix(args[0], "crucible-") && args[1] == name {
			return pid
		}
	}
	return 0
}

func (s *stage) status(name string) container.Status {
	c, err := container.Root(s.root).Open(name)
	if err != nil {
		return ""
	}
	status, err := c.Status()
	if err != nil {
		return ""
	}
	return status
}

// slowCRIU is a CRIU that stops before it begins, until it is continued, but
// only the first time.
func (s *stage) slowCRIU() string {
	s.Helper()
	found, err := criu.Find("")
	if err != nil {
		s.Fatal(err)
	}
	path := filepath.Join(s.TempDir(), "criu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nmkdir "+path+".once 2>/dev/null && kill -STOP $$\nexec "+found.Path+" \"$@\"\n"), 0o755); err != nil {
		s.Fatal(err)
	}
	return path
}

func stopped(pid int) bool {
	stat, err := proc.Root.Stat(pid)
	return err == nil && stat.State == "T"
}

// A moment is when a command is interrupted: catch waits for it, and returns
// the command, CRIU and the monitor of the container that it is about; no
// command if it came too late. CRIU is stopped, so that the moment lasts.
type moment struct {
	name  string
	catch func(*stage) (command *running, criu, monitor int)
	again func(*stage) // makes another try possible
}

// victims are who is sent what.
type victim struct {
	name   string
	who    int // of moment.catch's results
	signal unix.Signal
	code   int // of the command; -1: killed
}

func victims() []victim {
	return []victim{
		{"command SIGINT", 0, unix.SIGINT, 130},
		{"command SIGTERM", 0, unix.SIGTERM, 130},
		{"command SIGKILL", 0, unix.SIGKILL, -1},
		{"criu SIGKILL", 1, unix.SIGKILL, 1},
		{"monitor SIGKILL", 2, unix.SIGKILL, 1},
	}
}

// net is the network of the container that is interrupted. Not all are on a
// bridge: a host has few subnets.
func (v victim) net() string {
	if v.signal == unix.SIGKILL && v.who == 0 {
		return "bridge"
	}
	return "none"
}

// interrupt does what is to be done at the moment, and looks how the command ends.
func (s *stage) interrupt(m moment, v victim) {
	s.Helper()
	command, criuPid, monitor := m.catch(s)
	for try := 0; command == nil; try++ {
		if try == 5 {
			s.Fatal("the moment was missed each time")
		}
		m.again(s)
		command, criuPid, monitor = m.catch(s)
	}
	pid := []int{command.Process.Pid, criuPid, monitor}[v.who]
	if err := unix.Kill(pid, v.signal); err != nil {
		s.Fatalf("%s: %v", v.name, err)
	}
	if v.who != 1 && criuPid != 0 {
		// Who wants to end CRIU must not need its help for it.
		time.AfterFunc(300*time.Millisecond, func() { _ = unix.Kill(criuPid, unix.SIGCONT) })
	}
	code := command.end(s)
	said := command.stderr.String()
	if code != v.code {
		s.Errorf("exit code %d, want %d: %s", code, v.code, said)
	}
	if code < 0 {
		return
	}
	if f, err := parseFailure(said); err != nil {
		s.Errorf("%v in %s", err, said)
	} else if err := f.inDueForm(); err != nil && v.code != 130 {
		s.Errorf("%v in %s", err, said)
	} else if v.code == 130 && said != "crucible: interrupted\n" {
		s.Errorf("says %q", said)
	}
}

// Whatever is interrupted in a checkpoint, the container goes on.
func TestInterruptCheckpoint(t *testing.T) {
	moments := []moment{
		{"before the freeze", func(s *stage) (*running, int, int) {
			c := s.start("checkpoint", "--criu", s.slowCRIU(), s.name)
			var pid int
			s.until("CRIU waits", func() bool { pid = below(c.Process.Pid, "swrk"); return pid != 0 && stopped(pid) })
			return c, pid, s.monitor(s.name)
		}, nil},
		{"while it is frozen", func(s *stage) (*running, int, int) {
			box, err := container.Root(s.root).Open(s.name)
			if err != nil {
				s.Fatal(err)
			}
			c := s.start("checkpoint", s.name)
			var pid int
			s.until("CRIU is there", func() bool { pid = below(c.Process.Pid, "swrk"); return pid != 0 })
			// Its freezer is no sign: on cgroup v1 CRIU thaws the tasks as
			// soon as it has seized them. The pages take a while to be written.
			s.until("CRIU writes the memory, or has ended", func() bool {
				return s.drafted("pages-*.img") || !box.State.Init.Alive()
			})
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil || !box.State.Init.Alive() {
				_ = unix.Kill(pid, unix.SIGCONT)
				c.end(s)
				return nil, 0, 0
			}
			return c, pid, box.State.Monitor.Pid
		}, func(s *stage) {
			s.do("restore", s.name)
			s.do("image", "rm", "--all", s.name)
		}},
	}
	for _, m := range moments {
		for _, v := range victims() {
			t.Run(m.name+"/"+v.name, func(t *testing.T) {
				s := newStage(t)
				s.workload(v)
				s.interrupt(m, v)
				s.until("the container runs", func() bool { return s.status(s.name) == container.Running })
				s.do("exec", s.name, "--", "true")
				s.noImage()
				if v.who == 2 {
					return // without its monitor it cannot be checkpointed
				}
				s.do("checkpoint", s.name)
				s.do("restore", s.name)
			})
		}
	}
}

// drafted says whether a file is there in the draft of an image.
func (s *stage) drafted(pattern string) bool {
	found, err := filepath.Glob(filepath.Join(s.root, "images", ".drafts", "*", "image", "criu", pattern))
	return err == nil && len(found) > 0
}

func (s *stage) noImage() {
	s.Helper()
	if out := s.do("image", "list", "--json"); out != "[]\n" {
		s.Errorf("there is an image: %s", out)
	}
	s.until("there is no draft", func() bool {
		drafts, err := os.ReadDir(filepath.Join(s.root, "images", ".drafts"))
		return len(drafts) == 0 && (err == nil || os.IsNotExist(err))
	})
}

// Whatever is interrupted in a restore, there is nothing of it, and another one works.
func TestInterruptRestore(t *testing.T) {
	moments := []moment{
		{"before there are tasks", func(s *stage) (*running, int, int) {
			c := s.start("restore", "--criu", s.slowCRIU(), "--name", s.name+"b", s.name)
			var pid, monitor int
			s.until("CRIU waits", func() bool {
				if monitor = s.monitor(s.name + "b"); monitor != 0 {
					pid = below(monitor, "swrk")
				}
				return pid != 0 && stopped(pid)
			})
			return c, pid, monitor
		}, nil},
		{"when there are tasks", func(s *stage) (*running, int, int) {
			c := s.start("restore", "--name", s.name+"b", s.name)
			var pid, monitor int
			s.until("CRIU has made a task", func() bool {
				if monitor == 0 {
					monitor = s.monitor(s.name + "b")
				}
				if monitor != 0 && pid == 0 {
					pid = below(monitor, "swrk")
				}
				return s.status(s.name+"b") == container.Running || pid != 0 && tasks(s.name+"b") > 0
			})
			if pid == 0 || unix.Kill(pid, unix.SIGSTOP) != nil {
				c.end(s)
				return nil, 0, 0
			}
			return c, pid, monitor
		}, func(s *stage) { s.do("delete", "-f", s.name+"b") }},
	}
	for _, m := range moments {
		for _, v := range victims() {
			t.Run(m.name+"/"+v.name, func(t *testing.T) {
				s := newStage(t)
				s.workload(v)
				s.do("checkpoint", s.name)
				s.interrupt(m, v)
				s.until("there is no clone", func() bool {
					var rows []row
					if err := json.Unmarshal([]byte(s.do("list", "--json")), &rows); err != nil {
						s.Fatal(err)
					}
					return len(rows) == 1
				})
				s.until("there is no cgroup", func() bool { return tasks(s.name+"b") < 0 })
				s.do("restore", "--name", s.name+"b", s.name)
				s.do("exec", s.name+"b", "--", "true")
				s.do("restore", s.name)
			})
		}
	}
}

// CRIU is killed when the image is whole and the tasks are about to end: then
// there is either an image and no container, or a container and no image.
func TestKilledAfterCommit(t *testing.T) {
	s := newStage(t)
	image := filepath.Join(s.root, "images", s.name)
	for range 12 {
		s.do("run", "-d", "--name", s.name, "--", "sleep", "1000")
		c := s.start("checkpoint", s.name)
		var pid int
		for deadline := time.Now().Add(patience); ; {
			if pid == 0 {
				pid = below(c.Process.Pid, "swrk")
			}
			if _, err := os.Stat(image); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("there is no image")
			}
		}
		if pid != 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		code := c.end(s)
		status, images := s.status(s.name), s.do("image", "list", "--json")
		switch {
		case code == 0 && status == container.Stopped && images != "[]\n":
			s.do("restore", s.name)
		case code != 0 && status == container.Running && images == "[]\n":
		default:
			t.Errorf("exit status %d, the container is %s, images %s: %s", code, status, images, c.stderr.String())
		}
		s.do("delete", "-f", s.name)
		if images != "[]\n" {
			s.do("image", "rm", "--all", s.name)
		}
	}
}

// tasks counts the tasks in a container's cgroup, in whatever hierarchy has any.
func tasks(name string) int {
	most := -1
	for _, pattern := range []string{"/sys/fs/cgroup/crucible/", "/sys/fs/cgroup/*/crucible/"} {
		files, _ := filepath.Glob(pattern + name + "/cgroup.procs")
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err == nil {
				most = max(most, len(strings.Fields(string(data))))
			}
		}
	}
	return most
}

// Whatever is interrupted in a start, there is no container.
func TestInterruptRun(t *testing.T) {
	for _, v := range victims() {
		if v.who == 1 {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			s := newStage(t)
			s.interrupt(moment{"", func(s *stage) (*running, int, int) {
				c := s.start("run", "-d", "--name", s.name, "--net", v.net(), "--", "sleep", "1000")
				var pid int
				s.until("there is a monitor", func() bool { pid = s.monitor(s.name); return pid != 0 })
				if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
					s.Fatal(err)
				}
				time.AfterFunc(time.Second, func() { _ = unix.Kill(pid, unix.SIGCONT) }) // long after the signal, also on a busy machine
				return c, 0, pid
			}, nil}, v)
			s.until("there is no container", func() bool { return s.do("list", "--json") == "[]\n" })
			s.do("run", "--rm", "--name", s.name, "--", "true")
		})
	}
}

// A monitor that is killed leaves its container running: it is seen, it can be
// ended, and the next command takes down what is left of it.
func TestKilledMonitor(t *testing.T) {
	s := newStage(t)
	s.do("run", "-d", "--name", s.name, "--", "sleep", "1000")
	if err := unix.Kill(s.monitor(s.name), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("the monitor is gone", func() bool { return s.monitor(s.name) == 0 })
	if got := s.status(s.name); got != container.Running {
		t.Errorf("the container is %s", got)
	}
	s.do("exec", s.name, "--", "true")
	_, err := s.command("checkpoint", s.name)
	if err == nil || !strings.Contains(err.Error(), "monitor") {
		t.Errorf("checkpoint: %v", err)
	}
	s.do("freeze", s.name)
	s.do("thaw", s.name)
	s.do("kill", s.name)
	if out := s.do("wait", s.name); strings.TrimSpace(out) != strconv.Itoa(container.UnknownExit) {
		t.Errorf("exit status %s", out)
	}
	s.do("start", s.name)
	s.do("delete", "-f", s.name)
}
