package confine

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCheck(t *testing.T) {
	score, umask := 1001, uint32(0o1777)
	net := []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}
	ttl := map[string]string{"net.ipv4.ip_default_ttl": "65"}
	for name, tc := range map[string]struct {
		spec specs.Spec
		err  string
	}{
		"empty":              {},
		"capability":         {specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"X"}}}}, `process.capabilities: bounding set: unknown capability "X"`},
		"rlimit":             {specs.Spec{Process: &specs.Process{Rlimits: []specs.POSIXRlimit{{Type: "X"}}}}, `process.rlimits: unknown limit "X"`},
		"oom score":          {specs.Spec{Process: &specs.Process{OOMScoreAdj: &score}}, "process.oomScoreAdj: 1001"},
		"umask":              {specs.Spec{Process: &specs.Process{User: specs.User{Umask: &umask}}}, "process.user.umask: 01777"},
		"own sysctl":         {specs.Spec{Linux: &specs.Linux{Sysctl: ttl, Namespaces: net}}, ""},
		"sysctl of the host": {specs.Spec{Linux: &specs.Linux{Sysctl: ttl}}, "linux.sysctl: sysctl net.ipv4.ip_default_ttl: the container shares its network namespace"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, Check(&tc.spec), tc.err) })
	}
}
