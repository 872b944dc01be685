package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

// TestScripts runs testdata/*.txtar against the built program, each with a
// state root of its own. What the scripts can do besides what testscript itself
// offers is in the functions below.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runScript(t, file) })
	}
}

// patience is how long a script may take; the most is for those that wait for
// a slow machine.
const patience = time.Minute

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// In the first line: "nobody", it needs no rights; "machine", it boots some.
	first, _, _ := strings.Cut(string(text), "\n")
	if !strings.Contains(first, "nobody") {
		testenv.Root(t)
	}
	if strings.Contains(first, "machine") && testing.Short() {
		testenv.Skip(t, "boots machines")
	}
	root := testenv.StateRoot(t)
	if err := os.Chmod(root, 0o711); err != nil { // for a user namespace's root
		t.Fatal(err)
	}
	testenv.LeakCheck(t)
	bin := binaryDir(t)
	testscript.RunT(serial{t}, testscript.Params{
		Files:    []string{file},
		Deadline: time.Now().Add(patience),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+":"+e.Getenv("PATH"))
			for _, name := range os.Environ() { // what LeakCheck knows our processes by
				if key, value, _ := strings.Cut(name, "="); strings.HasPrefix(key, "CRUCIBLE_") {
					e.Setenv(key, value)
				}
			}
			e.Setenv("CRUCIBLE_ROOT", root)
			if cache, err := os.UserCacheDir(); err == nil { // kernels once fetched
				e.Setenv("XDG_CACHE_HOME", cache)
			}
			for _, v := range []string{"A", "B", "C"} {
				e.Setenv(v, testenv.Name(t))
			}
			e.Setenv("PORT", freePort(t))
			e.Setenv("SETUP", setupScript(t))
			e.Setenv("CRUCIBLE", filepath.Join(bin, "crucible"))
			// For scripts that fill a disk; nothing is there otherwise.
			e.Defer(func() { _ = unix.Unmount(filepath.Join(root, "images"), unix.MNT_DETACH) })
			e.Defer(func() {
				for _, path := range leftovers(root) {
					t.Errorf("left in the state root: %s", path)
				}
				deleteAll(t, root)
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"crucible": scriptCrucible, "fails": scriptFails, "status": scriptStatus, "json": scriptJSON, "until": scriptUntil,
			"spoil": func(ts *testscript.TestScript, _ bool, args []string) { scriptSpoil(ts, root, args) },
		},
	})
}

// setupScript is the path of scripts/setup, for a volume.
func setupScript(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../scripts/setup")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// binaryDir is a directory with the program under its own name, for everybody
// to execute.
func binaryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile(testenv.Binary(t))
	if err = errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "crucible"), data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// deleteAll deletes what a test that failed has left.
func deleteAll(t *testing.T, root string) {
	entries, _ := os.ReadDir(filepath.Join(root, "containers"))
	for _, e := range entries {
		out, err := exec.Command(testenv.Binary(t), "--root", root, "delete", "-f", e.Name()).CombinedOutput()
		if err != nil {
			t.Logf("delete %s: %v: %s", e.Name(), err, out)
		}
	}
}

// freePort is a TCP port that nobody listens at now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// leftovers are the files of a state root that no container's end may leave:
// all but committed images, and what is there for all containers.
func leftovers(root string) (paths []string) {
	for _, pattern := range []string{"containers/*", "containers/.*", "images/.drafts/*", "network/*/*", "logs/*"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		paths = append(paths, found...)
	}
	return paths
}

// serial makes the scripts wait for each other: they are told apart from each
// other's leaks by their order.
type serial struct{ *testing.T }

func (s serial) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(serial{t}) })
}
func (s serial) Parallel()     {}
func (s serial) Verbose() bool { return testing.Verbose() }

// crucible ARGS...: exec crucible, without the "exec".
func scriptCrucible(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("crucible", args...)
	if (err != nil) != neg {
		ts.Fatalf("crucible %s: %v\n%s", strings.Join(args, " "), err, ts.ReadFile("stderr"))
	}
}

// status N ARGS...: crucible must return a program's exit status, and say nothing itself.
func scriptStatus(ts *testscript.TestScript, _ bool, args []string) {
	code := runFor(ts, args[1:])
	if args[0] != strconv.Itoa(code) || strings.Contains(ts.ReadFile("stderr"), "crucible:") {
		ts.Fatalf("crucible %s: exit status %d, want %s\n%s", strings.Join(args[1:], " "), code, args[0], ts.ReadFile("stderr"))
	}
}

