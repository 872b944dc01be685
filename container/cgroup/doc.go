// Package cgroup puts a container into control groups: one type for v1, hybrid
// and v2 hosts. The freezer is the heart of it, limits and statistics go with
// it.
//
// Words: a hierarchy is one mounted tree of cgroups, of version 1 or 2; a
// layout is all of a host's. A group is a container's cgroup: the directory
// crucible/NAME in each hierarchy that it needs. To freeze is to stop every
// task in it, to thaw is to let them go on.
//
//	layout, err := cgroup.Detect()
//	g, err := layout.Create("web", bundle.Linux.Resources)
//	defer g.Remove(context.WithoutCancel(ctx))
//	err = g.Start(func(dir *os.File) (int, error) { return clone(dir) })
//
//	took, err := g.Freeze(ctx, 2*time.Second)
//	if err != nil {
//		return err // it runs on; a *cgroup.StuckError names who would not
//	}
//	defer g.Thaw(context.WithoutCancel(ctx))
//
// A hybrid host has v1 controllers, and v2 beside them with what they left
// over. There the container is frozen by v2 (see [Layout] and its home for the
// reason) and in v1 for everything else, but for a limit that v1 cannot give.
//
// The limits of a bundle are translated here, field by field, to the files of
// the version at hand; a field that cannot be had is an error with its name.
// github.com/opencontainers/cgroups can do that, too, and was measured: it
// brings dbus, logrus, net and encoding/json, 2 MB and 28 packages that
// initialise themselves whenever a container's init or monitor starts; it leaves
// out what it cannot do without a word; and the translation from a bundle is
// not in it but in runc. What it knows about the odd corners is quoted where it
// is used.
//
// The package does not place threads, does not talk to systemd (a directory
// beside its slices is left alone by it), and does not mount cgroup file
// systems.
package cgroup
