package testenv

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
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
	names.Lock()
	defer names.Unlock()
	names.count++
	name := stem() + strconv.Itoa(names.count)
	names.givers[name] = t.Name()
	return name
}

// names are those given out by this process, and to which tests.
var names = struct {
	sync.Mutex
	count  int
	givers map[string]string
}{givers: map[string]string{}}

// nameGiver is the test that made up a name in the text, or "".
func nameGiver(text string) string {
	// A number that goes on is another's.
	_, rest, found := strings.Cut(text, stem())
	for found {
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		names.Lock()
		test := names.givers[stem()+digits]
		names.Unlock()
		if test != "" {
			return test
		}
		_, rest, found = strings.Cut(rest, stem())
	}
	return ""
}

// stem is what all names of this process begin with. A process number would
// not do: those of two pid namespaces are alike, and cgroups are everybody's.
func stem() string {
	prefix := os.Getenv(Prefix)
	if prefix == "" {
		prefix = "t"
	}
	return prefix + random + "-"
}

var random = fmt.Sprintf("%06s", strconv.FormatUint(rand.Uint64N(36*36*36*36*36*36), 36))
