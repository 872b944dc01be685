// Package network gives a container its network, takes it away, and carries it
// over a checkpoint.
//
// Its words:
//
//   - namespace: a network namespace, always made by us and held by a descriptor.
//   - attachment: what ties a namespace to the host: a veth whose host end is a
//     port of a bridge, an address, published ports. Plain data, kept in the
//     container's state; every method works from the JSON alone.
//   - bridge of ours: one that we made, for one state root: the root's own, or one
//     that was asked for by a name that no link had. It has a subnet (10.77.0.0/16
//     and its like, or for a name the first free /24 of 10.76.0.0/16, or what the
//     first container's address asks for), an nftables table that masquerades and
//     publishes, and goes with its last container. The link's alias says so. Any
//     other bridge is foreign: it gets a port, and is never changed or deleted.
//   - quiet, mute: no frame passes the host end, in either direction.
//   - lease: who has an address; a file under <root>/network.
//   - parking: frames for a container that is away are kept, and delivered when
//     it is back.
//   - saved: what the container has in its namespace, to be built again.
//
// A container's life:
//
//	ns, err := network.NewNamespace()
//	a, err := network.Attach(ctx, network.Options{Root: root, Name: "web", NS: ns,
//		Config: network.Config{Mode: network.ModeBridge}})
//	... // state.json gets a; the monitor's main thread calls network.Enter(ns)
//	err = a.Detach(ctx)               // cheap; the kernel deletes the veth with the namespace
//	_, err = network.Sweep(ctx, root) // takes each bridge down whose last container that was
//
// A checkpoint and a restore, with a peer that notices a pause and no loss:
//
//	p, err := a.Park(ctx)               // prepares: before the freeze
//	... freeze ...
//	err = p.Start(ctx)                  // from here on frames are kept, and nothing gets out
//	saved, err := network.Save(ns)      // any time; it needs no frozen container
//	... dump, kill; another process may go on with p.Files() and p's JSON ...
//	b, err := network.Attach(ctx, network.Options{..., NS: fresh, Like: saved, Quiet: true})
//	warnings, err := network.Rebuild(fresh, saved, network.RebuildOptions{Attachment: b})
//	... restore ...
//	d, err := p.Deliver(ctx, b)         // at CRIU's network-unlock, or right after the resume
//	p.Close()                           // slow (an RCU grace period): where nobody waits
//
// "The host" is the namespace of the calling thread. The monitor, whose main
// thread stands in the container's, calls within Do(host, ...).
//
// What it does not do: IPv6 for containers by itself (lo has ::1, eth0 has no
// link-local address; a container may add its own, and they are carried), DNS,
// firewalls between containers, packet filters inside a container (reported by
// Save, not carried), VLANs, macvlan and tunnels inside a container (refused by
// Save), and any setting of conntrack.
package network
