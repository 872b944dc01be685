package container_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container"
)

// bundleWith writes a bundle that is good but for a patch of its config.json
// (a JSON merge patch, RFC 7396).
func bundleWith(t *testing.T, patch string) (dir string) {
	t.Helper()
	const good = `{"ociVersion": "1.2.0", "root": {"path": "/"},
		"process": {"args": ["true"], "cwd": "/", "user": {"uid": 5, "gid": 6}},
		"linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "user"}, {"type": "time"}],
			"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
			"gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]}}`
	var base, change any
	for text, into := range map[string]*any{good: &base, patch: &change} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	data, err := json.Marshal(merge(base, change))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func merge(base, change any) any {
	to, isObject := base.(map[string]any)
	from, changes := change.(map[string]any)
	if !isObject || !changes {
		return change
	}
	for key, value := range from {
		to[key] = merge(to[key], value)
	}
	return to
}

// Whatever a bundle asks for is done, or refused by the name of its field.
func TestFields(t *testing.T) {
	for _, test := range []struct{ patch, want string }{
		{`{}`, ""},
		{`{"annotations": {"org.example.key": "whatever"}}`, ""},
		{`{"ociVersion": "1.0.2-dev"}`, ""},
		{`{"ociVersion": "2.0.0"}`, `ociVersion: "2.0.0" is not supported`},
		{`{"ociVersion": "1"}`, `ociVersion: "1" is not supported`},
		{`{"ociVersion": "11.0"}`, `ociVersion: "11.0" is not supported`},

		{`{"foo": 1}`, "foo: there is no such field"},
		{`{"process": {"foo": 1}}`, "process.foo: there is no such field"},
		{`{"process": {"Cwd": "/tmp"}}`, "process.Cwd: there is no such field"},
		{`{"mounts": [{"destination": "/tmp", "type": "tmpfs"}, {"destination": "/x", "type": "tmpfs", "target": "/y"}]}`,
			"mounts[1].target: there is no such field"},
		{`{"linux": {"timeOffsets": {"monotonic": {"sec": 5}}}}`, "linux.timeOffsets.monotonic.sec: there is no such field"},
		{`{"linux": {"resources": {"memory": {"limitt": 1}}}}`, "linux.resources.memory.limitt: there is no such field"},

		{`{"process": {"terminal": true, "consoleSize": {"height": 30, "width": 100}}}`, ""},
		{`{"process": {"consoleSize": {"height": 30, "width": 100}}}`, "process.consoleSize: needs process.terminal"},
		{`{"process": {"terminal": true, "consoleSize": {"height": 70000, "width": 100}}}`, "process.consoleSize: 70000 by 100"},
		{`{"process": {"user": {"username": "root"}}}`, "process.user.username"},
		{`{"linux": {"personality": {"domain": "LINUX", "flags": ["X"]}}}`, "linux.personality: not supported"},

		{`{"linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]}}`, ""},
		{`{"linux": {"devices": [{"path": "dev/fuse", "type": "c", "major": 10, "minor": 229}]}}`, `linux.devices[0].path: "dev/fuse"`},
		{`{"linux": {"devices": [{"path": "/dev/..", "type": "c", "major": 10, "minor": 229}]}}`, `linux.devices[0].path: "/dev/.."`},
		{`{"linux": {"devices": [{"path": "/dev/x", "type": "p"}, {"path": "/dev/fuse", "type": "z"}]}}`, `linux.devices[1].type: "z"`},
		{`{"linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": -1}]}}`, `linux.devices[0].major: there is no device -1:0`},
		{`{"linux": {"maskedPaths": ["/proc/kcore", "proc/keys"]}}`, `linux.maskedPaths[1]: "proc/keys"`},
		{`{"linux": {"readonlyPaths": [""]}}`, `linux.readonlyPaths[0]: ""`},

		{`{"linux": {"timeOffsets": {"boottime": {"secs": 5, "nanosecs": 999999999}}}}`, ""},
		{`{"linux": {"timeOffsets": {"realtime": {"secs": 5}}}}`, "linux.timeOffsets.realtime: there is no such clock"},
		{`{"linux": {"timeOffsets": {"boottime": {"nanosecs": 1000000000}}}}`, "linux.timeOffsets.boottime.nanosecs: 1000000000"},

		{`{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}`, ""},
		{`{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOSUCH"}}}`, "linux.seccomp: defaultAction: unknown action"},
		{`{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "X"}]}}}`,
			"linux.seccomp: syscalls[0] [read]: action: unknown action"},
		{`{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "archMap": []}}}`, "linux.seccomp.archMap: there is no such field"},

		{`{"process": {"user": {"uid": 10}}}`, "process.user.uid: 10 is in no range"},
		{`{"process": {"user": {"gid": 10}}}`, "process.user.gid: 10 is in no range"},
		{`{"process": {"user": {"additionalGids": [9, 11]}}}`, "process.user.additionalGids[1]: 11 is in no range"},
		{`{"linux": {"uidMappings": [{"containerID": 1, "hostID": 1000, "size": 10}]}}`, "linux.uidMappings: no range has 0"},
		{`{"linux": {"gidMappings": [{"containerID": 0, "hostID": 1000, "size": 0}]}}`, "linux.gidMappings[0].size: 0 ids"},
		{`{"linux": {"gidMappings": [{"containerID": 0, "hostID": 4294967295, "size": 2}]}}`, "linux.gidMappings[0].size: 2 ids"},
		{`{"linux": {"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 9, "hostID": 3000, "size": 10}]}}`,
			"linux.uidMappings[1]: overlaps with linux.uidMappings[0]"},
		{`{"linux": {"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 1009, "size": 10}]}}`,
			"linux.uidMappings[1]: overlaps with linux.uidMappings[0]"},
		{`{"linux": {"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 1010, "size": 10}]}}`, ""},

		{`{"linux": {"resources": {"pids": {"limit": 5}}}}`, ""},
		{`{"linux": {"resources": {"memory": {"limit": 8388608, "swap": 4194304}}}}`, "linux.resources.memory.swap: 4194304 is less"},
		{`{"linux": {"resources": {"unified": {"nosuch.max": "5"}}}}`, "linux.resources.unified.nosuch.max: not supported"},
		{`{"linux": {"resources": {"devices": [{"allow": true, "access": "x"}]}}}`, "linux.resources.devices[0]: access"},
	} {
		_, err := container.LoadBundle(bundleWith(t, test.patch))
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.patch, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), "config.json: "+test.want)):
			t.Errorf("%s: error %v, want %s", test.patch, err, test.want)
		}
	}
}
