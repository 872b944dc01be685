package criu

import (
	"fmt"
	"os"
	"strings"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
	"google.golang.org/protobuf/proto"
)

// configText writes options as a CRIU configuration file: one long option
// per line, without its dashes.
//
// criu/config.c:parse_statement cuts a line at its first blank, and what
// follows goes through a quoting of its own that loses every '#' and most
// blanks. It is also passed as a second word, which getopt_long(3) does not
// take for an option whose argument is optional (manage-cgroups, cpu-cap):
// the value is then lost without a word. A line without any blank is taken
// as it stands, so each option is written as name=value.
func configText(extra []string) (string, error) {
	var b strings.Builder
	for _, line := range extra {
		name, _, _ := strings.Cut(line, "=")
		switch {
		case name == "" || strings.HasPrefix(name, "-") || strings.HasPrefix(name, "#"):
			return "", fmt.Errorf("CRIU option %q: write it as name or name=value, without dashes", line)
		case strings.ContainsAny(line, " \t\r\n\v\f\x00"):
			return "", fmt.Errorf("CRIU option %q: CRIU's configuration file cannot hold a blank", line)
		case ours(name):
			return "", fmt.Errorf("CRIU option %s: is set by crucible and cannot be changed", name)
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// ours are the options on which this package itself relies, and those by which
// an incremental image would hold something else than its caller thinks: the
// marks would be cleared unseen, or its parent changed. getopt_long(3) takes a
// beginning of a name for the name, and some have a "no-" before it.
func ours(name string) bool {
	for _, own := range []string{
		"images-dir", "work-dir", "log-file", "log-pid", "tree", "config", "pidfile", "status-fd",
		"track-mem", "prev-images-dir", "auto-dedup", "pre-dump-mode",
	} {
		if strings.HasPrefix(own, strings.TrimPrefix(name, "no-")) {
			return true
		}
	}
	return false
}

// attachConfig gives the configuration to CRIU, which opens it by path. The
// file lives in memory only, and until the caller closes it.
func attachConfig(r *rpc.CriuOpts, config string) (*os.File, error) {
	if config == "" {
		return nil, nil
	}
	f, err := memfd("criu-options")
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(config); err != nil {
		f.Close()
		return nil, fmt.Errorf("write CRIU's options: %w", err)
	}
	r.ConfigFile = proto.String(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()))
	return f, nil
}
