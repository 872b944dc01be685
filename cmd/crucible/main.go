// The runtime would read the cgroup's processor limit at every start, and the
// binary starts several times for one container.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command crucible is a checkpoint/restart workbench for Linux containers.
package main

import (
	"context"
	"os"
	"slices"
	"time"

	"crucible/checkpoint"
	"crucible/container"
	"crucible/experiments/builtin"
	"crucible/experiments/conformance"
	"crucible/experiments/engine"
	"crucible/experiments/lab"
	"crucible/experiments/workload"
	"crucible/restore"
)

// version is set by the build (-ldflags -X main.version=...).
var version = "devel"

func main() {
	// The same binary is the container's init and its monitor: those come
	// first, and know nothing of the commands below.
	container.MaybeInit()
	container.MaybeMonitor(map[string]container.Job{restore.JobName: restore.Job}, explainRemotely)
	workload.MaybeRun()
	builtin.MaybeRun()
	lab.MaybeGuest(map[string]lab.Worker{conformance.JobName: conformance.Work, engine.GuestJob: engine.WorkGuest})

	began, born := time.Now(), time.Time{}
	if slices.Contains(os.Args, "checkpoint") || slices.Contains(os.Args, "restore") { // 0.03 ms
		born = checkpoint.ProcessStarted()
	}
	ctx, interrupts := catchInterrupts(context.Background())
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, interrupts: interrupts, born: born, began: began}
	os.Exit(a.run(ctx, os.Args[1:]))
}
