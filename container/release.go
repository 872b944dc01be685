package container

import "crucible/container/network"

// ReleaseConnections undoes what a checkpoint did to the container's TCP
// connections and could not undo itself, because the one that made it was
// killed. See [network.Release].
//
// What a killed CRIU leaves in a task's memory stays there, two mappings of
// /memfd:CRIUMFD with some 0.9 MB that nobody uses: only the task itself could
// unmap them.
func (c *Container) ReleaseConnections() error {
	group, err := c.Group()
	if err != nil {
		return err
	}
	pids, err := group.Pids()
	if err != nil {
		return err
	}
	ns, err := c.NetNS()
	if err != nil {
		return err
	}
	if ns != nil {
		// There the lock is our own link.
		defer ns.Close()
	}
	return network.Release(pids, ns == nil)
}
