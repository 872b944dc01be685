package testenv

import (
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// Prefix is the environment variable with which names begin that tests give to
// what they make on the machine; without it they begin with "t".
const Prefix = "CRUCIBLE_TEST_PREFIX"

// Name makes up the name of a container: unique among all that test on this
// machine now, and at most 15 bytes without a long prefix, so that it also
// serves as the name of a network link.
func Name(t testing.TB) string {
	t.Helper()
	return stem() + strconv.FormatInt(names.Add(1), 10)
}

// names counts those given out by this process.
var names atomic.Int64

// stem is what all names of this process begin with.
func stem() string {
	prefix := os.Getenv(Prefix)
	if prefix == "" {
		prefix = "t"
	}
	return prefix + strconv.FormatInt(int64(os.Getpid()), 36) + "-"
}
