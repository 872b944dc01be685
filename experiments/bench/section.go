package main

import (
	"context"
	"fmt"
)

// section is one question.
type section struct {
	name  string
	title string
	// full and quick are how often it is asked.
	full, quick rounds
	run         func(context.Context, *rig, *results, rounds) error
}

func sections() []section {
	return []section{
		{"launch", "run /bin/true in a container", rounds{5, 50}, rounds{2, 15}, launch},
		{"cycle", "checkpoint and restore of sleep", rounds{2, 20}, rounds{1, 10}, cycle},
		{"frozen", "how long a program stands still in a checkpoint that lets it run on", rounds{2, 20}, rounds{1, 10}, frozen},
		{"memory", "checkpoint and restore of much memory", rounds{1, 10}, rounds{1, 5}, memory},
		{"connection", "the longest pause that a TCP client feels", rounds{1, 10}, rounds{1, 5}, connection},
		{"lazy", "from the start of a restore to the program's first answer", rounds{1, 10}, rounds{1, 5}, lazy},
		{"decode", "CRIU's files of an image as JSON, all of them", rounds{1, 10}, rounds{1, 3}, decoding},
		{"look", "search, compare and verify the memory in images", rounds{1, 10}, rounds{1, 5}, looking},
		{"clones", "many containers from one image", rounds{1, 5}, rounds{1, 3}, clones},
		{"idle", "many idle containers", rounds{0, 1}, rounds{0, 1}, idle},
	}
}

func sectionNames() []string {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

// notes say what is not alike for all systems.
func notes() []string {
	return []string{
		"All use the same CRIU: crucible by CRUCIBLE_CRIU, runc by --criu, lxc by PATH; it keeps what it found out about the kernel in a cache.",
		"Roots: crucible mounts an overlay of the host's root, as it always does; runc, lxc and criu get a plain bind of it that was made before, which costs them less.",
		"Mounts inside: crucible's usual ones (/dev, /dev/shm, /tmp, /run, /sys); runc and lxc only proc and /dev (runc also devpts); criu only proc.",
		"criu alone: the same five namespaces, started inside the network namespace, --network-lock skip, --manage-cgroups=ignore.",
		"Network none: runc and lxc make the network namespace themselves, their default. Bridge: runc gets it by path, as from a network plug-in, and keeps it over the restore; crucible and lxc build it again.",
		"Decoding: crit and go-criu's crit are a command for each file, as they are made; pycriu is crit's library in one program for all files. Pages and other raw files are nobody's.",
		"Images are on disk, in the page cache: nobody waits for the disk.",
	}
}

// with starts a container, uses it, and removes it whatever happens.
func with(ctx context.Context, s system, name string, p program, use func(box) error) error {
	b, _, err := s.Start(ctx, name, p)
	if err != nil {
		return err
	}
	err = use(b)
	if removeErr := b.Remove(); removeErr != nil && err == nil {
		err = fmt.Errorf("clean up %s's container %s: %w", s.Name(), name, removeErr)
	}
	return err
}

// socket is where a workload answers.
func (r *rig) socket(name string) string { return r.path("s." + name) }

// workload is this program, in a container.
func (r *rig) workload(name, kind string, args ...string) program {
	return program{argv: append([]string{r.self, "work", kind, r.socket(name)}, args...)}
}

// answers waits until a workload is up.
func answers(ctx context.Context, b box, socket string) error {
	return until(ctx, "start of the workload", func() error {
		_, err := ask(b.Pid(), socket, "ready")
		return err
	})
}
