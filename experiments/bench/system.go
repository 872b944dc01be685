package main

import (
	"context"
	"time"
)

// Names of the systems, as they are printed.
const (
	nameCrucible = "crucible"
	nameRunc     = "runc"
	nameLXC      = "lxc"
	nameCRIU     = "criu" // alone, with its best options
)

// program is what runs in a container.
type program struct {
	argv   []string
	bridge bool // on a bridge of the host, with an address
}

// system makes containers. Times are those of whole commands; what a system
// needs beside them (files, links) is made before and not counted.
type system interface {
	Name() string
	// Launch runs a program in the foreground of a container that is gone afterwards.
	Launch(ctx context.Context, argv ...string) (time.Duration, error)
	// Start brings up a container in the background.
	Start(ctx context.Context, name string, p program) (box, time.Duration, error)
}

// box is a container.
type box interface {
	// Checkpoint writes an image in the place of the one before.
	Checkpoint(ctx context.Context, leaveRunning bool) (time.Duration, error)
	// Restore brings it back from its image.
	Restore(ctx context.Context) (time.Duration, error)
	// Pid is its first process, as the host sees it.
	Pid() int
	// Address is where it is on the bridge.
	Address() string
	// Remove ends it and removes all that belongs to it. It works at any time.
	Remove() error
}

// tiny is the smallest program there is on every machine.
func tiny() program { return program{argv: []string{"/bin/sleep", "1000000"}} }

// systems are all of them, in the order in which they are shown.
func (r *rig) systems() []system {
	return []system{&crucible{r}, &runc{r}, &lxc{r}, &bare{r}}
}
