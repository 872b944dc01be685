package restore_test

import (
	"os"
	"testing"

	"crucible/container/testenv"
)

// TestPrograms takes real programs away and brings them back. Each checks its
// own state before and after. All share a state root, as on a user's machine,
// and run beside each other.
func TestPrograms(t *testing.T) {
	testenv.Root(t)
	root := testenv.StateRoot(t)
	// A mapped root must be able to look below it.
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	testenv.LeakCheck(t)
	bin := testenv.Binary(t)
	for _, one := range []struct {
		name string
		test func(*testing.T, *env)
	}{
		// The slow ones first.
		{"go", testGo},
		{"go with mptcp", testGoMPTCP},
		{"lazy", testLazy}, {"lazy checkpoint", testLazyCheckpoint}, {"loader killed", testLoaderKilled}, {"loader ends", testLoaderEnds}, {"loader of a killed monitor", testLoaderOfKilled}, {"one winner", testOneWinner},
		{"redis", testRedis},
		{"python", testPython},
		{"nginx", func(t *testing.T, e *env) { testNginx(t, e, "root") }},
		{"low port in a user namespace", testLowPort},
		{"nginx in a user namespace", func(t *testing.T, e *env) { testNginx(t, e, "www-data", "--userns", "auto") }},
		{"node", testNode},
		{"pipeline", testPipeline},
		{"family", testFamily},
		{"descriptors", testDescriptors},
		{"terminal", testTerminal},
		{"user namespace", testUserNamespace},
		{"time namespace", testTimeNamespace},
		{"all namespaces", testAllNamespaces},
		{"files", func(t *testing.T, e *env) { testFiles(t, e) }},
		{"files in a user namespace", func(t *testing.T, e *env) { testFiles(t, e, "--userns", "auto") }},
		{"volumes", testVolumes},
		{"verified", testVerified},
		{"verify finds", testVerifyFinds},
		{"verify refused", testVerifyRefused},
		{"cycles", testCycles},
		{"leave running", testLeaveRunning},
		{"older image", testOlderImage},
		{"clones", testClones},
		{"bridge by name", testNamedBridge},
		{"refused", testRefused},
		{"interrupted", func(t *testing.T, e *env) { testInterrupted(t, e, os.Interrupt) }},
		{"killed", func(t *testing.T, e *env) { testInterrupted(t, e, os.Kill) }},
		{"stop meanwhile", func(t *testing.T, e *env) { testMeanwhile(t, e, "stop", "--grace", "1s") }},
		{"kill meanwhile", func(t *testing.T, e *env) { testMeanwhile(t, e, "kill") }},
		{"delete meanwhile", func(t *testing.T, e *env) { testMeanwhile(t, e, "delete", "-f") }},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			one.test(t, &env{t: t, bin: bin, root: root})
		})
	}
}
