package testenv

import (
	"os"
	"testing"
)

// NoSkip is the environment variable that turns skips into failures.
const NoSkip = "CRUCIBLE_TEST_NOSKIP"

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
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
