package fingerprint

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"crucible/proto/imagepb"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"a*", "b", false}, {"*", "", true},
		{"process/*/fd/*/ino", "process/1/fd/3/ino", true}, {"process/*/fd/*/ino", "process/1/fd/3/inos", false},
		{"a*b", "ab", true}, {"a*b", "a", false}, {"ab*ba", "aba", false}, {"*.pressure", "cgroup[v2]/cpu.pressure", true},
		{"mount[*]/x", "mount[/a/b]/x", true}, {"a*b*c", "axbxbxc", true},
	} {
		if got := match(c.pattern, c.s); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func of(pairs ...string) *Fingerprint {
	f := newFacts()
	for i := 0; i < len(pairs); i += 2 {
		f.put(pairs[i], pairs[i+1])
	}
	return f.fingerprint()
}

func TestCompare(t *testing.T) {
	before := of("a", "1", "b", "2", "c", Unreadable+"why", "clock/monotonic", "100", "clock/boottime", "100", "gone", "x",
		"process/1/ns/time", "host's", "process/1/fd/3/it_value", "5000", "process/1/fd/4/ticks", "1", "process/1/fd/3/ino", "77")
	after := of("a", "1", "b", "3", "c", Unreadable+"why", "clock/monotonic", "150", "clock/boottime", "99", "new", "y",
		"process/1/ns/time", "that of process 1", "process/1/fd/3/it_value", "4999", "process/1/fd/4/ticks", "0", "process/1/fd/3/ino", "78")
	r, err := Compare(before, after, Circumstances{Elapsed: 60})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range r.Differences {
		got = append(got, d.String())
	}
	want := "b: 2, now 3; clock/boottime: 100, now 99; gone: x, now nothing; new: nothing, now y; process/1/fd/4/ticks: 1, now 0"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("differences are\n%s, want\n%s", s, want)
	}
	if r.String() != "9 facts, 5 differ (3 declared, 1 unreadable)" || r.Same() {
		t.Error(r)
	}
	for _, d := range r.Declared {
		if d.Reason == "" {
			t.Errorf("%s is declared without a reason", d.Key)
		}
	}
	// A clock that has gone on for longer than there was time is not declared.
	if r, _ := Compare(of("clock/monotonic", "100"), of("clock/monotonic", "150"), Circumstances{Elapsed: 49 * time.Nanosecond}); r.Same() {
		t.Error("a clock has leapt, and nothing differs")
	}
	var form *FormError
	if _, err := Compare(&Fingerprint{Form: Form - 1}, after, Circumstances{}); !errors.As(err, &form) {
		t.Errorf("another form: %v", err)
	}
}

// TestReturns: what a frozen thread was in decides whether its end is a loss.
func TestReturns(t *testing.T) {
	const key = "process/1/thread/1/call"
	one := func(value, note string) *Fingerprint {
		f := newFacts()
		f.note(key, value, note)
		return f.fingerprint()
	}
	for _, c := range []struct {
		before, note, after string
		same                bool
	}{
		{"inside", "nanosleep(0x1)", "inside", true},
		{"inside", "nanosleep(0x1)", "outside", false},
		{"inside", "clock_nanosleep(0x1)", "outside", false},
		{"inside", "poll(0x1)", "outside", false},
		{"inside", "epoll_wait(0x1)", "outside", true},
		{"inside", "read(0x1)", "outside", true},
		{"inside", "futex(0x1)", "outside", true},
		{"outside", "", "inside", false},
		{"inside", "", "outside", false},
	} {
		r, err := Compare(one(c.before, c.note), one(c.after, ""), Circumstances{})
		if err != nil || r.Same() != c.same {
			t.Errorf("%+v: same is %v, %v", c, r.Same(), err)
		}
	}
}

func TestCircumstances(t *testing.T) {
	before, after := of("mount[/]/super/upperdir", "/a"), of("mount[/]/super/upperdir", "/b")
	for _, c := range []struct {
		c    Circumstances
		same bool
	}{{Circumstances{}, false}, {Circumstances{OtherName: true}, true}, {Circumstances{OtherAddress: true}, false}} {
		if r, err := Compare(before, after, c.c); err != nil || r.Same() != c.same {
			t.Errorf("%+v: %v, %v", c.c, r, err)
		}
	}
}

// TestDeclared: the table is small, says why, and says nothing twice.
func TestDeclared(t *testing.T) {
	table := Declared()
	seen := map[string]bool{}
	for _, d := range table {
		if len(d.Reason) < 10 || d.Key == "" || d.Key == "*" || d.Kind == "" {
			t.Errorf("%+v says too little", d)
		}
		if id := d.Key + string(d.When); seen[id] {
			t.Errorf("%s is in the table twice", d.Key)
		} else {
			seen[id] = true
		}
	}
	if len(table) > 120 {
		t.Errorf("the table has %d lines: what is declared is not verified", len(table))
	}
	// What must never be declared.
	for _, key := range []string{
		"process/1/thread/1/status/Cpus_allowed", "socket/1:3/receive-queue", "socket/1:3/pending", "process/1/fd/3/goes-on", "process/1/fd/3/pos", "process/1/fd/3",
		"process/1/map/400000/content", "process/1/map/400000", "socket/1:3/option/reuseport", "process/1/thread/1/status/SigBlk", "process/1/thread/1/pc", "process/1/exe",
	} {
		for _, d := range table {
			if d.When == Always && match(d.Key, key) {
				t.Errorf("%s is declared by %q", key, d.Key)
			}
		}
	}
}

func TestProto(t *testing.T) {
	f := of("b", "2\xff", "a", "1")
	data, err := proto.Marshal(f.Proto())
	if err != nil {
		t.Fatal(err)
	}
	var p imagepb.Fingerprint
	if err := proto.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	back, err := FromProto(&p)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Compare(f, back, Circumstances{}); err != nil || !r.Same() || len(back.Facts) != 2 {
		t.Errorf("%+v, %v", back, err)
	}
	for _, facts := range [][]*imagepb.Fact{{{Key: "b"}, {Key: "a"}}, {{Key: "a"}, {Key: "a"}}} {
		if _, err := FromProto(&imagepb.Fingerprint{Facts: facts}); err == nil {
			t.Errorf("%v: no error", facts)
		}
	}
}
