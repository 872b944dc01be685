package restore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crucible/checkpoint"
	"crucible/container/testenv"
	"crucible/images"
	"crucible/proto/imagepb"
	"crucible/restore"
)

// patience is how long anything may take that has no event to wait for.
const patience = 30 * time.Second

// env is crucible's binary with a state root, for one test.
type env struct {
	t         testing.TB
	bin, root string
}

// program skips the test where a program of the host is missing.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if strings.HasPrefix(name, "/") {
		path = name
		_, err = os.Stat(name)
	}
	if err != nil {
		testenv.Skip(t, "%s is not installed: scripts/setup --tests", name)
	}
	return path
}

// python is Debian's, not one that a user has put first in PATH.
func python(t testing.TB) string { return program(t, "/usr/bin/python3") }

// script reads a program of testdata, after what all Python programs share.
func script(t testing.TB, name string) string {
	t.Helper()
	var text []byte
	for _, file := range []string{"ask.py", name} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, data...)
	}
	return string(text)
}

// failure is a command that did not succeed.
type failure struct {
	Message string `json:"error"`
	Code    int    `json:"exitCode"`
}

func (e *failure) Error() string { return fmt.Sprintf("exit status %d: %s", e.Code, e.Message) }

// command runs crucible and returns its standard output.
func (e *env) command(stdin io.Reader, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	c := exec.CommandContext(ctx, e.bin, append([]string{"--root", e.root}, args...)...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = stdin, &out, &errs
	// A monitor that is left over must not keep the test waiting for a pipe's end.
	c.WaitDelay = time.Second
	err := c.Run()
	if ctx.Err() != nil {
		return out.String(), fmt.Errorf("crucible %s: %w", strings.Join(args, " "), ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), &failure{strings.TrimSpace(errs.String()), exit.ExitCode()}
	}
	return out.String(), err
}

// do is command for one that must succeed.
func (e *env) do(args ...string) string {
	e.t.Helper()
	out, err := e.command(nil, args...)
	if err != nil {
		e.t.Fatalf("crucible %s: %v", shorten(args), err)
	}
	return out
}

// read decodes the JSON that a command prints.
func (e *env) read(into any, args ...string) {
	e.t.Helper()
	out := e.do(args...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		e.t.Fatalf("crucible %s: %v in %q", shorten(args), err, out)
	}
}

func shorten(args []string) string {
	line := strings.Join(args, " ")
	if len(line) > 120 {
		line = line[:120] + "..."
	}
	return line
}

// box is a container.
type box struct {
	*env
	name    string
	pid     int // of its first process, on the host
	address string
}

// run starts a container in the background, which is deleted at the test's end.
func (e *env) run(flags []string, program ...string) *box {
	e.t.Helper()
	b := &box{env: e, name: testenv.Name(e.t)}
	b.willDelete()
	e.do(append(append([]string{"run", "--name", b.name, "-d"}, flags...), append([]string{"--"}, program...)...)...)
	b.reload()
	return b
}

func (b *box) willDelete() {
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.showLogs()
		}
		_, err := b.command(nil, "delete", "-f", b.name)
		var f *failure
		if errors.As(err, &f) && f.Code == 3 { // there is none
			return
		}
		if err != nil {
			b.t.Errorf("delete %s: %v", b.name, err)
		}
	})
}

