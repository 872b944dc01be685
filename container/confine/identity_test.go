package confine

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"crucible/container/testenv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestCapabilitiesOfBundle(t *testing.T) {
	chown := []string{"CAP_CHOWN"}
	for name, tc := range map[string]struct {
		spec *specs.LinuxCapabilities
		err  string
	}{
		"none":                  {spec: nil},
		"unknown":               {spec: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_SYS_PONY"}}, err: `bounding set: unknown capability "CAP_SYS_PONY"`},
		"short name":            {spec: &specs.LinuxCapabilities{Ambient: []string{"CHOWN"}}, err: `ambient set: unknown capability "CHOWN"`},
		"effective only":        {spec: &specs.LinuxCapabilities{Effective: chown}, err: "CAP_CHOWN must be permitted too"},
		"ambient not inherited": {spec: &specs.LinuxCapabilities{Permitted: chown, Ambient: chown}, err: "CAP_CHOWN must be permitted and inheritable too"},
		"all sets":              {spec: &specs.LinuxCapabilities{Bounding: chown, Permitted: chown, Effective: chown, Inheritable: chown, Ambient: chown}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseCapabilities(tc.spec)
			wantError(t, err, tc.err)
		})
	}
}

func TestUnavailableCapability(t *testing.T) {
	for name, tc := range map[string]struct {
		have, want capabilities
		err        string
	}{
		"same":     {have: capabilities{bounding: 6, permitted: 6}, want: capabilities{bounding: 6, permitted: 2, effective: 2}},
		"bounding": {have: capabilities{bounding: 1 | 1<<1}, want: capabilities{bounding: 1<<24 | 1<<1}, err: "bounding set: CAP_SYS_RESOURCE not available on this host"},
		// After setuid-less sudo and the like the two sets differ.
		"permitted": {have: capabilities{bounding: 3}, want: capabilities{permitted: 2}, err: "CAP_DAC_OVERRIDE not available on this host"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, tc.want.availableIn(tc.have), tc.err) })
	}
}

func TestDefaultCapabilities(t *testing.T) {
	testenv.Root(t)
	names := DefaultCapabilities()
	if len(names) == 0 {
		t.Fatal("none at all for root")
	}
	want, err := parseCapabilities(&specs.LinuxCapabilities{Bounding: names, Permitted: names, Effective: names})
	if err != nil {
		t.Fatal(err)
	}
	have, err := currentCapabilities()
	if err != nil {
		t.Fatal(err)
	}
	if err := want.availableIn(have); err != nil {
		t.Error(err)
	}
}

// become takes an identity on and executes cat, which shows what came of it.
func helpBecome(input string) error {
	var id Identity
	if err := json.Unmarshal([]byte(input), &id); err != nil {
		return err
	}
	if err := id.Become(); err != nil {
		return err
	}
	return id.Exec("/bin/cat", []string{"cat", "/proc/self/status", "/proc/self/limits"}, nil)
}

