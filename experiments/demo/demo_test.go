package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"crucible/checkpoint"
	"crucible/container/testenv"
)

// play shows the demonstration with a program, and returns what was printed.
func play(ctx context.Context, t *testing.T, program string) (string, error) {
	t.Helper()
	testenv.Root(t)
	if _, err := exec.LookPath("redis-server"); err != nil {
		testenv.Skip(t, "redis-server is not installed: scripts/setup --tests")
	}
	testenv.LeakCheck(t)
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	err := show(ctx, options{Crucible: program, Clones: 2, Before: 200 * time.Millisecond, After: 200 * time.Millisecond}, newScreen(&out, false))
	left, readErr := os.ReadDir(os.Getenv("TMPDIR"))
	// What could not be cleaned up stays there to be looked at.
	if cleaned := strings.Contains(out.String(), clean); readErr != nil || cleaned != (len(left) == 0) {
		t.Errorf("left in the directory for temporary files: %v, %v", left, readErr)
	}
	t.Logf("%v\n%s", err, out.String())
	return out.String(), err
}

const clean = "ok      no process, cgroup, mount, link, nftables table or state is left"

func TestShow(t *testing.T) {
	out, err := play(t.Context(), t, testenv.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  restore     new namespaces", "went on\n", "that were acknowledged are there\n", "was ", "-2 answers at ", clean} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in the output", want)
		}
	}
	if strings.Contains(out, "FAILED") || strings.Contains(out, "\x1b") {
		t.Error("the output should be plain, and content")
	}
}

// What does not hold is said, and the exit status tells.
func TestShowFailure(t *testing.T) {
	for _, c := range []struct {
		name, edit, want string
	}{
		{"clone missing", `case "$*" in *"--count 2"*) set -- $(echo "$@" | sed "s/--count 2/--count 1/") ;; esac`, "FAILED  2 clones: there are 1"},
		{"restore refused", `case "$*" in *" restore --json "*) echo no >&2; exit 1 ;; esac`, ""},
		{"container not stopped", `case "$*" in *" checkpoint "*) set -- "$@" -R ;; esac`, ""},
		{"delete refused", `case "$*" in *" delete "*) "` + "$REAL" + `" "$@"; echo no >&2; exit 1 ;; esac`, "FAILED  no process, cgroup"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			wrapper := filepath.Join(t.TempDir(), "crucible")
			text := fmt.Sprintf("#!/bin/sh\nREAL=%q\n%s\nexec \"$REAL\" \"$@\"\n", testenv.Binary(t), c.edit)
			if err := os.WriteFile(wrapper, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			out, err := play(t.Context(), t, wrapper)
			if exitStatus(err) != 1 {
				t.Errorf("error is %v", err)
			}
			if !strings.Contains(out, c.want) {
				t.Errorf("%q is not in the output", c.want)
			}
			if c.name != "delete refused" && !strings.Contains(out, clean) {
				t.Error("it did not clean up")
			}
		})
	}
}

func TestShowInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	out, err := play(ctx, t, testenv.Binary(t))
	if exitStatus(err) != 130 || !strings.Contains(out, clean) {
		t.Errorf("error is %v", err)
	}
}

func TestReadAnswer(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"+OK\r\n", "OK", ""},
		{":17\r\n", "17", ""},
		{"$5\r\na\r\nbc\r\n", "a\r\nbc", ""},
		{"$0\r\n\r\n", "", ""},
		{"$-1\r\n", "", ""},
		{"-ERR no\r\n", "", "redis says: ERR no"},
		{"$3\r\nabcd\r\n", "", "without its end"},
		{"$3\r\nab", "", "EOF"},
		{"$99999999999\r\n", "", "not a length"},
		{"$-2\r\n", "", "not a length"},
		{"*1\r\n", "", "unexpected"},
		{"\r\n", "", "not a line"},
		{"OK\n", "", "not a line"},
		{"", "", "EOF"},
	} {
		got, err := readAnswer(bufio.NewReader(strings.NewReader(c.in)))
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %q, %v; want %q, %q", c.in, got, err, c.want, c.err)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add("$5\r\na\r\nbc\r\n")
	f.Add("+OK\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := readAnswer(bufio.NewReader(strings.NewReader(in)))
		if err == nil && len(got) > len(in) {
			t.Errorf("%q from %q", got, in)
		}
	})
}

