package main

import (
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crucible/checkpoint/preflight"
)

// dryRun is what a checkpoint would say.
func (s *stage) dryRun() (blocking []preflight.Finding) {
	s.Helper()
	out, _ := exec.Command(s.bin, "checkpoint", "--dry-run", "--json", s.name).Output()
	var r struct{ Preflight preflight.Report }
	if err := json.Unmarshal(out, &r); err != nil {
		s.Fatalf("%v in %s", err, out)
	}
	for _, f := range r.Preflight.Findings {
		if f.Blocks {
			blocking = append(blocking, f)
		}
	}
	return blocking
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
