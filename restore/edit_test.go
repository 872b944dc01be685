package restore_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crucible/container/testenv"
)

// talker listens at the container's address, has a UDP socket connected from
// there, and greets who comes; what it says first is its address.
const talker = `
import os, socket, subprocess
addr = subprocess.run(["ip", "-4", "-br", "a", "show", "eth0"], stdout=subprocess.PIPE).stdout.split()[2].split(b"/")[0].decode()
s = socket.socket()
s.bind((addr, 8080))
s.listen(5)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind((addr, 0))
u.connect(("192.0.2.1", 9))
print("ready", flush=True)
kept = []
while True:
    c, _ = s.accept()
    kept.append(c)
    c.sendall(("%s %s\n" % (u.getsockname()[0], os.environ["MODE"])).encode())
`

// greeting is what a talker says to who connects, over a connection that stays.
func greeting(address string) (string, net.Conn, error) {
	c, err := net.DialTimeout("tcp", address+":8080", patience)
	if err != nil {
		return "", nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 64)
	n, err := c.Read(b)
	return strings.TrimSpace(string(b[:n])), c, err
}

// An edited image is restored with what is new in it, under the container's own
// name while the frames for its old address are parked.
func TestEditedImage(t *testing.T) {
	testenv.Root(t)
	e := &env{t: t, bin: testenv.Binary(t), root: testenv.StateRoot(t)}
	program(t, "ip")
	one, two := t.TempDir(), t.TempDir()
	for _, dir := range []string{one, two} {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(dir), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := e.run(bridge("--hostname", "before", "--env", "MODE=production", "-v", one+":/vol", "--memory", "64m"), python(t), "-c", talker)
	var conn net.Conn
	eventually(t, "greeting", func() (err error) {
		_, conn, err = greeting(b.address)
		return err
	})
	defer conn.Close()
	b.checkpoint()
	parts := strings.Split(b.address, ".")
	address := strings.Join(parts[:3], ".") + ".77"
	change := []string{"image", "edit", b.name, "--hostname", "after", "--address", address, "--env", "MODE=test", "--volume", one + "=" + two, "--memory", "96m"}
	if _, err := e.command(nil, change...); err == nil || !strings.Contains(err.Error(), "cannot go on from another address") {
		t.Errorf("connections: %v", err)
	}
	change = append(change, "--tcp-close")
	e.do(append(change, "--dry-run")...)
	if out := e.do("image", "list", b.name); strings.Contains(out, b.name+"@2") {
		t.Errorf("a dry run has written %s", out)
	}
	e.do(change...)
	e.do("image", "verify", b.name+"@1", b.name+"@2")
	r := b.restore()
	if r.Address != address || r.Image != b.name+"@2" {
		t.Errorf("restored at %s from %s", r.Address, r.Image)
	}
	text, again, err := greeting(address)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	// The program has read its environment when it began: it says what it read.
	if text != address+" production" {
		t.Errorf("says %q", text)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", b.pid))
	if err != nil || !strings.Contains(string(environ), "\x00MODE=test\x00") || !strings.Contains(string(environ), "\x00HOSTNAME=after\x00") {
		t.Errorf("environment is %q, %v", environ, err)
	}
	got := b.exec("sh", "-c", "hostname; echo $MODE $HOSTNAME; cat /vol/file")
	if want := "after\ntest after\n" + two; got != want {
		t.Errorf("in the container: %q, want %q", got, want)
	}
	var stats []struct {
		Memory struct{ Limit int }
	}
	if e.read(&stats, "stats", "--json", b.name); len(stats) != 1 || stats[0].Memory.Limit != 96<<20 {
		t.Errorf("limits are %v", stats)
	}
	// The first image is what it was.
	if out := e.do("image", "show", b.name+"@1"); !strings.Contains(out, "host name before") {
		t.Errorf("%s@1 is another one:\n%s", b.name, out)
	}
}
