package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// privateCRIU is where scripts/setup puts a CRIU.
const privateCRIU = "/usr/local/lib/crucible/bin/criu"

// options are the command line.
type options struct {
	crucible string
	criu     string
	dir      string
	prefix   string
	only     []string
	skip     []string
	quick    bool
	busy     bool
	rounds   int
	json     string
	markdown string
	from     string
	idle     []int
	clones   []int
	sizes    []int // MiB
}

func parseOptions(args []string, errs io.Writer) (options, error) {
	var o options
	var only, skip, idle, clones, sizes string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&o.crucible, "crucible", "crucible", "the built program")
	f.StringVar(&o.criu, "criu", "", "the CRIU that all systems use (default: that of scripts/setup, then PATH)")
	f.StringVar(&o.dir, "dir", "/var/tmp", "directory on the disk that images are written to; not below /tmp, /run or /dev")
	f.StringVar(&o.prefix, "prefix", "bench", "names of all that is made on the machine begin with this (at most 6 bytes)")
	f.StringVar(&only, "only", "", "run only these sections, by name: "+strings.Join(sectionNames(), ","))
	f.StringVar(&skip, "skip", "", "leave these sections out")
	f.BoolVar(&o.quick, "quick", false, "fewer rounds and smaller numbers: under three minutes")
	f.BoolVar(&o.busy, "busy", false, "measure even though the machine is busy")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of every section (default: each section's own)")
	f.StringVar(&o.json, "json", "", "write every sample and the machine's description to this file")
	f.StringVar(&o.markdown, "markdown", "", "write the README's table to this file, - for standard output")
	f.StringVar(&o.from, "from", "", "measure nothing: take the results of an earlier --json file")
	f.StringVar(&idle, "idle", "", "how many idle containers (default 100,1000; quick: 20)")
	f.StringVar(&clones, "clones", "", "how many clones (default 1,10,100; quick: 1,10)")
	f.StringVar(&sizes, "sizes", "", "MiB of memory (default 256,1024)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	usual := func(given, full, quick string) ([]int, error) {
		switch {
		case given != "":
			return parseNumbers(given)
		case o.quick:
			return parseNumbers(quick)
		}
		return parseNumbers(full)
	}
	var err [5]error
	o.idle, err[0] = usual(idle, "100,1000", "20")
	o.clones, err[1] = usual(clones, "1,10,100", "1,10")
	o.sizes, err[2] = usual(sizes, "256,1024", "256,1024")
	o.only, err[3] = parseSections(only)
	o.skip, err[4] = parseSections(skip)
	return o, errors.Join(err[:]...)
}

func parseNumbers(s string) ([]int, error) {
	var out []int
	for _, word := range strings.Split(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 || n > 1<<20 {
			return nil, fmt.Errorf("%q is not a list of positive numbers", s)
		}
		out = append(out, n)
	}
	return out, nil
}

func parseSections(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	names := strings.Split(s, ",")
	for _, n := range names {
		if !slices.Contains(sectionNames(), n) {
			return nil, fmt.Errorf("there is no section %q; there are %s", n, strings.Join(sectionNames(), ", "))
		}
	}
	return names, nil
}

func (o options) wants(section string) bool {
	return (len(o.only) == 0 || slices.Contains(o.only, section)) && !slices.Contains(o.skip, section)
}

// check finds the programs and refuses what cannot work.
func (o *options) check() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can make containers")
	}
	if len(o.prefix) < 1 || len(o.prefix) > 6 {
		return fmt.Errorf("prefix %q: want 1 to 6 bytes: it is part of names of links", o.prefix)
	}
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	for _, hidden := range []string{"/tmp", "/run", "/dev"} {
		if o.dir == hidden || strings.HasPrefix(o.dir, hidden+"/") {
			return fmt.Errorf("directory %s: a container has its own %s, and would not see the programs", o.dir, hidden)
		}
	}
	if o.crucible, err = filepath.Abs(o.crucible); err != nil {
		return err
	}
	if _, err = os.Stat(o.crucible); err != nil {
		return fmt.Errorf("%w: build it with make build", err)
	}
	if o.criu == "" {
		o.criu = privateCRIU
		if _, err := os.Stat(o.criu); err != nil {
			if o.criu, err = exec.LookPath("criu"); err != nil {
				return fmt.Errorf("%w: run scripts/setup", err)
			}
		}
	}
	o.criu, err = filepath.Abs(o.criu)
	return err
}
