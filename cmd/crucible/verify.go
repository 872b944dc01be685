package main

import (
	"fmt"

	"crucible/checkpoint"
)

// differing is the exit code of a command that did what it was told, and whose
// --verify found something.
const differing = 9

// differs is the end of a command with --verify.
func differs(v *checkpoint.Verified) error {
	if v == nil || v.Report == nil && v.Failed == "" || v.Report != nil && v.Same() {
		return nil
	}
	return &exitError{differing}
}

// printVerified shows what --verify found: a line, after what differs.
func (a *app) printVerified(prefix string, v *checkpoint.Verified) {
	switch {
	case v == nil:
	case v.Failed != "":
		fmt.Fprintf(a.stderr, "%snot verified: %s\n", prefix, v.Failed)
	case v.Report == nil:
		fmt.Fprintf(a.stderr, "%sfingerprint: %d facts, for `crucible restore --verify` to compare\n", prefix, v.Taken)
	default:
		for _, d := range v.Differences {
			fmt.Fprintf(a.stderr, "%sdiffers: %s\n", prefix, printable(d.String()))
		}
		fmt.Fprintf(a.stderr, "%sverified: %s\n", prefix, v.Report)
	}
}
