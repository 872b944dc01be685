// Package testenv is what the project's own tests stand on: it tells a test
// whether it may touch the kernel, gives it names, a state root and the program
// under test, and says whether it left anything behind.
//
// Without root, or where something is not installed, a test skips and says why
// ([Skip]). With CRUCIBLE_TEST_NOSKIP=1 in the environment, as `make test` sets
// it, every skip is a failure, so that a skip cannot hide for long. Only what a
// probe finds this kernel or processor to lack is skipped there too, and shown
// ([Lacks]).
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
// A leak is anything of the test's own that [LeakCheck] finds at its end and
// did not find at its beginning, in these kinds: process, descriptor, cgroup,
// mount, link, address, forwarding entry, nftables, file. Its own is what it
// started, what carries one of its names, what lies below or names one of its
// directories, and what is in a network namespace that it has for itself. Other
// people may work on the machine at the same time, with crucible, too.
//
// It is imported by tests only, and imports no package that it serves, except
// container/proc.
package testenv
