package main

import (
	"strings"
	"testing"
)

// A volume that contains the state root shows the container everything but its
// own root filesystem, which CRIU could not make again inside of itself.
func TestVolumeOfStateRoot(t *testing.T) {
	for _, source := range []string{"the state root", "/"} {
		t.Run(strings.ReplaceAll(source, " ", "_"), func(t *testing.T) {
			s := newStage(t)
			if source != "/" {
				source = s.root
			}
			// A watch is found again by its file's handle, on any mount of it.
			s.do("run", "-d", "--name", s.name, "-v", source+":/v", "--", "python3", "-c", `
import ctypes, time
libc = ctypes.CDLL(None)
open("/tmp/watched", "w").close()
assert libc.inotify_add_watch(libc.inotify_init(), b"/tmp/watched", 2) > 0
print("ready", flush=True); time.sleep(1000)`)
			s.until("it watches", func() bool { return strings.Contains(s.do("logs", s.name), "ready") })
			for line := range strings.Lines(s.do("exec", s.name, "--", "cat", "/proc/self/mountinfo")) {
				if f := strings.Fields(line); strings.HasPrefix(f[4], "/v/") && strings.Contains(f[4], s.name) {
					t.Errorf("it sees its own mounts: %s", line)
				}
			}
			s.do("checkpoint", s.name)
			s.do("restore", s.name)
			s.do("exec", s.name, "--", "ls", "/v")
		})
	}
}
