package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bare is CRIU alone on a process in the same five namespaces, with the
// options that make it as fast as it can be: started inside the container's
// network namespace, so that it saves and builds no network; no lock of the
// network; no cgroups; nothing mounted but the root and proc.
type bare struct{ *rig }

func (s *bare) Name() string { return nameCRIU }

func (s *bare) Launch(context.Context, ...string) (time.Duration, error) {
	return 0, errors.ErrUnsupported
}

func (s *bare) Start(ctx context.Context, name string, p program) (box, time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if p.bridge {
		return nil, 0, errors.ErrUnsupported
	}
	b := &bareBox{bare: s, dir: s.path("bare", name)}
	if err := afresh(b.dir); err != nil {
		return nil, 0, err
	}
	cmd := exec.Command(s.self, append([]string{"nest", s.root, b.dir + "/stdio"}, p.argv...)...)
	// The end of this pipe tells that the program was executed, or why it was not.
	told, tell, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	defer told.Close()
	cmd.Stderr = tell
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		Setsid:     true,
	}
	begin := time.Now()
	err = cmd.Start()
	tell.Close()
	if err != nil {
		return nil, 0, err
	}
	b.pid = cmd.Process.Pid
	go func() { _ = cmd.Wait() }() // its end is seen by Remove
	said := make([]byte, 1024)
	if n, _ := told.Read(said); n > 0 {
		return nil, 0, errors.Join(fmt.Errorf("start %s: %s", p.argv[0], said[:n]), b.Remove())
	}
	return b, time.Since(begin), nil
}

// nest is what the process does in its new namespaces before it becomes the
// program: the least that CRIU can dump and restore again.
func nest(root, stdio string, argv []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Mount("proc", root+"/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	// pivot_root(2), NOTES: the old root may be put on top of the new one.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	fd, err := unix.Open(stdio, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", stdio, err)
	}
	// What is wrong from here on is told by the pipe, which exec closes.
	report, err := unix.FcntlInt(2, unix.F_DUPFD, 3)
	if err != nil {
		return err
	}
	for i := range 3 {
		if err := unix.Dup3(fd, i, 0); err != nil {
			return err
		}
	}
	// Also what a shell left open for us: CRIU cannot dump what leads outside.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	err = unix.Exec(argv[0], argv, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
	_, _ = unix.Write(report, []byte(err.Error()))
	return err
}

// bareBox is such a process.
type bareBox struct {
	*bare
	dir string
	pid int
}

func (b *bareBox) Pid() int      { return b.pid }
func (*bareBox) Address() string { return "" }

func (b *bareBox) image() string { return b.dir + "/image" }

func (b *bareBox) Checkpoint(ctx context.Context, leave bool) (time.Duration, error) {
	if err := afresh(b.image()); err != nil {
		return 0, err
	}
	argv := []string{b.o.criu, "dump", "-t", fmt.Sprint(b.pid), "-D", b.image(), "-o", "dump.log",
		"--manage-cgroups=ignore", "--network-lock", "skip"}
	if leave {
		argv = append(argv, "--leave-running")
	}
	_, took, err := b.run(ctx, command{argv: argv, netns: fmt.Sprintf("/proc/%d/ns/net", b.pid)})
	if err == nil && !leave {
		err = gone(b.pid)
	}
	return took, withCRIULog(err, b.image()+"/dump.log")
}

func (b *bareBox) Restore(ctx context.Context) (time.Duration, error) {
	var took time.Duration
	var err error
	b.pid, took, err = b.restoreFrom(ctx, b.image(), b.dir)
	return took, err
}

// restoreFrom restores an image, with files of its own in dir.
func (s *bare) restoreFrom(ctx context.Context, image, dir string) (int, time.Duration, error) {
	pidFile := dir + "/pid"
	if err := os.RemoveAll(pidFile); err != nil { // CRIU does not write over one
		return 0, 0, err
	}
	_, took, err := s.run(ctx, command{fresh: true, argv: []string{s.o.criu, "restore", "-d", "-D", image,
		"-W", dir, "-o", "restore.log", "--root", s.root, "--pidfile", pidFile,
		"--manage-cgroups=ignore", "--network-lock", "skip"}})
	if err != nil {
		return 0, took, withCRIULog(err, dir+"/restore.log")
	}
	pid, err := readNumber(pidFile)
	return pid, took, err
}

func (b *bareBox) Remove() error {
	var err error
	if b.pid > 0 {
		if err = ignore(unix.Kill(b.pid, unix.SIGKILL), unix.ESRCH); err == nil {
			err = gone(b.pid)
		}
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
