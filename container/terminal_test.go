package container_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// executeOnTerminal runs a job to its end and gives what it wrote.
func executeOnTerminal(t *testing.T, c *container.Container, job string) (string, error) {
	t.Helper()
	x, err := c.Exec(t.Context(), container.ExecOptions{Args: []string{program, jobPrefix + job}, Terminal: true})
	if err != nil {
		return "", err
	}
	defer x.Close()
	var out bytes.Buffer
	x.Copy(nil, &out, io.Discard)
	if status, err := x.Wait(); status != 0 || err != nil {
		t.Errorf("%s on a terminal: status %d, %v: %s", job, status, err, out.String())
	}
	return strings.ReplaceAll(out.String(), "\r\n", "\n"), nil
}

const onTerminal = "/proc/self/fd/0 /dev/pts/0 <nil>\n/proc/self/fd/1 /dev/pts/0 <nil>\n/proc/self/fd/2 /dev/pts/0 <nil>\n"

// What lies at a name in a running container is the container's choice, and so
// is where a link there leads: a program that is executed on a terminal gets
// nothing that we opened by such a name (CVE-2024-21626, CVE-2016-9962).
func TestNullDeviceIsNotOpenedFromOutside(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary") // which the image does not have
	if err := os.WriteFile(canary, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := create(t, container.RunOptions{Rootfs: image(t), CapAdd: []string{"SYS_PTRACE"}}, "linger", nil)
	if err := c.Launch(t.Context(), false, true); err != nil {
		t.Fatal(err)
	}
	said, end := execute(t, c, program, "relink:"+canary)
	if _, status := end(); said != "done" || status != 0 {
		t.Fatalf("link in place of /dev/null: %s, status %d", said, status)
	}
	opened := watchOpens(t, canary)
	_, endWatch := execute(t, c, program, "watch")
	for range 5 {
		out, err := executeOnTerminal(t, c, "terminal")
		if err != nil || !strings.HasPrefix(out, onTerminal) {
			t.Errorf("%s, %v; want\n%s", out, err, onTerminal)
		}
	}
	if opened() {
		t.Error("the link's target was opened, on the host")
	}
	held, status := endWatch()
	if status != 0 || !strings.Contains(held, "pipe\n") || !strings.Contains(held, "/dev/pts/0\n") {
		t.Errorf("saw too little, status %d: %s", status, held)
	}
	if !strings.Contains(held, "rights ") {
		t.Errorf("saw no capabilities: %s", held)
	}
	// The executable, which is sealed, is known by no name in the container.
	sealed := "foreign /" + filepath.Base(os.Args[0])
	gone := "foreign /dev/pts/0" // the terminal itself, when it has been closed meanwhile
	// What it enters the container's own group of v1 by, last of all: whoever
	// takes it can put nobody there who is not in the container.
	tasks := "/crucible/" + c.Name + "/tasks"
	for _, what := range strings.Split(held, "\n") {
		if strings.HasPrefix(what, "foreign ") && what != sealed && what != gone && !strings.HasSuffix(what, tasks) {
			t.Errorf("held in the container: %s", what)
		}
		// Who may trace it, as this container's programs may, has the same.
		var rights uint64
		if _, err := fmt.Sscanf(what, "rights %x", &rights); err == nil && rights&(1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SYS_MODULE|1<<unix.CAP_DAC_READ_SEARCH) != 0 {
			t.Errorf("capabilities %x were held in the container", rights)
		}
	}
}

// watchOpens tells whether a file was opened since.
func watchOpens(t *testing.T, path string) func() bool {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		n, _ := unix.Read(fd, make([]byte, 4096))
		return n > 0
	}
}

// CVE-2025-52565: what an image has in the place of terminals is not what a
// program gets, and not what we open or write to.
func TestForgedTerminals(t *testing.T) {
	dir, outside := image(t), t.TempDir()
	canary := outside + "/canary"
	if err := errors.Join(os.WriteFile(canary, []byte("alive"), 0o600), os.Symlink(canary, dir+"/dev/console"),
		os.Symlink(outside, dir+"/dev/pts"), os.WriteFile(dir+"/dev/ptmx", []byte("forged"), 0o666)); err != nil {
		t.Fatal(err)
	}
	opened := watchOpens(t, canary)
	drop := func(target string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			for i, m := range s.Mounts {
				if m.Destination == target {
					s.Mounts = append(s.Mounts[:i:i], s.Mounts[i+1:]...)
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		volume string
		change func(*specs.Spec)
		err    string
	}{
		"all mounts":     {},
		"no /dev":        {change: drop("/dev")}, // it is made all the same
		"no /dev/pts":    {change: drop("/dev/pts"), err: "open /dev/pts: no such file or directory"},
		"a file as ptmx": {volume: dir + "/dev/ptmx:/dev/pts/ptmx"}, // below the devpts
		"a directory":    {volume: outside + ":/dev/pts", err: "/dev/pts is not a devpts file system"},
	} {
		t.Run(name, func(t *testing.T) {
			o := container.RunOptions{Rootfs: dir, Terminal: true}
			if tc.volume != "" {
				o.Volumes = []string{tc.volume}
			}
			out, err := run(t, create(t, o, "terminal", tc.change))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%s, %v; want an error with %q", out, err, tc.err)
				}
				return
			}
			want := onTerminal + "/dev/console pts/0 <nil>\n/dev/ptmx pts/ptmx <nil>\n"
			if out = strings.ReplaceAll(out, "\r", ""); err != nil || out != want {
				t.Errorf("%s, %v; want\n%s", out, err, want)
			}
		})
	}
	if opened() {
		t.Error("the link's target was opened")
	}
}

// CVE-2025-52565 again: a program that may mount puts something over the
// terminals of its running container.
func TestCoveredTerminals(t *testing.T) {
	for what, want := range map[string]string{
		"all":   "/dev/pts is not a devpts file system",
		"file":  "/dev/pts/ptmx is not the terminal multiplexer",
		"null":  "/dev/pts/ptmx is not the terminal multiplexer",
		"other": "/dev/pts/ptmx is not the terminal multiplexer",
	} {
		t.Run(what, func(t *testing.T) {
			c := create(t, container.RunOptions{Rootfs: image(t), CapAdd: []string{"SYS_ADMIN"}}, "linger", nil)
			if err := c.Launch(t.Context(), false, true); err != nil {
				t.Fatal(err)
			}
			if out, err := executeOnTerminal(t, c, "terminal"); err != nil || !strings.HasPrefix(out, onTerminal) {
				t.Fatalf("before: %s, %v", out, err)
			}
			said, end := execute(t, c, program, "cover:"+what)
			if _, status := end(); said != "done" || status != 0 {
				t.Fatalf("cover: %s, status %d", said, status)
			}
			if out, err := executeOnTerminal(t, c, "terminal"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %v; want an error with %q", out, err, want)
			}
		})
	}
}
