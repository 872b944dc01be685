package main

import (
	"cmp"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"crucible/images"
	"crucible/proto/imagepb"
)

func newImageMountsCommand(a *app) *cobra.Command {
	return a.viewed(&cobra.Command{
		Use:   "mounts [flags] NAME[@N]",
		Short: "List the mounts in an image, and who brings each back",
		Long: `List the mounts in an image, and who brings each back at a restore: "made by us" is
the root, which crucible makes again, "in image" means CRIU, and "external" that crucible
mounts it before CRIU begins: what FROM names on the host, or a filesystem in memory
with the files that the image has of it.

Exit status: 0 success, 3 no such image, 6 the image cannot be read.`,
		Example: "  crucible image mounts web",
	}, func(i *images.Image) error {
		var m imagepb.Mounts
		if err := getRecord(i, images.Mounts, &m); err != nil {
			return err
		}
		spec, _, err := i.Spec()
		if err != nil {
			return err
		}
		return a.print(a.json, plain(&m)["mounts"], func() error {
			t := table{{"POINT", "TYPE", "ORIGIN", "OPTIONS", "FROM"}}
			for _, m := range m.Mounts {
				origin := strings.ReplaceAll(fmt.Sprint(enumWord(m.Origin.Descriptor(), m.Origin.Number())), "_", " ")
				options := strings.Join(append(append([]string{}, m.Options...), m.Propagation...), ",")
				t.add(m.Point, m.Type, origin, options, mountedFrom(m, spec))
			}
			return a.printTable(t)
		})
	})
}

// mountedFrom is what is mounted: a path of the host, if the container's
// configuration names one.
func mountedFrom(m *imagepb.Mount, spec *specs.Spec) string {
	from := cmp.Or(m.HostPath, m.Source)
	if m.Origin != imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL || m.HostPath != "" {
		return from
	}
	for _, b := range spec.Mounts {
		if path.Clean(b.Destination) == m.Point {
			from = cmp.Or(b.Source, m.Source)
		}
	}
	return from
}
