package container_test

import (
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container"
	"crucible/container/testenv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The test binary is crucible to the containers it starts: their init, and
// their monitor. With a job as its argument it is a program in a container.
func TestMain(m *testing.M) {
	container.MaybeInit()
	container.MaybeMonitor(nil, func(error) container.Explanation { return container.Explanation{} })
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[1], jobPrefix) {
		os.Exit(hostile(os.Args[1]))
	}
	os.Exit(m.Run())
}

// image is a root filesystem that holds the test binary, and nothing else.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "run", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, program), data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// libraries are the volumes without which a test binary that was linked with
// cgo does not run.
func libraries(t *testing.T) []string {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, _ := f.ImportedLibraries(); len(libs) == 0 {
		return nil
	}
	var volumes []string
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib"} {
		if _, err := os.Stat(dir); err == nil {
			volumes = append(volumes, dir+":"+dir+":ro")
		}
	}
	return volumes
}

// create makes a container that does a job of hostile's, and sees to its end.
func create(t *testing.T, o container.RunOptions, job string, change func(*specs.Spec)) *container.Container {
	t.Helper()
	testenv.Root(t)
	o.Args = []string{program, jobPrefix + job}
	o.Volumes = append(libraries(t), o.Volumes...)
	spec, err := container.NewSpec(o)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(spec)
	}
	// t.TempDir is closed to others than root, a user namespace's root too.
	dir, err := os.MkdirTemp("", "crucible-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	root := container.Root(dir)
	c, err := root.Create(testenv.Name(t), spec, container.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := c.Delete(ctx, container.DeleteOptions{Force: true}); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return c
}

// run runs a container to its end and gives what it wrote.
func run(t *testing.T, c *container.Container) (output string, err error) {
	t.Helper()
	if err := c.Launch(t.Context(), false, false); err != nil {
		return "", err
	}
	status, err := c.Wait(t.Context())
	if err != nil {
		return "", err
	}
	return logged(c, status)
}

// runForeground does it as the container's parent, on a thread that ends with it.
func runForeground(t *testing.T, c *container.Container) (output string, err error) {
	t.Helper()
	var status int
	done := make(chan error)
	go func() {
		var err error
		status, err = c.Run(t.Context(), container.Output{}, func(*container.Monitor) {})
		done <- err
	}()
	if err := <-done; err != nil {
		return "", err
	}
	return logged(c, status)
}

// logged is what a container wrote, and an error unless it ended well.
func logged(c *container.Container, status int) (output string, err error) {
	data, err := os.ReadFile(c.Log())
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(data), "\n") {
		if l, ok := container.ParseLogLine(line); ok {
			output += l.Text + "\n"
		}
	}
	if status != 0 {
		err = fmt.Errorf("exit status %d: %s", status, output)
	}
	return output, err
}

// execute starts a job in a running container; its input stays open until
// closeInput is called, and the first line it writes is returned.
func execute(t *testing.T, c *container.Container, path, job string) (line string, end func() (string, int)) {
	t.Helper()
	x, err := c.Exec(t.Context(), container.ExecOptions{Args: []string{path, jobPrefix + job}})
	if err != nil {
		t.Fatal(err)
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	go func() {
		x.Copy(inR, outW, outW)
		outW.Close()
	}()
	var b [1]byte
	for !strings.HasSuffix(line, "\n") {
		if _, err := outR.Read(b[:]); err != nil {
			t.Fatalf("%s said %q: %v", job, line, err)
		}
		line += string(b[:])
	}
	return strings.TrimSpace(line), func() (string, int) {
		inW.Close()
		rest, err := io.ReadAll(outR)
		if err != nil {
			t.Fatal(err)
		}
		status, err := x.Wait()
		if err != nil {
			t.Fatal(err)
		}
		x.Close()
		return string(rest), status
	}
}
