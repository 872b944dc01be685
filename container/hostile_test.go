package container_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// jobPrefix is before the name of what the test binary does in a container.
const jobPrefix = "job:"

// program is the test binary's path in an image.
const program = "/bin/program"

func hostile(job string) int {
	jobs := map[string]func(argument string) error{
		"linger": linger, "steal": steal, "rob": rob, "overwrite": overwrite, "look": look, "cwd": cwd, "descriptors": descriptors, "confinement": showConfinement,
		"relink": relink, "watch": watch, "cover": cover, "terminal": showTerminal, "device": openDevice, "open": openPaths,
	}
	name, argument, _ := strings.Cut(strings.TrimPrefix(job, jobPrefix), ":")
	do := jobs[name]
	if do == nil {
		do = func(string) error { return fmt.Errorf("no such job: %s", job) }
	}
	if err := do(argument); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

// linger says its pid and waits until its input ends.
func linger(string) error {
	fmt.Println(os.Getpid())
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// steal takes hold of another process's executable, waits until its own input
// ends, and tries to write.
func steal(pid string) error {
	exe, err := os.OpenFile("/proc/"+pid+"/exe", unix.O_PATH, 0)
	if err != nil {
		return err
	}
	fmt.Println("holding")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return overwrite(strconv.Itoa(int(exe.Fd())))
}

// rob takes hold of the executable that it is itself, becomes another program,
// and tries to write.
func rob(string) error {
	exe, err := unix.Open("/proc/self/exe", unix.O_PATH, 0) // not close-on-exec
	if err != nil {
		return err
	}
	var seen []int
	for pid := range processes() {
		seen = append(seen, pid)
	}
	fmt.Println("processes", seen)
	return unix.Exec(program, []string{program, fmt.Sprintf("%soverwrite:%d", jobPrefix, exe)}, nil)
}

func overwrite(fd string) error {
	f, err := os.OpenFile("/proc/self/fd/"+fd, os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		return nil
	}
	if _, err := f.WriteAt([]byte{0}, 0); err == nil {
		return errors.New("overwritten")
	}
	return nil
}

// look says what is at some paths.
func look(paths string) error {
	for _, path := range strings.Split(paths, ",") {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			fmt.Printf("%s: %v\n", path, err)
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			fmt.Printf("%s: device %d:%d\n", path, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case unix.S_IFDIR:
			entries, err := os.ReadDir(path)
			fmt.Printf("%s: %d entries, %v\n", path, len(entries), err)
		default:
			data, err := os.ReadFile(path)
			fmt.Printf("%s: %q, %v\n", path, bytes.TrimSpace(data), err)
		}
	}
	return nil
}

// cwd says whether the working directory is what its path says, which a
// directory outside of the root cannot be.
func cwd(string) error {
	var here, there unix.Stat_t
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return err
	}
	path := string(buf[:max(n-1, 0)])
	if err := errors.Join(unix.Stat(".", &here), unix.Stat(path, &there)); err != nil {
		return err
	}
	if here.Dev != there.Dev || here.Ino != there.Ino {
		return fmt.Errorf("%q is another directory", path)
	}
	fmt.Println(path)
	return nil
}

// descriptors shows what is open; what Go itself opened is close-on-exec.
func descriptors(string) error {
	for fd := range 100 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			return err
		}
		fmt.Println(fd, link)
	}
	return nil
}

// confinement is what a program can find out about its own.
type confinement struct {
	Soft, Hard           uint64
	NoNewPrivs           bool
	Priority             string
	Effective, Permitted uint32
	Bounding             string // a digit for each capability
}

func showConfinement(string) error {
	var c confinement
	// Go itself has raised the soft limit by now; syscall.Exec that fails
	// gives the old one back.
	_ = unix.Exec("", nil, nil)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	c.Soft, c.Hard = limit.Cur, limit.Max
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	c.NoNewPrivs = nnp == 1
	if _, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil {
		c.Priority = err.Error()
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	c.Effective, c.Permitted = data[0].Effective, data[0].Permitted
	for n := range 64 {
		has, _ := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		c.Bounding += fmt.Sprint(max(has, 0))
	}
	return json.NewEncoder(os.Stdout).Encode(c)
}
