package restore

import (
	"fmt"
	"net/netip"

	"crucible/proto/imagepb"
)

// AddressError: the image holds sockets that cannot go on from another address.
type AddressError struct {
	Address netip.Addr // the old one
	Sockets int
}

func (e *AddressError) Error() string {
	if e.Sockets == 1 {
		return fmt.Sprintf("a UDP socket of it is connected from %s: CRIU cannot connect it from another address", e.Address)
	}
	return fmt.Sprintf("%d UDP sockets of it are connected from %s: CRIU cannot connect them from another address", e.Sockets, e.Address)
}

// Hint says what to do about it.
func (e *AddressError) Hint() string {
	return fmt.Sprintf("restore it at its own address (--ip %s), or checkpoint it while the program has none connected", e.Address)
}

// leftBehind says what a container loses that leaves its address.
func leftBehind(t *imagepb.Traits, old netip.Addr) (notes []string, err error) {
	if n := t.GetConnectedUdp(); n > 0 {
		return nil, &AddressError{Address: old, Sockets: int(n)}
	}
	switch n := t.GetBoundSockets(); n {
	case 0:
		return nil, nil
	case 1:
		notes = append(notes, "1 socket stays bound to "+old.String()+", where nothing reaches it")
	default:
		notes = append(notes, fmt.Sprintf("%d sockets stay bound to %s, where nothing reaches them", n, old))
	}
	notes[0] += ": let the program listen on 0.0.0.0, or restore it at that address (--ip " + old.String() + ")"
	return notes, nil
}
