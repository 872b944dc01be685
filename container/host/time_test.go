package host

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

// It agrees with what the kernel's version says, where it is the original's:
// 2b5f9dad32ed is in 6.2.
func TestEntersTime(t *testing.T) {
	testenv.Root(t)
	if _, err := os.Stat("/proc/self/ns/time_for_children"); err != nil {
		testenv.Skip(t, "no time namespaces: %v", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	err := EntersTime()
	var refused *TimeError
	if err != nil && !errors.As(err, &refused) {
		t.Fatal(err)
	}
	if newer := major > 6 || major == 6 && minor >= 2; newer != (err == nil) {
		t.Errorf("Linux %d.%d: %v", major, minor, err)
	}
}
