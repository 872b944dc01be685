package conformance

import (
	"time"

	"crucible/experiments/lab"
	"crucible/experiments/workload"
)

// Target is what is under test.
type Target struct {
	Kernel lab.Kernel
	CRIU   lab.CRIU
	Cgroup string // one of lab.Cgroups
}

func (t Target) String() string {
	return t.Kernel.Name + ", CRIU " + t.CRIU.Version + ", cgroup " + t.Cgroup
}

// Outcome is what a case came to on a target.
type Outcome struct {
	workload.Result
	// Kernel is what the kernel complained about meanwhile: warnings, oopses. A
	// case with complaints fails.
	Kernel []string `json:"kernel,omitempty"`
	Counts *Counts  `json:"counts,omitempty"` // of a case that passes, where that was asked for
}

// Answer is what a target came to.
type Answer struct {
	Kernel   string        `json:"kernel"`  // as it was asked for
	Release  string        `json:"release"` // uname -r
	CRIU     string        `json:"criu"`
	Cgroup   string        `json:"cgroup"`
	Boot     time.Duration `json:"boot"` // nanoseconds from the kernel's start until the guest was ready
	Took     time.Duration `json:"took"` // nanoseconds, from QEMU's start to its end
	Outcomes []Outcome     `json:"outcomes"`
	Fault    string        `json:"fault,omitempty"` // why it could not be tested, or not to the end
	Hint     string        `json:"hint,omitempty"`
	Results  string        `json:"results,omitempty"` // its results folder
	Unnamed  string        `json:"unnamed,omitempty"` // why its counts have no functions
}

// Report is what all targets came to, in the order in which they were named.
type Report struct {
	Machine string        `json:"machine"` // "KVM" or "software emulation"
	Took    time.Duration `json:"took"`    // nanoseconds
	Cases   []string      `json:"cases"`
	Answers []Answer      `json:"answers"`
	// Counting is there if instructions were counted.
	Counting *Counting `json:"counting,omitempty"`
}

// Find is the outcome of a case; nil if it has none.
func (a *Answer) Find(name string) *Outcome {
	for i := range a.Outcomes {
		if a.Outcomes[i].Case == name {
			return &a.Outcomes[i]
		}
	}
	return nil
}

// Count counts the outcomes by verdict.
func (a *Answer) Count() (pass, fail, skip int) {
	for _, o := range a.Outcomes {
		switch o.Verdict {
		case workload.Pass:
			pass++
		case workload.Fail:
			fail++
		case workload.Skip:
			skip++
		}
	}
	return pass, fail, skip
}

// The exit codes of a report, as `git bisect run` understands them.
const (
	Good     = 0
	Bad      = 1
	Untested = 125 // could not be tested
)

// ExitCode is Bad if any case failed anywhere, Good if at least one passed on
// every target, and else Untested: a kernel of which nothing could be asked is
// neither good nor bad.
func (r *Report) ExitCode() int {
	code := Good
	for _, a := range r.Answers {
		pass, fail, _ := a.Count()
		switch {
		case fail > 0:
			return Bad
		case pass == 0 || a.Fault != "":
			code = Untested
		}
	}
	return code
}
