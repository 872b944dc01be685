package main

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"crucible/container"
)

// echo answers each line, and goes on whatever its calls say; it has the memory
// that makes its checkpoint last.
const echo = `
import select, socket
x = bytearray(b"1" * (192 << 20))
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("", PORT)); l.listen()
print("ready", flush=True)
c, _ = l.accept()
while True:
    select.select([c], [], [])
    try:
        data = c.recv(100)
    except OSError as e:
        print(e, flush=True)
        continue
    if not data: break
    c.sendall(data)
`

// A CRIU that is killed in the middle of a dump leaves the program its
// connections.
func TestKilledCRIULeavesConnections(t *testing.T) {
	for _, network := range []string{"bridge", "host"} {
		for _, command := range []bool{false, true} {
			name := "CRIU"
			if command {
				name = "command and CRIU"
			}
			t.Run(network+"/"+name, func(t *testing.T) { testKilledCRIU(t, network, command) })
		}
	}
}

func testKilledCRIU(t *testing.T, network string, command bool) {
	s := newStage(t)
	port := freePort(t)
	s.do("run", "-d", "--name", s.name, "--net", network, "--", "python3", "-c", strings.ReplaceAll(echo, "PORT", port))
	s.until("the server is ready", func() bool { return strings.Contains(s.do("logs", s.name), "ready") })
	box, err := container.Root(s.root).Open(s.name)
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1"
	if a := box.State.Attachment; a != nil {
		address = a.Address.Addr().String()
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(address, port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.answers(conn, "before")

	tables := criuTables(t)
	c := s.start("checkpoint", s.name)
	criuPid := s.catchDump(c)
	if command {
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Kill(criuPid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := c.end(s); !command && code != 1 {
		t.Errorf("exit code %d: %s", code, c.stderr.String())
	}
	s.until("the container runs", func() bool { return s.status(s.name) == container.Running })
	s.answers(conn, "after")
	if now := criuTables(t); now != tables {
		t.Errorf("tables of CRIU's were left behind: %q, there were %q", now, tables)
	}
	s.do("checkpoint", "-R", s.name)
	s.answers(conn, "after another checkpoint")
}

// catchDump stops CRIU where it has saved a connection and not let it go, and
// returns its pid.
func (s *stage) catchDump(c *running) (pid int) {
	s.Helper()
	s.until("CRIU is there", func() bool { pid = below(c.Process.Pid, "swrk"); return pid != 0 })
	saved := filepath.Join(s.root, "images", ".drafts", "*", "image", "criu", "tcp-stream-*.img")
	s.until("CRIU has saved a connection", func() bool { found, _ := filepath.Glob(saved); return len(found) > 0 })
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		s.Fatal(err)
	}
	return pid
}

// answers sees a line come back.
func (s *stage) answers(conn net.Conn, line string) {
	s.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		s.Fatal(err)
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		s.Fatalf("%s: %v", line, err)
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || got != line+"\n" {
		s.Fatalf("%s: got %q, %v; the server says: %s", line, got, err, s.do("logs", s.name))
	}
}

// criuTables are the nftables in which CRIU locks connections.
func criuTables(t *testing.T) string {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, table := range tables {
		if strings.HasPrefix(table.Name, "CRIU-") {
			all = append(all, table.Name)
		}
	}
	return strings.Join(all, ", ")
}
