package criu

import (
	"errors"
	"strings"
	"syscall"
)

// NotFound: there is no CRIU where it was looked for.
type NotFound struct {
	Tried []string
	Err   error
}

func (e *NotFound) Error() string {
	msg := "find CRIU: none at " + strings.Join(e.Tried, ", ")
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

func (e *NotFound) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *NotFound) Hint() string {
	return "run scripts/setup, which builds CRIU into a private prefix, or name one with --criu or $" + Env
}

// NotWorking: the program is there, and it does not do its work on this
// machine.
type NotWorking struct {
	Path   string
	Cause  string
	Remedy string // what can be done, if the cause is a known one
	Err    error
}

func (e *NotWorking) Error() string {
	msg := "CRIU " + e.Path + ": does not work"
	if e.Cause != "" {
		msg += ": " + e.Cause
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

func (e *NotWorking) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *NotWorking) Hint() string {
	if e.Remedy != "" {
		return e.Remedy
	}
	return "run `crucible doctor`, which asks CRIU feature by feature, or scripts/setup for a CRIU that fits this kernel"
}

// Error is a dump, a restore or another request in which CRIU failed: one
// line for the reader, and what else is known about it.
type Error struct {
	Op     string // dump, restore, lazy-pages, version
	Step   string // the event in which the caller itself said no, or ""
	Cause  string // the line of CRIU's log that caused it, without its prefix
	Kind   string // a stable name of the cause, if it is a known one
	Object string // what it is about, such as "fd 3, path /dev/pts/1"
	Pid    int    // the task it is about, by the number that CRIU gives it; 0 if unknown
	Task   string // what that task calls itself, if it is known
	Remedy string // what can be done, if the cause is a known one
	Source string // where CRIU says it, such as criu/files-reg.c:1829

	LogPath string        // CRIU's log, if one was written
	Errno   syscall.Errno // the errno that CRIU printed, or 0
	Killed  bool          // CRIU was killed, or died, before it had answered
	Err     error         // what the caller's step or context said
}

// Error is one line: `criu dump: pid 99: Can't lookup mount=7 for fd=3`.
func (e *Error) Error() string {
	parts := []string{"criu " + e.Op}
	if e.Step != "" {
		parts = append(parts, e.Step)
	}
	if e.Pid > 0 {
		parts = append(parts, About(e.Pid, e.Task, ""))
	}
	if e.Cause != "" {
		parts = append(parts, e.Cause)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	if len(parts) == 1 && e.Errno != 0 {
		parts = append(parts, e.Errno.Error())
	}
	if len(parts) == 1 {
		parts = append(parts, "failed, and its log does not say why")
	}
	return strings.ReplaceAll(strings.Join(parts, ": "), "\n", " ")
}

// Unwrap gives what the caller's own step said, and the errno.
func (e *Error) Unwrap() []error {
	var list []error
	if e.Err != nil {
		list = append(list, e.Err)
	}
	if e.Errno != 0 {
		list = append(list, e.Errno)
	}
	return list
}

// Refusal is what the caller's own step said, where CRIU has only passed it on;
// else it is the error itself.
func Refusal(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Step != "" && e.Err != nil {
		return e.Err
	}
	return err
}

// About is what the error is about: the task, its descriptor, a path.
func (e *Error) About() string { return About(e.Pid, e.Task, e.Object) }

// Hint says what to do about it, where that is known.
func (e *Error) Hint() string {
	if e.Remedy != "" {
		return e.Remedy
	}
	if e.LogPath != "" {
		return "CRIU's log says more: " + e.LogPath
	}
	return ""
}