// showLogs shows why a test failed: the program's own words and CRIU's.
func (b *box) showLogs() {
	out, err := b.command(nil, "logs", "--tail", "15", b.name)
	var f *failure
	if errors.As(err, &f) {
		out += f.Message
	}
	b.t.Logf("output of %s:\n%s", b.name, out)
	for _, file := range []string{"checkpoint.log", "restore.log", "lazy-pages.log"} {
		data, err := os.ReadFile(filepath.Join(b.root, "logs", b.name, file))
		if err != nil || !bytes.Contains(data, []byte("Error")) {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		b.t.Logf("end of CRIU's %s of %s:\n%s", file, b.name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// listed is a line of `crucible list --json`.
type listed struct {
	Name       string `json:"name"`
	Status     string `json:"status"`
	Pid        int    `json:"pid"`
	ExitStatus *int   `json:"exitStatus"`
	Address    string `json:"address"`
	Image      string `json:"image"`
}

func (b *box) list() listed {
	b.t.Helper()
	var all []listed
	b.read(&all, "list", "--json")
	for _, l := range all {
		if l.Name == b.name {
			return l
		}
	}
	return listed{Name: b.name}
}

func (b *box) reload() {
	b.t.Helper()
	l := b.list()
	b.pid, b.address = l.Pid, l.Address
}

// mustBe checks the container's status as the command shows it.
func (b *box) mustBe(status string) {
	b.t.Helper()
	if l := b.list(); l.Status != status {
		b.t.Fatalf("container %s is %q, want %q", b.name, l.Status, status)
	}
}

func (b *box) checkpoint(flags ...string) checkpoint.Result {
	b.t.Helper()
	var r checkpoint.Result
	b.read(&r, append([]string{"checkpoint", "--json", b.name}, flags...)...)
	b.mustBeRecorded(r.Ref)
	return r
}

// mustBeRecorded: whatever the program is, the record of its processes is complete.
func (b *box) mustBeRecorded(ref string) {
	b.t.Helper()
	if ref == "" {
		return // a dry run
	}
	i, err := images.Store{Dir: filepath.Join(b.root, "images")}.Open(ref)
	if err != nil {
		b.t.Fatal(err)
	}
	if i.Manifest.GetTraits().GetPreDump() {
		return
	}
	var p imagepb.Processes
	if err := i.Get(images.Processes, &p); err != nil || !p.Complete {
		b.t.Errorf("%s: the record of the processes is not complete: %s, %v", ref, p.Incomplete, err)
	}
}

// restore brings the container back from its newest image.
func (b *box) restore(flags ...string) restore.Result {
	b.t.Helper()
	var r restore.Result
	b.read(&r, append([]string{"restore", "--json", b.name}, flags...)...)
	b.pid, b.address = r.Pid, r.Address
	return r
}

// cycle takes the container away and brings it back.
func (b *box) cycle() {
	b.t.Helper()
	c := b.checkpoint()
	b.mustBe("stopped")
	r := b.restore()
	b.mustBe("running")
	if r.Image != c.Ref {
		b.t.Errorf("restored from %s, want %s", r.Image, c.Ref)
	}
}

// clone restores an image under another name.
func (b *box) clone(ref string, flags ...string) *box {
	b.t.Helper()
	n := &box{env: b.env, name: testenv.Name(b.t)}
	n.willDelete()
	var r restore.Result
	b.read(&r, append([]string{"restore", "--json", "--name", n.name, ref}, flags...)...)
	n.pid, n.address = r.Pid, r.Address
	return n
}

// exec runs a program in the container and returns what it wrote.
func (b *box) exec(args ...string) string {
	b.t.Helper()
	return b.do(append([]string{"exec", b.name, "--"}, args...)...)
}

// logs are all lines that the container has written.
func (b *box) logs() []string {
	b.t.Helper()
	return strings.Split(strings.TrimSuffix(b.do("logs", b.name), "\n"), "\n")
}

// path is where the host sees a file of the container.
func (b *box) path(file string) string { return fmt.Sprintf("/proc/%d/root%s", b.pid, file) }

// tryAsk puts a question to a program made with ask.py. The socket's name leads
// through the container's root, so no process is needed inside.
func (b *box) tryAsk(socket, question string) ([]byte, error) {
	conn, err := net.DialTimeout("unix", b.path(socket), patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(conn, question); err != nil {
		return nil, err
	}
	return io.ReadAll(conn)
}

// ask decodes the program's answer. It waits for a program that still starts.
func (b *box) ask(question string, into any) {
	b.t.Helper()
	b.askAt("/run/ask", question, into)
}

// askAt asks one of several programs in the container.
func (b *box) askAt(socket, question string, into any) {
	b.t.Helper()
	eventually(b.t, "answer to "+question, func() error {
		data, err := b.tryAsk(socket, question)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, into); err != nil {
			return fmt.Errorf("%w in %q", err, data)
		}
		return nil
	})
}

// eventually repeats what has no event to wait for.
func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v after %v", what, err, patience)
		}
		time.Sleep(pause)
	}
}
