package testenv

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

// NoSkip is the environment variable that turns skips into failures.
const NoSkip = "CRUCIBLE_TEST_NOSKIP"

// LacksFile is the environment variable that names a file to which Lacks adds
// a line: go test shows nothing of what a package's passing tests print.
const LacksFile = "CRUCIBLE_TEST_LACKS"

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// Skip skips the test for a reason, or fails it where NoSkip says that this
// machine must be able to run every test.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(NoSkip) == "1" {
		t.Fatalf("skip is a failure ("+NoSkip+"=1): "+format, args...)
	}
	t.Skipf(format, args...)
}

// Lacks is for a test that has found this kernel or processor to lack a
// feature: it skips the test also where no other skip may be, and says so on
// standard error and in the file that LacksFile names. The probe asks again, in
// another way than the code under test does. If the feature is there, the test
// fails; if the probe could not tell, that is a skip like any other.
func Lacks(t testing.TB, feature string, probe func() (has bool, err error)) {
	t.Helper()
	has, err := probe()
	switch {
	case err != nil:
		Skip(t, "cannot tell whether this machine has %s: %v", feature, err)
	case has:
		t.Fatalf("this machine has %s, and the test has found none", feature)
	}
	line := fmt.Sprintf("%s: skipped, since this machine lacks %s\n", t.Name(), feature)
	fmt.Fprint(shown, line)
	if err := addLine(os.Getenv(LacksFile), line); err != nil {
		t.Fatal(err)
	}
	t.Skipf("this machine lacks %s", feature)
}

var shown io.Writer = os.Stderr

func addLine(path, line string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}
