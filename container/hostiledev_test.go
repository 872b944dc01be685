package container_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// relink puts a link in the place of the null device.
func relink(target string) error {
	if err := errors.Join(os.Remove("/dev/null"), os.Symlink(target, "/dev/null")); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}

// watch tells what all processes that appear hold, once its own input ends:
// "foreign", with its name, is a file that the container does not have there.
// A process is stopped at first sight, so that there is time to look.
func watch(string) error {
	known, seen := processes(), map[string]bool{}
	fmt.Println("watching")
	done := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		done <- err
	}()
	stopped := map[int]bool{}
	for {
		select {
		case err := <-done:
			for _, link := range slices.Sorted(maps.Keys(seen)) {
				fmt.Println(link)
			}
			return err
		default:
		}
		for pid := range processes() {
			if known[pid] {
				continue
			}
			if !stopped[pid] {
				stopped[pid] = unix.Kill(pid, unix.SIGSTOP) == nil
			}
			if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
				_, rights, _ := strings.Cut(string(status), "CapPrm:\t")
				rights, _, _ = strings.Cut(rights, "\n")
				seen["rights "+rights] = true
			}
			fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
			for _, fd := range fds {
				if what := descriptor(fd); what != "" {
					seen[what] = true
				}
			}
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
}

// descriptor says what kind of thing a link in /proc/PID/fd leads to.
func descriptor(fd string) string {
	link, err := os.Readlink(fd)
	if err != nil || strings.HasPrefix(link, "/proc/") { // opened by the program itself, and gone with it
		return ""
	}
	if !strings.HasPrefix(link, "/") {
		kind, _, _ := strings.Cut(link, ":")
		return kind
	}
	held, err := os.Stat(fd)
	if err != nil {
		return "" // closed meanwhile
	}
	here, err := os.Stat(link)
	if again, linkErr := os.Readlink(fd); linkErr != nil || again != link {
		return "" // it stands for something else by now
	}
	if err != nil || !os.SameFile(here, held) {
		return "foreign " + link
	}
	return link
}

func processes() map[int]bool {
	all := map[int]bool{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all[pid] = true
		}
	}
	return all
}

// cover mounts something over the container's terminals.
func cover(what string) error {
	const ptmx, own = "/dev/pts/ptmx", "/tmp/own"
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	bind := func(source string) error { return unix.Mount(source, ptmx, "", unix.MS_BIND, "") }
	var err error
	switch what {
	case "all": // by a directory, with a device that would do
		err = errors.Join(unix.Mount("tmpfs", "/dev/pts", "tmpfs", 0, ""), unix.Mknod(ptmx, unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))))
	case "file":
		err = errors.Join(os.WriteFile(own+"/file", nil, 0o666), bind(own+"/file"))
	case "null":
		err = bind("/dev/null")
	case "other": // devpts
		err = errors.Join(unix.Mount("devpts", own, "devpts", 0, "newinstance,ptmxmode=0666"), bind(own+"/ptmx"))
	}
	if err == nil {
		fmt.Println("done")
	}
	return err
}

// showTerminal tells what its standard streams and the console are.
func showTerminal(string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(0, &fs); err != nil {
		return err
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return errors.New("standard input is no terminal")
	}
	for _, path := range []string{"/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "/dev/console", "/dev/ptmx"} {
		link, err := os.Readlink(path)
		fmt.Println(path, link, err)
	}
	return nil
}

// openDevice makes a device node, "KIND:MAJOR:MINOR", and opens it.
func openDevice(device string) error {
	var major, minor uint32
	kind := uint32(unix.S_IFCHR)
	if strings.HasPrefix(device, "b") {
		kind = unix.S_IFBLK
	}
	if _, err := fmt.Sscanf(device[1:], ":%d:%d", &major, &minor); err != nil {
		return err
	}
	const node = "/tmp/node"
	if err := unix.Mknod(node, kind|0o666, int(unix.Mkdev(major, minor))); err != nil {
		return &os.PathError{Op: "mknod", Path: node, Err: err}
	}
	return openPaths(node)
}

// openPaths opens what is there, and tells whether it could.
func openPaths(paths string) error {
	for _, path := range strings.Split(paths, ",") {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			fmt.Println("open:", err)
			continue
		}
		fmt.Println("opened")
		unix.Close(fd)
	}
	return nil
}
