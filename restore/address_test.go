package restore_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"crucible/container/testenv"
	"crucible/restore"
)

// What a clone at another address cannot have is said, and nothing else is.
func TestCloneLeavesSocketsBehind(t *testing.T) {
	testenv.Root(t)
	root := testenv.StateRoot(t)
	testenv.LeakCheck(t)
	bin := testenv.Binary(t)
	for _, x := range []struct {
		name, program string
		notes         []string // words of each
		shown         string   // of image show
		fails         string
	}{
		{"no sockets", ``, nil, "", ""},
		{"listens everywhere", `a = socket.socket(); a.bind(("", 80)); a.listen(); b = socket.socket(type=socket.SOCK_DGRAM); b.bind(("", 53))`, nil, "", ""},
		{"listens on its address", `a = socket.socket(); a.bind((me, 80)); a.listen(); b = socket.socket(type=socket.SOCK_DGRAM); b.bind((me, 53))`,
			[]string{"2 sockets stay bound to "}, "", ""},
		{"connected", `a = socket.socket(); a.bind(("", 80)); a.listen(); b = socket.create_connection((me, 80)); c, _ = a.accept()`,
			[]string{"TCP connections are closed"}, "established TCP", ""},
		{"connected UDP", `a = socket.socket(type=socket.SOCK_DGRAM); a.connect((gateway, 9))`, nil, "", "a UDP socket of it is connected from "},
	} {
		t.Run(strings.ReplaceAll(x.name, " ", "_"), func(t *testing.T) {
			e := &env{t: t, bin: bin, root: root}
			b := e.run([]string{"--net", "bridge"}, python(t), "-c", `import socket, time
with socket.socket(type=socket.SOCK_DGRAM) as s:
    s.connect(("192.0.2.1", 9)); me = s.getsockname()[0]
gateway = me.rsplit(".", 1)[0] + ".1"
`+x.program+`
print("ready", flush=True)
time.sleep(1000)`)
			eventually(t, "the program's start", func() error {
				if b.logs()[0] != "ready" {
					return errors.New("not ready")
				}
				return nil
			})
			e.do("checkpoint", "-R", b.name)
			if out := e.do("image", "show", b.name); strings.Contains(out, "established TCP") != (x.shown != "") {
				t.Errorf("image show: %s", out)
			}
			clone := &box{env: e, name: testenv.Name(t)}
			clone.willDelete()
			out, err := e.command(nil, "restore", "--json", "--name", clone.name, b.name)
			if x.fails != "" {
				var f *failure
				if !errors.As(err, &f) || !strings.Contains(f.Message, x.fails) || !strings.Contains(f.Message, "--ip "+b.address) {
					t.Fatalf("%v", err)
				}
				// Where it was it can go on.
				e.do("delete", "-f", b.name)
				e.do("restore", "--name", clone.name, "--ip", b.address, b.name)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var r restore.Result
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err)
			}
			if len(r.Notes) != len(x.notes) {
				t.Fatalf("notes %q, want %q", r.Notes, x.notes)
			}
			for i, want := range x.notes {
				if !strings.Contains(r.Notes[i], want) {
					t.Errorf("note %q, want %q", r.Notes[i], want)
				}
			}
		})
	}
}
