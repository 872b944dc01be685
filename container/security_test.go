package container_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"crucible/container"
	"crucible/container/mount"
	"crucible/container/testenv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CVE-2024-21626: the working directory is a descriptor that we left open, so
// that the program starts in the host's root.
func TestWorkingDirectoryThroughDescriptor(t *testing.T) {
	dir := image(t)
	leak, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	fds := []int{3, 4, 5, 6, 7, 8, leak}
	for _, fd := range fds {
		at := fmt.Sprintf("/proc/self/fd/%d", fd)
		out, err := run(t, create(t, container.RunOptions{Rootfs: dir, Cwd: at}, "cwd", nil))
		if err == nil && out != "/\n" || err != nil && strings.Contains(err.Error(), "exit status") {
			t.Errorf("started in %s: %s, %v", at, out, err)
		}
	}
	c := create(t, container.RunOptions{Rootfs: dir}, "linger", nil)
	if err := c.Launch(t.Context(), false, true); err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		at := fmt.Sprintf("/proc/self/fd/%d", fd)
		x, err := c.Exec(t.Context(), container.ExecOptions{Args: []string{program, jobPrefix + "cwd"}, Cwd: at})
		if err != nil {
			continue
		}
		var out bytes.Buffer
		x.Copy(nil, &out, &out)
		if status, err := x.Wait(); status != 0 || err != nil || out.String() != "/\n" {
			t.Errorf("executed in %s: %s, status %d, %v", at, out.String(), status, err)
		}
		x.Close()
	}
}

// CVE-2024-21626 again: whatever is open, nothing of it is the host's.
func TestNoDescriptorOfTheHost(t *testing.T) {
	leak, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	c := create(t, container.RunOptions{Rootfs: image(t)}, "descriptors", nil)
	out, err := run(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if want := "0 /dev/null\n1 " + mount.StdioDir + "/stdout\n2 " + mount.StdioDir + "/stderr\n"; out != want {
		t.Errorf("descriptors:\n%s\nwant\n%s", out, want)
	}
	c = create(t, container.RunOptions{Rootfs: image(t)}, "linger", nil)
	if err := c.Launch(t.Context(), false, true); err != nil {
		t.Fatal(err)
	}
	line, end := execute(t, c, program, "descriptors")
	rest, _ := end()
	for i, l := range strings.Split(strings.TrimSpace(line+"\n"+rest), "\n") {
		if !strings.HasPrefix(l, strconv.Itoa(i)+" pipe:") || i > 2 {
			t.Errorf("executed with %q", l)
		}
	}
}

// CVE-2025-31133: what masks a path is what the image calls /dev/null.
func TestForgedNullDevice(t *testing.T) {
	dir := image(t)
	if err := os.Symlink("/proc/sys/kernel/core_pattern", dir+"/dev/null"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"/etc/secret", "/etc/dir/secret"} {
		if err := os.MkdirAll(filepath.Dir(dir+f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+f, []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	masked := func(paths ...string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, paths...) }
	}
	c := create(t, container.RunOptions{Rootfs: dir}, "look:/etc/secret,/etc/dir,/etc/none", masked("/etc/secret", "/etc/dir", "/etc/none"))
	out, err := run(t, c)
	if want := "/etc/secret: device 1:3\n/etc/dir: 0 entries, <nil>\n/etc/none: no such file or directory\n"; err != nil || out != want {
		t.Errorf("%v: %s\nwant %s", err, out, want)
	}
	// A link in the place of a masked path is refused, not followed.
	if err := os.Symlink("/etc/secret", dir+"/etc/link"); err != nil {
		t.Fatal(err)
	}
	_, err = run(t, create(t, container.RunOptions{Rootfs: dir}, "look:/etc/secret", masked("/etc/link")))
	if err == nil || !strings.Contains(err.Error(), "/etc/link: is a symbolic link") {
		t.Errorf("error %v", err)
	}
	// Whatever comes to lie at the name after all is not mounted anywhere.
	for name, o := range map[string]container.RunOptions{
		"file":   {Volumes: []string{dir + "/etc/dir/secret:/dev/null"}},
		"device": {Volumes: []string{"/dev/zero:/dev/null"}},
	} {
		o.Rootfs = dir
		out, err := run(t, create(t, o, "look:/etc/secret", masked("/etc/secret")))
		if err == nil || !strings.Contains(err.Error(), "mask ") || !strings.Contains(err.Error(), "is not the null device") {
			t.Errorf("a %s as /dev/null: %s, %v", name, out, err)
		}
	}
}

// forgedProc is an image whose /proc is a link to what its maker put together.
func forgedProc(t *testing.T) (dir, canary string) {
	t.Helper()
	dir = image(t)
	canary = dir + "/etc/canary"
	if err := errors.Join(os.Remove(dir+"/proc"), os.WriteFile(canary, []byte("alive"), 0o666),
		os.MkdirAll(dir+"/fake/sys/kernel", 0o755), os.Symlink("/etc/canary", dir+"/fake/sys/kernel/shmmax"),
		os.MkdirAll(dir+"/fake/1", 0o755), os.Symlink("1", dir+"/fake/self"),
		os.Link(canary, dir+"/fake/1/oom_score_adj"), os.Symlink("/fake", dir+"/proc")); err != nil {
		t.Fatal(err)
	}
	return dir, canary
}

// mountedProc keeps the container's procfs, or leaves it away.
func mountedProc(s *specs.Spec, mounted bool) {
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "proc" && !mounted })
}

