package network

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"crucible/container/testenv"
)

// The tests play "the host" in a network namespace of their own, so that they
// may make bridges, turn on forwarding and publish ports without touching the
// machine's: as root the test binary starts itself again in a fresh one.
const playHost = "CRUCIBLE_TEST_NETWORK_HOST"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		if err := runHelper(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	fuzzWorker := slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzzworker") })
	if os.Geteuid() != 0 || fuzzWorker {
		os.Exit(m.Run())
	}
	// The variable holds the name of the namespace that was left. Any other value
	// does not count, and nobody starts itself twice.
	own, err := os.Readlink("/proc/self/ns/net")
	if left := os.Getenv(playHost); err == nil && strings.HasPrefix(left, "net:[") {
		if err = fmt.Errorf("still in %s", left); left != own {
			err = Do(nil, setUpFresh)
		}
		if err == nil {
			os.Exit(m.Run())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "play host:", err)
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), playHost+"="+own)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := cmd.Run(); err != nil {
		if e, ok := err.(*exec.ExitError); ok {
			os.Exit(e.ExitCode())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// newHost gives a test a state root of its own, and at its end expects that
// nothing of it is left in the host's namespace.
func newHost(t testing.TB) Options {
	t.Helper()
	testenv.Root(t)
	root := t.TempDir()
	t.Cleanup(func() {
		if _, err := Sweep(context.Background(), root); err != nil {
			t.Errorf("sweep: %v", err)
		}
		h := hostSocket(t)
		links, err := h.allLinks()
		if err != nil {
			t.Error(err)
		}
		for _, l := range links {
			if l.Alias != "" && strings.HasSuffix(l.Alias, root) {
				t.Errorf("left over: link %s (%s)", l.Name, l.Alias)
			}
		}
	})
	return Options{Root: root, Config: Config{Mode: ModeBridge}}
}

func onHost(t testing.TB, f func() error) {
	t.Helper()
	if err := Do(nil, f); err != nil {
		t.Fatal(err)
	}
}

func hostSocket(t testing.TB) *socket {
	t.Helper()
	h, err := dialIn(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func newNS(t testing.TB) *os.File {
	t.Helper()
	testenv.Root(t)
	ns, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// attach attaches a fresh namespace, and detaches it when the test ends.
func attach(t testing.TB, o Options) (*Attachment, *os.File) {
	t.Helper()
	if o.NS == nil {
		o.NS = newNS(t)
	}
	a, err := Attach(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return a, o.NS
}
