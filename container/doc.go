// Package container is the life of a container: from an OCI bundle to
// processes in their own namespaces and in one freezer cgroup, and back to
// nothing.
//
// # Words
//
// A bundle is a directory with a config.json (OCI runtime specification) that
// names a root filesystem. A container is what runs from it: it has a name, a
// state directory and one of these states:
//
//	            start              freeze
//	created ──────────▶ running ◀────────▶ frozen
//	   │                   │       thaw       │
//	   │ kill              │ exit, kill,      │ kill, checkpoint
//	   │                   │ checkpoint       │
//	   └──────────────▶ stopped ◀─────────────┘
//	                       │ start (again), restore, delete
//
// A transition that is not in the picture is refused with a *StateError.
//
// The monitor is the container's parent: the command itself for a container in
// the foreground, a re-executed crucible for a detached one. Its main thread
// owns a private mount namespace, in which the root filesystem is put
// together, and stands in the container's network namespace; both vanish with
// it, also after SIGKILL. Once the container is up a detached monitor executes
// itself anew, so that it keeps nothing in memory but what it needs to copy
// output to the log, to answer on its socket, and to record the exit status.
//
// # A container, from nothing to nothing
//
//	root := container.Root("/var/lib/crucible")
//	spec, err := container.NewSpec(container.RunOptions{Args: []string{"sleep", "60"}})
//	c, err := root.Create("web", spec, container.CreateOptions{})
//	defer c.Delete(ctx, container.DeleteOptions{Force: true})
//	err = c.Launch(ctx, container.Job{Start: true})   // a detached monitor
//	status, err := c.Stop(ctx, 10*time.Second)
//
// # What a bundle may ask for
//
// Whatever a bundle asks for is done, or is an error that names the field when
// the container is created: a field that is not supported, one that makes no
// sense, and also a key that no version of the specification has. (The
// specification has runtimes ignore such keys; but who writes "capabilites"
// wants something.) Only annotations mean nothing to us: they are kept for
// others to read.
//
// The package knows nothing of CRIU: checkpoint and restore use what it
// exports (Monitor, State, Layout).
package container