func TestBecome(t *testing.T) {
	testenv.Root(t)
	bind := []string{"CAP_NET_BIND_SERVICE"}
	few := []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"}
	umask := uint32(0o027)
	allowAll := &Filter{Program: instructions(unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})}
	for name, tc := range map[string]struct {
		id         Identity
		namespaces uintptr
		want       string // lines of /proc/self/status, blanks instead of tabs
		err        string
	}{
		"root without capabilities": {
			id: Identity{},
			want: `Uid: 0 0 0 0|Gid: 0 0 0 0|Groups: |CapInh: 0000000000000000|CapPrm: 0000000000000000|
				CapEff: 0000000000000000|CapBnd: 0000000000000000|CapAmb: 0000000000000000|NoNewPrivs: 0|Seccomp: 0`,
		},
		"root with a few": {
			id:   Identity{Capabilities: &specs.LinuxCapabilities{Bounding: few, Permitted: few, Effective: few}},
			want: `CapPrm: 0000000000040401|CapEff: 0000000000040401|CapBnd: 0000000000040401|CapAmb: 0000000000000000`,
		},
		"user": {
			id: Identity{User: specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 70000}, Umask: &umask},
				Capabilities: &specs.LinuxCapabilities{Bounding: few, Permitted: few, Effective: few}},
			want: `Umask: 0027|Uid: 1000 1000 1000 1000|Gid: 1001 1001 1001 1001|Groups: 5 70000 |
				CapPrm: 0000000000000000|CapEff: 0000000000000000|CapBnd: 0000000000040401`,
		},
		"user with ambient capability": {
			id: Identity{User: specs.User{UID: 1000, GID: 1000}, NoNewPrivileges: true,
				Capabilities: &specs.LinuxCapabilities{Bounding: few, Permitted: bind, Effective: bind, Inheritable: bind, Ambient: bind}},
			want: `CapInh: 0000000000000400|CapPrm: 0000000000000400|CapEff: 0000000000000400|
				CapBnd: 0000000000040401|CapAmb: 0000000000000400|NoNewPrivs: 1`,
		},
		"filter with no_new_privs": {
			id:   Identity{User: specs.User{UID: 7, GID: 7}, NoNewPrivileges: true, Filter: allowAll},
			want: `Uid: 7 7 7 7|NoNewPrivs: 1|Seccomp: 2|CapPrm: 0000000000000000|CapBnd: 0000000000000000`,
		},
		// CAP_SYS_ADMIN is kept for the filter, and gone after it.
		"filter without no_new_privs": {
			id: Identity{User: specs.User{UID: 7, GID: 7}, Filter: allowAll,
				Capabilities: &specs.LinuxCapabilities{Bounding: few, Permitted: bind, Effective: bind, Inheritable: bind, Ambient: bind}},
			want: `Uid: 7 7 7 7|NoNewPrivs: 0|Seccomp: 2|CapInh: 0000000000000400|CapPrm: 0000000000000400|
				CapEff: 0000000000000400|CapBnd: 0000000000040401|CapAmb: 0000000000000400`,
		},
		"root with filter without no_new_privs": {
			id:   Identity{Filter: allowAll, Capabilities: &specs.LinuxCapabilities{Bounding: few, Permitted: few, Effective: few}},
			want: `NoNewPrivs: 0|Seccomp: 2|CapPrm: 0000000000040401|CapEff: 0000000000040401|CapBnd: 0000000000040401`,
		},
		"in a user namespace": {
			id: Identity{User: specs.User{UID: 33, GID: 33, AdditionalGids: []uint32{34}}, Filter: allowAll,
				Capabilities: &specs.LinuxCapabilities{Bounding: few, Permitted: bind, Effective: bind, Inheritable: bind, Ambient: bind}},
			namespaces: syscall.CLONE_NEWUSER,
			want:       `Uid: 33 33 33 33|Groups: 34 |Seccomp: 2|CapEff: 0000000000000400|CapBnd: 0000000000040401`,
		},
		"unmapped user": {
			id:         Identity{User: specs.User{UID: 70000}},
			namespaces: syscall.CLONE_NEWUSER,
			err:        "set user id 70000: invalid argument (the container's user namespace does not map this id)",
		},
		"unknown capability": {
			id:  Identity{Capabilities: &specs.LinuxCapabilities{Permitted: []string{"CAP_X"}}},
			err: `permitted set: unknown capability "CAP_X"`,
		},
		"broken filter": {
			id:  Identity{Filter: &Filter{Program: []byte("abc")}},
			err: "not a program of 1 to 4096 instructions",
		},
		"refused filter": {
			id:  Identity{Filter: &Filter{Program: instructions(unix.SockFilter{Code: unix.BPF_LD})}},
			err: "load filter of 1 instructions: invalid argument",
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(help(t, "become", tc.id, tc.namespaces))
			wantError(t, err, tc.err)
			if err != nil {
				return
			}
			shown := make(map[string]bool)
			for _, line := range strings.Split(out, "\n") {
				shown[strings.Join(strings.Fields(line), " ")] = true
			}
			for _, line := range strings.Split(tc.want, "|") {
				if line = strings.TrimSpace(line); !shown[line] {
					t.Errorf("no line %q in\n%s", line, out)
				}
			}
		})
	}
}

// Go raises the soft limit of open files at its own start. The program must
// get what it would have got from any other parent.
func TestExecKeepsFileLimit(t *testing.T) {
	testenv.Root(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if old.Max < 1000 {
		testenv.Skip(t, "hard limit of open files is %d", old.Max)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := help(t, "become", Identity{}, 0)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "ulimit -S -n 789; exec '" + self + "'"}
	out, err := run(cmd)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(out, "\n") {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max open files") && f[3] != "789" {
			t.Errorf("soft limit %s, want 789", f[3])
		}
	}
	if !strings.Contains(out, "Max open files") {
		t.Error("no limits shown")
	}
}
