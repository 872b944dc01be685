package diff

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"crucible/images"
	"crucible/proto/imagepb"
)

// mounts compares where the filesystems are. Of two in one directory the later
// covers the earlier.
func (c *comparison) mounts(context.Context) error {
	list := func(i *images.Image) (things []thing, err error) {
		var all imagepb.Mounts
		if err := i.Get(images.Mounts, &all); err != nil {
			return nil, err
		}
		seen := map[string]int{}
		for _, m := range all.Mounts {
			what := m.Point
			if seen[m.Point]++; seen[m.Point] > 1 {
				what += " (" + strconv.Itoa(seen[m.Point]) + ")"
			}
			r := record{}
			r.set("type", m.Type)
			r.set("source", m.Source)
			r.set("directory", m.Root)
			r.set("options", strings.Join(m.Options, ","))
			r.set("filesystem options", strings.Join(slices.DeleteFunc(m.SuperOptions, ofHost), ","))
			r.set("propagation", propagation(m.Propagation))
			r.set("origin", strings.ToLower(strings.TrimPrefix(m.Origin.String(), "MOUNT_ORIGIN_")))
			r.set("host path", m.HostPath)
			things = append(things, thing{what, r})
		}
		return things, nil
	}
	return c.both(Mounts, list)
}

// ofHost: where an overlay keeps what is written to it, and what follows from that.
func ofHost(option string) bool {
	return strings.HasPrefix(option, "upperdir=") || strings.HasPrefix(option, "workdir=") || strings.HasPrefix(option, "uuid=")
}

// propagation is "shared" for "shared:12": a restore numbers the groups anew.
func propagation(fields []string) string {
	words := make([]string, 0, len(fields))
	for _, f := range fields {
		word, _, _ := strings.Cut(f, ":")
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// both compares what a function finds in the two images.
func (c *comparison) both(section Section, list func(*images.Image) ([]thing, error)) error {
	a, err := list(c.a)
	if err != nil {
		return err
	}
	b, err := list(c.b)
	if err != nil {
		return err
	}
	c.things(section, 0, a, b)
	return nil
}

// namespaces compares them by kind, and what is in them.
func (c *comparison) namespaces(context.Context) error {
	return c.both(Namespaces, func(i *images.Image) (things []thing, err error) {
		var all imagepb.Namespaces
		if err := i.Get(images.Namespaces, &all); err != nil {
			return nil, err
		}
		for _, n := range all.Namespaces {
			r, err := namespaceRecord(n)
			if err != nil {
				return nil, err
			}
			things = append(things, thing{strings.ToLower(strings.TrimPrefix(n.Kind.String(), "NAMESPACE_KIND_")), r})
		}
		return things, nil
	})
}

func namespaceRecord(n *imagepb.Namespace) (r record, err error) {
	switch {
	case n.GetUts() != nil:
		r, err = recordOf(n.GetUts())
	case n.GetUser() != nil:
		r, err = recordOf(n.GetUser())
	case n.GetCgroup() != nil:
		r, err = recordOf(n.GetCgroup(), "paths")
	case n.GetNetwork() != nil:
		// raw is text in another form; the rest is the host's end.
		r, err = recordOf(n.GetNetwork(), "*.raw", "*.text", "attachment.host_link", "attachment.own_bridge")
		// Of a time namespace all moves: see doc.go.
	}
	if n.Host {
		r.set("shared with the host", "yes")
	}
	return r, err
}

// configuration compares the two files config.json.
func (c *comparison) configuration(context.Context) error {
	return c.both(Configuration, func(i *images.Image) ([]thing, error) {
		_, text, err := i.Spec()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		r, err := parseRecord(bytes.TrimSpace(text))
		return []thing{{"config.json", r}}, err
	})
}