// CVE-2025-52881: where the image's /proc leads is not where sysctls are
// written to.
func TestRedirectedSysctl(t *testing.T) {
	dir, _ := forgedProc(t)
	for _, mounted := range []bool{true, false} {
		change := func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"kernel.shmmax": "4242"}
			mountedProc(s, mounted)
		}
		c := create(t, container.RunOptions{Rootfs: dir}, "look:/etc/canary,/fake/sys/kernel/shmmax", change)
		out, err := run(t, c)
		// Through the link the container's procfs stands on /fake.
		want := "/etc/canary: \"alive\", <nil>\n/fake/sys/kernel/shmmax: \"4242\", <nil>\n"
		if !mounted {
			want = "/etc/canary: \"alive\", <nil>\n/fake/sys/kernel/shmmax: \"alive\", <nil>\n"
		}
		if err != nil || out != want {
			t.Errorf("procfs mounted %v: %v: %s\nwant %s", mounted, err, out, want)
		}
	}
}

// CVE-2025-52881 again: sysctls are written before the image's /proc can be
// seen, but this is written after.
func TestRedirectedOOMScore(t *testing.T) {
	dir, canary := forgedProc(t)
	score := 321
	for _, mounted := range []bool{true, false} {
		c := create(t, container.RunOptions{Rootfs: dir}, "linger", func(s *specs.Spec) {
			s.Process.OOMScoreAdj = &score
			mountedProc(s, mounted)
		})
		if err := c.Launch(t.Context(), false, true); err != nil {
			t.Errorf("procfs mounted %v: %v", mounted, err)
			continue
		}
		got, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.State.Init.Pid))
		if err != nil || strings.TrimSpace(string(got)) != strconv.Itoa(score) {
			t.Errorf("procfs mounted %v: score %s, %v", mounted, got, err)
		}
		inside := fmt.Sprintf("/proc/%d/root/fake/1/oom_score_adj", c.State.Init.Pid)
		for _, file := range []string{canary, inside} {
			data, err := os.ReadFile(file)
			if err != nil || (!mounted || file == canary) && string(data) != "alive" {
				t.Errorf("procfs mounted %v: %s holds %q, %v", mounted, file, data, err)
			}
		}
	}
}

// CVE-2021-30465: a directory of a volume is exchanged with a link to the
// host's root while we make mount points in it. Nothing may be mounted outside
// of the container's own directory.
func TestExchangedMountPoint(t *testing.T) {
	testenv.Root(t)
	dir, volume := image(t), t.TempDir()
	target := t.TempDir() // what the link leads to, in place of the host's root
	if err := errors.Join(os.Mkdir(volume+"/sub", 0o755), os.Symlink(strings.Repeat("../", 20)+target, volume+"/trap")); err != nil {
		t.Fatal(err)
	}
	v, err := unix.Open(volume, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(v)
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for !stop.Load() {
			if unix.Renameat2(v, "sub", v, "trap", unix.RENAME_EXCHANGE) == nil {
				n++
			}
		}
		done <- n
	}()
	below := func(s *specs.Spec) { // the volume comes first, whatever order flags have
		for _, point := range []string{"/v/sub/a", "/v/sub/b", "/v/sub/c/d"} {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: point, Type: "tmpfs", Source: "tmpfs"})
		}
	}
	before := mountPoints(t, "self")
	started, met := 0, 0
	for range 20 {
		c := create(t, container.RunOptions{Rootfs: dir, Volumes: []string{volume + ":/v"}}, "linger", below)
		if err := c.Launch(t.Context(), false, true); err != nil {
			continue // the exchange was noticed
		}
		started++
		// The link was met: inside, its target was made.
		inside := fmt.Sprintf("/proc/%d/task/%d/root%s%s", c.State.Monitor.Pid, c.State.MonitorThread, c.Rootfs(), target)
		if _, err := os.Lstat(inside); err == nil {
			met++
		}
		for point := range mountPoints(t, strconv.Itoa(c.State.Monitor.Pid)) {
			if !before[point] && !strings.HasPrefix(point, c.Dir+"/") {
				t.Errorf("mounted on the host's %s", point)
			}
		}
		if _, err := c.Stop(t.Context(), 0); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	if n := <-done; n == 0 || started == 0 || met == 0 {
		t.Errorf("%d exchanges, %d containers started, %d met the link: this tests nothing", n, started, met)
	}
	if entries, err := os.ReadDir(target); err != nil || len(entries) != 0 {
		t.Errorf("the link's target holds %v, %v", entries, err)
	}
}

