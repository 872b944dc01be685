// Package testenv is what the project's own tests stand on: it tells a test
// whether it may touch the kernel, gives it names, a state root and the program
// under test, and says whether it left anything behind.
//
// Without root, or where the kernel lacks something, a test skips and says
// why. With CRUCIBLE_TEST_NOSKIP=1 in the environment, as `make test` sets it,
// every skip is a failure, so that a skip cannot hide for long.
//
//	func TestRun(t *testing.T) {
//		testenv.Root(t)
//		root := testenv.StateRoot(t)
//		testenv.LeakCheck(t, root)
//		name := testenv.Name(t)
//		cmd := exec.Command(testenv.Binary(t), "run", "--name", name, "true")
//		...
//	}
//
// A leak is anything that [LeakCheck] finds at the end of a test and did not
// find at its beginning, in these kinds: process, descriptor, cgroup, mount,
// link, address, forwarding entry, nftables, file. Tests that use it wait for
// each other across all packages, up to a minute, so that they do not see each
// other's things. On a machine where other people work at the same time,
// CRUCIBLE_TEST_SHARED=1 limits it to what certainly is the test's own: what
// carries one of its names, lies below its directories, or was started by it;
// then nobody waits.
//
// It is imported by tests only, and imports no package that it serves, except
// container/proc.
package testenv