// fails N ARGS...: crucible must fail with that exit code and an error in due form.
func scriptFails(ts *testscript.TestScript, _ bool, args []string) {
	code := runFor(ts, args[1:])
	line := "crucible " + strings.Join(args[1:], " ")
	said := ts.ReadFile("stderr")
	if args[0] != strconv.Itoa(code) {
		ts.Fatalf("%s: exit code %d, want %s\n%s", line, code, args[0], said)
	}
	f, err := parseFailure(said)
	if err == nil && f.Code != 0 && f.Code != code {
		err = fmt.Errorf("says exit code %d and returns %d", f.Code, code)
	}
	if err == nil {
		err = f.inDueForm()
	}
	if err != nil {
		ts.Fatalf("%s: %v in\n%s", line, err, said)
	}
}

// runFor runs crucible for its exit code; after "nobody:" it does so without rights.
func runFor(ts *testscript.TestScript, args []string) int {
	program := "crucible"
	if args[0] == "nobody:" {
		program = "setpriv"
		args = append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "crucible"}, args[1:]...)
	}
	err := ts.Exec(program, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// parseFailure reads an error as report prints it, in either form.
func parseFailure(said string) (failure, error) {
	var f failure
	if strings.HasPrefix(said, "{") {
		return f, json.Unmarshal([]byte(said), &f)
	}
	for _, line := range strings.Split(strings.TrimSuffix(said, "\n"), "\n") {
		key, value, _ := strings.Cut(line, ": ")
		place := map[string]*string{"crucible": &f.Message, "object": &f.Object, "hint": &f.Hint, "log": &f.Log}[key]
		if place == nil || *place != "" {
			return f, fmt.Errorf("unexpected line %q", line)
		}
		*place = value
	}
	return f, nil
}

// inDueForm says what is wrong with an error's form: it is one line, has a
// hint, does not repeat itself, and does not tell of Go.
func (f failure) inDueForm() error {
	switch {
	case f.Message == "":
		return errors.New("no message")
	case f.Hint == "":
		return errors.New("no hint")
	case strings.Contains(f.Message, f.Hint):
		return errors.New("the hint is told twice")
	case strings.ContainsAny(f.Message+f.Hint, "\n\r\x1b"):
		return errors.New("control characters")
	case strings.HasSuffix(f.Message, ":"), strings.Contains(f.Message, ": :"):
		return errors.New("a cause is missing")
	}
	seen := map[string]bool{}
	for _, part := range strings.Split(f.Message, ": ") {
		if seen[part] {
			return fmt.Errorf("%q is repeated", part)
		}
		seen[part] = true
	}
	for _, word := range []string{"strconv", "fork/exec", "%!", "goroutine", "context canceled", "0x"} {
		if strings.Contains(f.Message+f.Hint, word) {
			return fmt.Errorf("%q is not for users", word)
		}
	}
	return nil
}

// json PATH[=REGEXP]...: the last standard output is JSON with such values. The
// path is names and indices with dots between; [n] is the length of a list.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &v); err != nil {
		ts.Fatalf("not JSON: %v\n%s", err, ts.ReadFile("stdout"))
	}
	for _, arg := range args {
		path, want, valued := strings.Cut(arg, "=")
		got, found := lookUp(v, path)
		match := found && (!valued || regexp.MustCompile("^(?:"+want+")$").MatchString(got))
		if match == neg {
			ts.Fatalf("json %s: got %q (there: %v) in\n%s", arg, got, found, ts.ReadFile("stdout"))
		}
	}
}

func lookUp(v any, path string) (string, bool) {
	for _, key := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[key]
			if !ok {
				return "", false
			}
			v = next
		case []any:
			if key == "n" {
				return strconv.Itoa(len(at)), true
			}
			n, err := strconv.Atoi(key)
			if err != nil || n >= len(at) {
				return "", false
			}
			v = at[n]
		default:
			return "", false
		}
	}
	if s, ok := v.(string); ok {
		return s, true
	}
	text, err := json.Marshal(v)
	return string(text), err == nil
}

// until REGEXP ARGS...: repeats crucible ARGS until its output matches. For what
// has no event to wait for: a program that is to become ready.
func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(patience / 2); ; time.Sleep(20 * time.Millisecond) {
		path, _, _ := strings.Cut(ts.Getenv("PATH"), ":")
		cmd := exec.Command(filepath.Join(path, "crucible"), args[1:]...)
		cmd.Env = append(os.Environ(), "CRUCIBLE_ROOT="+ts.Getenv("CRUCIBLE_ROOT"))
		out, err := cmd.Output()
		if err == nil && want.Match(out) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("crucible %s: %v, never %q but\n%s", strings.Join(args[1:], " "), err, args[0], out)
		}
	}
}
