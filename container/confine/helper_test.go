package confine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// A test that changes itself for good does so in a child: the test binary
// again, with the name of one of these and its input.
const helperEnv = "CRUCIBLE_CONFINE_HELPER"

func helpers() map[string]func(input string) error {
	return map[string]func(string) error{
		"become":  helpBecome,
		"rlimits": helpRlimits,
		"sysctls": helpSysctls,
		"oom":     helpOOM,
		"close":   helpClose,
		"cwd":     helpCwd,
		"masks":   helpMasks,
		"victim":  helpVictim,
		"hostile": helpHostile,
	}
}

func TestMain(m *testing.M) {
	name := os.Getenv(helperEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	if err := helpers()[name](os.Getenv("INPUT")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// help is a child that runs a helper, with namespaces of its own.
func help(t *testing.T, name string, input any, namespaces uintptr) *exec.Cmd {
	t.Helper()
	data, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+name, "INPUT="+string(data))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	if namespaces&syscall.CLONE_NEWUSER != 0 {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
		cmd.SysProcAttr.Credential = &syscall.Credential{}
	}
	return cmd
}

// run gives what a helper wrote, and what it failed with.
func run(cmd *exec.Cmd) (stdout string, err error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.String(), err
}

// wantError checks for a text that an error has to contain.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Fatal(err)
	case text != "" && err == nil:
		t.Fatalf("no error, want %q", text)
	case text != "" && !strings.Contains(err.Error(), text):
		t.Fatalf("error %q, want %q in it", err, text)
	}
}
