package restore

import (
	"fmt"
	"net/netip"

	"crucible/container"
	"crucible/container/network"
	"crucible/images"
	"crucible/proto/imagepb"
)

// jobArgs go from the command to the monitor.
type jobArgs struct {
	Store      string         `json:"store"`
	Ref        string         `json:"ref"`
	CRIU       string         `json:"criu"`
	Net        network.Config `json:"net"`
	Lazy       bool           `json:"lazy"`
	TCPClose   bool           `json:"tcpClose"`
	Trace      bool           `json:"trace"`
	Verify     bool           `json:"verify"`
	NewAddress bool           `json:"newAddress"`
	Extra      []string       `json:"extra"`
	Notes      []string       `json:"notes"`
}

// newJobArgs decides how the container meets the network.
func newJobArgs(image *images.Image, c *container.Container, o Options) (*jobArgs, error) {
	a := &jobArgs{Store: image.Store().Dir, Ref: image.Ref(), CRIU: o.CRIU.Path, Lazy: o.Lazy, TCPClose: o.TCPClose, Trace: o.Trace, Verify: o.Verify, Extra: o.Extra}
	var spaces imagepb.Namespaces
	if err := image.Get(images.Namespaces, &spaces); err != nil {
		return nil, err
	}
	saved := networkOf(&spaces)
	if saved == nil || saved.Attachment == nil {
		a.Net = network.Config{Mode: network.ModeNone}
		if saved == nil {
			a.Net.Mode = network.ModeHost
		}
		if o.Address != "" || len(o.Publish) > 0 {
			return nil, &container.OptionError{Cause: fmt.Errorf("the container of %s is on no bridge: it takes no address, and no published ports", image.Ref())}
		}
		return a, nil
	}
	old, err := network.ConfigFrom(saved.Attachment)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image.Ref(), err)
	}
	a.Net = old
	if c.Name != image.Name {
		a.Net.Address, a.Net.MAC, a.Net.Publish = netip.Prefix{}, network.MAC{}, nil
	}
	if len(o.Publish) > 0 {
		a.Net.Publish = o.Publish
	}
	if o.Address != "" {
		if a.Net.Address, err = network.ParseAddress(o.Address); err != nil {
			return nil, err
		}
		a.Net.MAC = network.MAC{}
	}
	a.NewAddress = a.Net.Address.Addr() != old.Address.Addr()
	if a.NewAddress {
		note, err := leftBehind(image.Manifest.GetTraits(), old.Address.Addr())
		if err != nil {
			return nil, err
		}
		a.Notes = append(a.Notes, note...)
	}
	if a.NewAddress && image.Manifest.GetTraits().GetEstablishedTcp() && !a.TCPClose {
		// A connection is bound to its addresses; they cannot follow.
		a.TCPClose = true
		a.Notes = append(a.Notes, "its TCP connections are closed: they cannot go on from another address")
	}
	return a, nil
}
