package network

import (
	"fmt"
	"net/netip"

	"crucible/proto/imagepb"
)

// Proto is what was saved in the form of an image, with how the container was
// attached to the host.
func (s *Saved) Proto(a *Attachment) *imagepb.NetworkNamespace {
	out := &imagepb.NetworkNamespace{
		Attachment: a.proto(), Sysctls: s.Sysctls, Address: textOf(s.Address), Gateway: textOf(s.Gateway),
		Addresses: protoMessages(s.Addresses), Routes: protoMessages(s.Routes),
		Rules: protoMessages(s.Rules), Neighbours: protoMessages(s.Neighbours),
	}
	for _, w := range s.Warnings {
		out.Warnings = append(out.Warnings, w.String())
	}
	for _, l := range s.Links {
		out.Links = append(out.Links, &imagepb.Link{
			Name: l.Name, Index: int32(l.Index), Kind: l.Kind, Attached: l.Attached, Peer: int32(l.Peer), Master: int32(l.Master),
			Mac: l.MAC.String(), Mtu: uint32(l.MTU), Queue: uint32(l.Queue), Flags: l.Flags, Alias: imagepb.Text(l.Alias),
			Options: l.Options, Conf4: l.Conf4, Conf6: l.Conf6,
		})
	}
	return out
}

// SavedFrom is the way back from Proto.
func SavedFrom(n *imagepb.NetworkNamespace) (*Saved, error) {
	s := &Saved{
		Sysctls: n.Sysctls, Addresses: messagesFrom(n.Addresses), Routes: messagesFrom(n.Routes),
		Rules: messagesFrom(n.Rules), Neighbours: messagesFrom(n.Neighbours),
	}
	if n.Address != "" {
		if err := s.Address.UnmarshalText([]byte(n.Address)); err != nil {
			return nil, fmt.Errorf("saved network: address: %w", err)
		}
	}
	if n.Gateway != "" {
		if err := s.Gateway.UnmarshalText([]byte(n.Gateway)); err != nil {
			return nil, fmt.Errorf("saved network: gateway: %w", err)
		}
	}
	for _, l := range n.Links {
		link := Link{
			Name: l.Name, Index: int(l.Index), Kind: l.Kind, Attached: l.Attached, Peer: int(l.Peer), Master: int(l.Master),
			MTU: int(l.Mtu), Queue: int(l.Queue), Flags: l.Flags, Alias: l.Alias, Options: l.Options, Conf4: l.Conf4, Conf6: l.Conf6,
		}
		if err := link.MAC.UnmarshalText([]byte(l.Mac)); err != nil {
			return nil, fmt.Errorf("saved network: link %s: %w", l.Name, err)
		}
		s.Links = append(s.Links, link)
	}
	return s, nil
}

func protoMessages(all []Message) (out []*imagepb.Message) {
	for _, m := range all {
		out = append(out, &imagepb.Message{Text: m.Text, Raw: m.Raw})
	}
	return out
}

func messagesFrom(all []*imagepb.Message) (out []Message) {
	for _, m := range all {
		out = append(out, Message{Text: m.Text, Raw: m.Raw})
	}
	return out
}

// textOf is "" for what is not there.
func textOf[T interface {
	IsValid() bool
	String() string
}](v T) string {
	if !v.IsValid() {
		return ""
	}
	return v.String()
}

func (a *Attachment) proto() *imagepb.Attachment {
	if a == nil {
		return nil
	}
	out := &imagepb.Attachment{
		Mode: string(a.Mode), Bridge: a.Bridge, Address: textOf(a.Address), Gateway: textOf(a.Gateway),
		Mac: a.MAC.String(), Link: a.Link, HostLink: a.HostLink, Mtu: uint32(a.MTU), OwnBridge: a.Own,
	}
	if a.Own && !a.Named {
		out.Bridge = "" // the other host's own will do
	}
	for _, p := range a.Publish {
		one := &imagepb.PublishedPort{Protocol: p.Protocol, HostPort: uint32(p.HostPort), ContainerPort: uint32(p.Port)}
		if p.HostIP.IsValid() {
			one.HostAddress = p.HostIP.String()
		}
		out.Ports = append(out.Ports, one)
	}
	return out
}

// ConfigFrom asks for an attachment like a saved one.
func ConfigFrom(a *imagepb.Attachment) (Config, error) {
	c := Config{Mode: Mode(a.Mode), Bridge: a.Bridge, Foreign: a.Bridge != "" && !a.OwnBridge}
	var err error
	if a.Address != "" {
		if c.Address, err = netip.ParsePrefix(a.Address); err != nil {
			return c, fmt.Errorf("saved attachment: %w", err)
		}
	}
	if err := c.MAC.UnmarshalText([]byte(a.Mac)); err != nil {
		return c, fmt.Errorf("saved attachment: %w", err)
	}
	for _, p := range a.Ports {
		port := Port{Protocol: p.Protocol, HostPort: uint16(p.HostPort), Port: uint16(p.ContainerPort)}
		if p.HostAddress != "" {
			if port.HostIP, err = netip.ParseAddr(p.HostAddress); err != nil {
				return c, fmt.Errorf("saved attachment: %w", err)
			}
		}
		c.Publish = append(c.Publish, port)
	}
	return c, c.Validate()
}
