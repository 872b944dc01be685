package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"crucible/checkpoint/preflight"
	"crucible/container"
)

// dryRun is what would stand in a checkpoint's way.
func (s *stage) dryRun() (blocking []preflight.Finding) {
	s.Helper()
	return slices.DeleteFunc(s.findings(), func(f preflight.Finding) bool { return !f.Blocks })
}

// findings are all that a checkpoint would say.
func (s *stage) findings() []preflight.Finding {
	s.Helper()
	out, _ := exec.Command(s.bin, "checkpoint", "--dry-run", "--json", s.name).Output()
	var r struct{ Preflight preflight.Report }
	if err := json.Unmarshal(out, &r); err != nil {
		s.Fatalf("%v in %s", err, out)
	}
	return r.Preflight.Findings
}

// A connection through a volume to a listener of the host's, in another
// network namespace, that the listener has not accepted.
func TestDanglingConnection(t *testing.T) {
	s := newStage(t)
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "served"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.do("run", "-d", "--name", s.name, "-v", dir+":/host", "--", "python3", "-c",
		`import socket, time; s = socket.socket(socket.AF_UNIX); s.connect("/host/served"); print("ready", flush=True); time.sleep(1000)`)
	s.until("it is connected", func() bool { return strings.Contains(s.do("logs", s.name), "ready") })
	found := s.dryRun()
	if len(found) != 1 || found[0].Kind != "unix-dangling" || found[0].Pid == 0 || found[0].FD < 0 || found[0].Path != filepath.Join(dir, "served") {
		t.Errorf("%+v", found)
	}
	if _, err := s.command("checkpoint", s.name); err == nil || !strings.Contains(err.Error(), "served") {
		t.Errorf("checkpoint: %v", err)
	}
	// Once it is accepted it is still one with the outside.
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	if found := s.dryRun(); len(found) != 1 || found[0].Kind != "unix-external" {
		t.Errorf("once accepted: %+v", found)
	}
}

// Who is in a cgroup below the container's own is not put there again by a
// restore, and it is said who.
func TestNestedCgroup(t *testing.T) {
	s := newStage(t)
	s.do("run", "-d", "--name", s.name, "--", "sh", "-c", "sleep 1000 & sleep 1001 & sleep 1002 & wait")
	box, err := container.Root(s.root).Open(s.name)
	if err != nil {
		t.Fatal(err)
	}
	group, err := box.Group()
	if err != nil {
		t.Fatal(err)
	}
	s.until("all processes are there", func() bool { pids, _ := group.Pids(); return len(pids) == 4 })
	if found := s.findings(); len(found) != 0 {
		t.Errorf("without nested groups: %+v", found)
	}
	pids, err := group.Pids()
	if err != nil {
		t.Fatal(err)
	}
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == box.State.Init.Pid })
	paths := group.Paths()
	controller := slices.Sorted(maps.Keys(paths))[0]
	nested := filepath.Join(paths[controller], "some", "nested")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids[:2] {
		if err := os.WriteFile(filepath.Join(nested, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	found := s.findings()
	if len(found) != 1 {
		t.Fatalf("%+v", found)
	}
	f := found[0]
	if f.Kind != "cgroup-nested" || f.Blocks || !f.Lost || f.Pid != pids[0] || !strings.Contains(f.What, fmt.Sprintf("pids %d %d are in the nested cgroup some/nested", pids[0], pids[1])) {
		t.Errorf("%+v", f)
	}
	s.do("checkpoint", s.name)
	s.do("restore", s.name)
}
