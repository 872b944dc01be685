package workload

import (
	"errors"
	"fmt"
	"strings"
)

// Program is what a container runs for a case whose story somebody else tells.
type Program struct {
	Path string // where the container must have our executable
	Args []string
	Env  []string
}

// ProgramOf is the program of a case that is nothing but a program: one with a
// part outside, or a story or a container of its own, is an error.
func ProgramOf(name string) (Program, error) {
	c, err := Find(name)
	if err != nil {
		return Program{}, err
	}
	if !c.Alone() {
		return Program{}, fmt.Errorf("case %s is more than a program: crucible kernel test asks it", name)
	}
	return Program{Path: programPath, Args: []string{programPath, name}, Env: programEnv()}, nil
}

// Alone tells whether the case is nothing but a program.
func (c Case) Alone() bool { return c.define == nil && c.meet == nil && c.plot == nil }

// programEnv: few threads, and no rseq(2) of libc's in a test binary.
func programEnv() []string {
	return []string{"GOMAXPROCS=1", "GOGC=off", "GLIBC_TUNABLES=glibc.pthread.rseq=0"}
}

// IsReady tells whether a line of the program's says that it has set its state up;
// the error is that it could not: a [LackError] if the kernel lacks what it needs.
func IsReady(line string) (bool, error) { return line == saysReady, setUp(line) }

func setUp(line string) error {
	if feature, ok := strings.CutPrefix(line, saysLacks); ok {
		return &LackError{Feature: feature}
	}
	if why, ok := strings.CutPrefix(line, saysFailed); ok {
		return errors.New(why)
	}
	return nil
}
