package workload

import (
	"context"
	"time"

	"crucible/checkpoint/criu"
	"crucible/container"
)

// Case is one question to kernel and CRIU, and the program that answers it.
type Case struct {
	Name     string   // kebab-case, the same for ever
	Question string   // one line, of the form "Does ... survive?"
	Needs    []string // see Features
	Known    *Known   // nil for most

	define  func(*definition)                   // what the container is, where it is not the plain one
	program program                             // runs in the container
	meet    func(context.Context, *stage) error // the part outside, before the program is ready
	plot    func(context.Context, *stage) error // what is done with the container; nil is once
}

// Known is what this case is known to lose, by CRIU's doing or by ours and on
// every kernel. One that fails at that step says nothing about this kernel, and
// is skipped with the reason; one that fails otherwise has failed, and one that
// passes has passed.
type Known struct {
	Step Step
	Why  string
}

// A program sets its state up and returns what checks that state after the
// restore. It has the process's first thread to itself.
type program func() (check func() error, err error)

// Verdict is what became of a case.
type Verdict string

// The verdicts.
const (
	Pass Verdict = "pass"
	Fail Verdict = "fail"
	Skip Verdict = "skip" // kernel or CRIU lack what it asks about
)

// Step is how far a case came.
type Step string

// The steps, in their order.
const (
	StepRun        Step = "run"        // the container starts
	StepReady      Step = "ready"      // the program sets its state up
	StepCheckpoint Step = "checkpoint" // also freezing and thawing
	StepRestore    Step = "restore"
	StepCheck      Step = "check" // the program, or the part outside, compares
)

// Result is the answer to a case. Times are in nanoseconds in JSON.
type Result struct {
	Case    string  `json:"case"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"` // skip: the missing feature; fail: what failed
	Hint    string  `json:"hint,omitempty"`   // what to do about it
	Step    Step    `json:"step"`             // the last one that was begun

	Took       time.Duration `json:"took"`
	Checkpoint time.Duration `json:"checkpoint"` // of all checkpoints of the case together
	Restore    time.Duration `json:"restore"`    // of all restores
	Frozen     time.Duration `json:"frozen"`     // of all checkpoints

	container string // its name
}

// Options say where and with what a case runs. Root and CRIU are required.
type Options struct {
	Root container.Root
	CRIU *criu.CRIU
	// Dir is where the logs and the image of a failed case are kept, as
	// DIR/CASE/; empty: nowhere.
	Dir string
	// Features is what Probe found; nil: Run probes by itself.
	Features *Features
	// Around is called around the phases "checkpoint" and "restore" of the
	// engine, and calls f; nil just calls f.
	Around func(phase string, f func() error) error
	// Timeout is how long a case may take; 0 is a minute.
	Timeout time.Duration

	prefix  string                           // of the containers' names; "" is one made of our pid
	volumes []string                         // which the program needs besides itself
	spoil   func(*container.Container) error // called before each go-ahead
}
