package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRun(t *testing.T) {
	p := probe{group: "g", name: "n", required: true, costs: "the usual", remedy: "the known one"}
	for _, test := range []struct {
		name   string
		answer answer
		want   Row
	}{
		{"good", good("%d", 1), Row{State: Good, Detail: "1"}},
		{"good, at a price", answer{state: Good, costs: "c", remedy: "r"}, Row{State: Good, Costs: "c", Remedy: "r"}},
		{"missing", missing("no"), Row{State: Missing, Detail: "no", Costs: "the usual", Remedy: "the known one"}},
		{"missing, with its own remedy", answer{state: Missing, remedy: "r"}, Row{State: Missing, Costs: "the usual", Remedy: "r"}},
		{"unknown", unknown(errors.New("e")), Row{State: Unknown, Detail: "e", Costs: "the usual", Remedy: "the known one"}},
	} {
		p.ask = func() answer { return test.answer }
		test.want.Group, test.want.Name, test.want.Required = "g", "n", true
		if got := p.run(context.Background()); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestProbeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	rows := Probe(ctx, Options{Root: t.TempDir()})
	if len(rows) < 30 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		if row.State != Unknown || !strings.Contains(row.Detail, "canceled") {
			t.Errorf("%s/%s: %v %q", row.Group, row.Name, row.State, row.Detail)
		}
	}
}

// Every question can be told from every other, and says what a "no" means.
func TestProbesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range probes(Options{Root: "/nowhere"}) {
		name := p.group + "/" + p.name
		if seen[name] {
			t.Errorf("%s: twice", name)
		}
		seen[name] = true
		if p.costs == "" || p.remedy == "" {
			t.Errorf("%s has no costs or no remedy", name)
		}
	}
	for _, p := range probes(Options{}) {
		if p.name == "container directory" {
			t.Error("asks about a directory that was not named")
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		err  error
		no   []unix.Errno
		want State
	}{
		{nil, nil, Good},
		{unix.ENOSYS, nil, Missing},
		{fmt.Errorf("try: %w", unix.ENOSYS), nil, Missing},
		{unix.EINVAL, nil, Unknown},
		{unix.EINVAL, []unix.Errno{unix.ENODEV, unix.EINVAL}, Missing},
		{&fs.PathError{Op: "open", Path: "x", Err: unix.ENOENT}, []unix.Errno{unix.ENOENT}, Missing},
		{unix.EPERM, nil, Unknown},
		{errors.New("other"), []unix.Errno{unix.EINVAL}, Unknown},
	} {
		got := verdict(test.err, test.no...)
		if got.state != test.want {
			t.Errorf("verdict(%v, %v) = %v, want %v", test.err, test.no, got.state, test.want)
		}
		if test.err != nil && got.detail == "" {
			t.Errorf("verdict(%v): no detail", test.err)
		}
	}
}

func TestStateText(t *testing.T) {
	for _, state := range []State{Unknown, Good, Missing} {
		data, err := json.Marshal(Row{State: state})
		if err != nil {
			t.Fatal(err)
		}
		var row Row
		if err := json.Unmarshal(data, &row); err != nil || row.State != state {
			t.Errorf("%v -> %s -> %v, %v", state, data, row.State, err)
		}
	}
	var s State
	if err := s.UnmarshalText([]byte("perhaps")); err == nil {
		t.Error("takes any word")
	}
}

func TestIsFirstUserNamespace(t *testing.T) {
	for _, test := range []struct {
		uidMap string
		want   bool
	}{
		{"         0          0 4294967295\n", true},
		{"         0       1000          1\n", false},
		{"         0     100000      65536\n", false},
		{"         0          0       1000\n      1000       1000 4294966295\n", false},
		{"", false},
	} {
		got, err := isFirstUserNamespace(strings.NewReader(test.uidMap))
		if err != nil || got != test.want {
			t.Errorf("%q: %v, %v; want %v", test.uidMap, got, err, test.want)
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0 KiB", 5000: "4 KiB", 3 << 20: "3.0 MiB", 3 << 29: "1.5 GiB"} {
		if got := size(bytes); got != want {
			t.Errorf("size(%d) = %q, want %q", bytes, got, want)
		}
	}
}
