package restore_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"crucible/checkpoint"
	"crucible/container/fingerprint"
	"crucible/restore"
)

// verify decodes what a command with --verify --json prints. That something
// differs is its exit status 9, and must agree with what it prints.
func (b *box) verify(into any, verified func() *checkpoint.Verified, args ...string) *fingerprint.Report {
	b.t.Helper()
	out, err := b.command(nil, append(args, "--verify", "--json")...)
	var f *failure
	if err != nil && (!errors.As(err, &f) || f.Code != 9) {
		b.t.Fatalf("crucible %s: %v", shorten(args), err)
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		b.t.Fatalf("crucible %s: %v in %q", shorten(args), err, out)
	}
	v := verified()
	if v == nil || v.Failed != "" {
		b.t.Fatalf("crucible %s: not verified: %+v", shorten(args), v)
	}
	if v.Report != nil && v.Same() == (f != nil) {
		b.t.Errorf("crucible %s: exit status 9 is %v: %s", shorten(args), f != nil, v.Report)
	}
	return v.Report
}

func (b *box) verifyCheckpoint(flags ...string) *fingerprint.Report {
	b.t.Helper()
	var r checkpoint.Result
	return b.verify(&r, func() *checkpoint.Verified { return r.Verified }, append([]string{"checkpoint", b.name}, flags...)...)
}

func (b *box) verifyRestore(flags ...string) *fingerprint.Report {
	b.t.Helper()
	var r restore.Result
	report := b.verify(&r, func() *checkpoint.Verified { return r.Verified }, append([]string{"restore", b.name}, flags...)...)
	b.pid, b.address = r.Pid, r.Address
	return report
}

// nothing fails the test for each difference.
func nothing(t testing.TB, what string, r *fingerprint.Report) {
	t.Helper()
	if r.Facts < 500 || len(r.Declared) == 0 {
		t.Errorf("%s: %s: too little", what, r)
	}
	for _, d := range r.Differences {
		t.Errorf("%s: %s", what, d)
	}
}

// testVerified: of ordinary programs nothing differs, whatever is done to them.
func testVerified(t *testing.T, e *env) {
	for _, one := range []struct {
		name, script string
		flags        []string
	}{
		{"alone", "verified.py", nil},
		{"on the bridge", "verified.py", bridge()},
	} {
		t.Run(one.name, func(t *testing.T) {
			b := (&env{t: t, bin: e.bin, root: e.root}).run(one.flags, python(t), "-c", script(t, one.script))
			b.ask("ready", new(bool))
			nothing(t, "checkpoint that leaves it running", b.verifyCheckpoint("--leave-running"))
			b.verifyCheckpoint()
			nothing(t, "restore", b.verifyRestore())
			b.ask("ready", new(bool))
			b.verifyCheckpoint()
			nothing(t, "restore of what was restored", b.verifyRestore())
			clone := &box{env: b.env, name: b.name + "x"}
			clone.willDelete()
			var r restore.Result
			nothing(t, "clone", b.verify(&r, func() *checkpoint.Verified { return r.Verified }, "restore", "--name", clone.name, b.name))
		})
	}
}

// testVerifyFinds: the silent losses are found, and nothing else is.
func testVerifyFinds(t *testing.T, e *env) {
	b := e.run(bridge(), python(t), "-c", script(t, "losses.py"))
	b.ask("ready", new(bool))
	b.verifyCheckpoint()
	r := b.verifyRestore()
	var got []string
	for _, d := range r.Differences {
		got = append(got, d.Key)
	}
	want := []string{
		`process/1/thread/1/status/Cpus_allowed`, `process/1/thread/1/status/Cpus_allowed_list`,
		`process/\d+/thread/\d+/call`, `process/\d+/thread/\d+/call`, // nanosleep, and poll
		`socket/1:\d+/pending`, `socket/1:\d+/receive-queue`,
	}
	slices.Sort(got)
	if ok, _ := regexp.MatchString("^"+strings.Join(want, " ")+"$", strings.Join(got, " ")); !ok {
		t.Errorf("differences are\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, d := range r.Differences {
		if strings.HasSuffix(d.Key, "/call") && !strings.Contains(d.Note, "nanosleep") && !strings.Contains(d.Note, "poll") {
			t.Errorf("it is not said which call was interrupted: %s", d)
		}
	}
}

// testVerifyRefused: what cannot be verified is said in one line, before
// anything is done.
func testVerifyRefused(t *testing.T, e *env) {
	b := e.run(nil, "sleep", "1000")
	b.checkpoint()
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{6, "has no fingerprint to compare with", []string{"restore", "--verify", b.name}},
		{2, "--lazy", []string{"restore", "--verify", "--lazy", b.name}},
		{2, "--pre-dump", []string{"checkpoint", "--verify", "--pre-dump", b.name}},
	} {
		_, err := b.command(nil, c.args...)
		var f *failure
		if !errors.As(err, &f) || f.Code != c.code || !strings.Contains(f.Message, c.want) {
			t.Errorf("crucible %s: %v", shorten(c.args), err)
		}
	}
	b.mustBe("stopped")
	b.restore()
}