// fakeRedis answers each command with what the function says.
func fakeRedis(t *testing.T, answer func(command []string) string) *redis {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		r := bufio.NewReader(theirs)
		for {
			var n int
			if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
				return
			}
			var command []string
			for range n {
				var size int
				if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
					return
				}
				word, err := readBulk(r, fmt.Sprint(size))
				if err != nil {
					return
				}
				command = append(command, word)
			}
			if _, err := fmt.Fprint(theirs, answer(command)); err != nil {
				return
			}
		}
	}()
	return &redis{ours, bufio.NewReader(ours)}
}

func TestVerify(t *testing.T) {
	const count = 2345
	lost := ""
	c := fakeRedis(t, func(command []string) string {
		n, ok := strings.CutPrefix(command[1], "key:")
		if command[0] != "GET" || !ok || command[1] == lost {
			return "$-1\r\n"
		}
		text := "value of " + n
		return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
	})
	if err := verify(c, count); err != nil {
		t.Error(err)
	}
	lost = key(2001)
	if err := verify(c, count); err == nil || !strings.Contains(err.Error(), "key 2001") {
		t.Errorf("error is %v", err)
	}
}

// The clock is the bubble's: no gap is longer than it is told to be.
func TestWriter(t *testing.T) { synctest.Test(t, testWriter) }

func testWriter(t *testing.T) {
	var written []string
	c := fakeRedis(t, func(command []string) string {
		written = append(written, strings.Join(command, " "))
		if len(written) == 3 {
			time.Sleep(59 * time.Millisecond)
		}
		time.Sleep(time.Millisecond)
		return "+OK\r\n"
	})
	w := startWriter(c)
	for w.acked.Load() < 5 {
		time.Sleep(time.Millisecond)
	}
	n, err := w.stop()
	if err != nil || n < 5 {
		t.Fatalf("%d, %v", n, err)
	}
	if d := cmp.Diff([]string{"SET key:1 value of 1", "SET key:2 value of 2"}, written[:2]); d != "" {
		t.Error(d)
	}
	if w.at != 3 || w.longest != 60*time.Millisecond {
		t.Errorf("longest gap %v before key %d", w.longest, w.at)
	}
	c.Close()
	w = startWriter(c)
	<-w.ended
	if w.err == nil || !errors.Is(w.err, net.ErrClosed) && !strings.Contains(w.err.Error(), "closed") {
		t.Errorf("on a closed connection: %v", w.err)
	}
}

func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, false)
	s.title("Title")
	s.now("not seen")
	s.step("run", "something", 12345*time.Microsecond)
	s.verdict(nil, "this")
	s.verdict(errors.New("why"), "that")
	ms := time.Millisecond
	s.phases("checkpoint", []checkpoint.Phase{
		{Name: "digests", Start: 80 * ms, Duration: 20 * ms},
		{Name: "freeze", Start: 10 * ms, Duration: 1 * ms, Frozen: true},
		{Name: "preflight", Duration: 50 * ms},
	})
	s.line(thousands(0) + " " + thousands(999) + " " + thousands(1000) + " " + thousands(1234567))
	want := `Title

  run         something                                                 12.3 ms
  ok      this
  FAILED  that: why

  checkpoint   start ms         ms
  preflight         0.0       50.0  #################
  freeze           10.0        1.0     #                                frozen
  digests          80.0       20.0                             #######
0 999 1,000 1,234,567
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	out.Reset()
	s = newScreen(&out, true)
	s.now("moving")
	s.line("done")
	if want := "\r\x1b[K\x1b[2m  moving ...\x1b[0m\r\x1b[Kdone\n"; out.String() != want {
		t.Errorf("on a terminal: %q, want %q", out.String(), want)
	}
}