// mountPoints are those of all threads of a process: the monitor's mount
// namespace is that of one thread.
func mountPoints(t *testing.T, pid string) map[string]bool {
	t.Helper()
	lists, err := filepath.Glob("/proc/" + pid + "/task/*/mountinfo")
	if err != nil || len(lists) == 0 {
		t.Fatalf("mounts of process %s: %v", pid, err)
	}
	points := make(map[string]bool)
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, line := range strings.Split(string(data), "\n") {
			if f := strings.Fields(line); len(f) > 4 {
				points[f[4]] = true
			}
		}
	}
	return points
}

// An image cannot have our mounts end up elsewhere, or outside, by links in
// the place of mount points (CVE-2019-19921 and its kin). Inside of the image
// they are followed.
func TestLinksInPlaceOfMountPoints(t *testing.T) {
	dir := image(t)
	// Not below /tmp: that is a link itself, which would lead in circles.
	outside, err := os.MkdirTemp("/var/tmp", "crucible-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(outside) })
	names := []string{"sys", "dev", "tmp", "run", "proc"}
	for _, name := range names {
		target := filepath.Join(outside, name)
		if err := errors.Join(os.Mkdir(target, 0o755), os.Remove(filepath.Join(dir, name)), os.Symlink(target, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	before := mountPoints(t, "self")
	c := create(t, container.RunOptions{Rootfs: dir, Tmpfs: []string{"/tmp", "/run"}}, "linger", nil)
	if err := c.Launch(t.Context(), false, true); err != nil {
		t.Fatal(err)
	}
	points := mountPoints(t, strconv.Itoa(c.State.Monitor.Pid))
	for point := range points {
		if !before[point] && !strings.HasPrefix(point, c.Dir+"/") {
			t.Errorf("mounted on the host's %s", point)
		}
	}
	inside := mountPoints(t, strconv.Itoa(c.State.Init.Pid))
	for _, name := range names {
		target := filepath.Join(outside, name)
		if !inside[target] {
			t.Errorf("nothing mounted on the container's own %s", target)
		}
		// As the monitor sees it: a mount there would not show on the host.
		seen := fmt.Sprintf("/proc/%d/task/%d/root%s", c.State.Monitor.Pid, c.State.MonitorThread, target)
		if entries, err := os.ReadDir(seen); err != nil || len(entries) != 0 {
			t.Errorf("the link's target %s holds %v, %v", target, entries, err)
		}
	}
}

// The confinement that a bundle asks for is what the program gets.
func TestConfinement(t *testing.T) {
	number := uint(121)
	o := container.RunOptions{
		Rootfs: image(t), CapDrop: []string{"ALL"}, CapAdd: []string{"CHOWN"}, Rlimits: []string{"nofile=100:200"},
		Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"getpriority"}, Action: specs.ActErrno, ErrnoRet: &number}}},
	}
	for _, privileges := range []bool{false, true} {
		o.Privileges = privileges
		out, err := run(t, create(t, o, "confinement", nil))
		if err != nil {
			t.Error(err)
			continue
		}
		var got confinement
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		want := confinement{Soft: 100, Hard: 200, NoNewPrivs: !privileges, Priority: "remote I/O error",
			Effective: 1, Permitted: 1, Bounding: "1000000000000000000000000000000000000000000000000000000000000000"}
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}
