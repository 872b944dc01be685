package container_test

import (
	"crypto/sha256"
	"os"
	"strings"
	"testing"

	"crucible/container"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func digest(t *testing.T) [sha256.Size]byte {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// CVE-2019-5736: an image whose program is /proc/self/exe has us execute
// ourselves inside, where root takes hold of the executable, waits until
// nobody runs it any more, and writes to it.
func TestOurExecutableCannotBeOverwritten(t *testing.T) {
	for _, users := range []string{"", "auto"} {
		t.Run("userns="+users, func(t *testing.T) {
			dir := image(t)
			if err := os.Symlink("/proc/self/exe", dir+"/bin/bait"); err != nil {
				t.Fatal(err)
			}
			c := create(t, container.RunOptions{Rootfs: dir, CapAdd: []string{"SYS_PTRACE"}, UserNS: users}, "linger", nil)
			if err := c.Launch(t.Context(), false, true); err != nil {
				t.Fatal(err)
			}
			before := digest(t)
			pid, endVictim := execute(t, c, "/bin/bait", "linger")
			holding, endThief := execute(t, c, program, "steal:"+pid)
			if holding != "holding" {
				t.Fatalf("thief said %q", holding)
			}
			if out, status := endVictim(); status != 0 {
				t.Errorf("victim ended with %d: %s", status, out)
			}
			if out, status := endThief(); status != 0 || !strings.Contains(out, "read-only file system") {
				t.Errorf("thief ended with %d: %s", status, out)
			}
			if digest(t) != before {
				t.Error("our executable has changed")
			}
		})
	}
}

// CVE-2019-5736 with the container's own init, under a monitor that is detached,
// and under one that is the command itself. Of the monitor nothing can be seen.
func TestInitCannotOverwriteOurExecutable(t *testing.T) {
	for name, how := range map[string]func(*testing.T, *container.Container) (string, error){
		"detached": run, "foreground": runForeground,
	} {
		t.Run(name, func(t *testing.T) {
			dir := image(t)
			if err := os.Symlink("/proc/self/exe", dir+"/bin/bait"); err != nil {
				t.Fatal(err)
			}
			before := digest(t)
			c := create(t, container.RunOptions{Rootfs: dir, CapAdd: []string{"ALL"}}, "rob", func(s *specs.Spec) {
				s.Process.Args[0] = "/bin/bait"
			})
			out, err := how(t, c)
			if err != nil || !strings.HasPrefix(out, "processes [1]\n") || !strings.Contains(out, "read-only file system") {
				t.Errorf("%v: %s", err, out)
			}
			if digest(t) != before {
				t.Error("our executable has changed")
			}
		})
	}
}
