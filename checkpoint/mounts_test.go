package checkpoint

import (
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"

	"crucible/proto/imagepb"
)

// Each mount says where a restore takes it from: a volume and what is mounted
// below it by their paths on the host, and all that the bundle names by its place
// there.
func TestClassify(t *testing.T) {
	const info = `1 0 0:1 / / rw - overlay overlay rw
2 1 0:2 / /proc rw - proc proc rw
3 1 0:3 / /dev rw - tmpfs tmpfs rw
4 1 8:1 /srv/data /vol rw master:7 - ext4 /dev/sda rw
5 4 8:2 / /vol/sub rw - ext4 /dev/sdb rw
6 1 0:4 / /mnt/own rw shared:3 - tmpfs none rw
7 1 0:3 /null /proc/keys rw - tmpfs tmpfs rw
`
	infos, err := mountinfo.GetMountsFromReader(strings.NewReader(info), nil)
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{
		Linux: &specs.Linux{MaskedPaths: []string{"/proc/keys"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/vol", Type: "bind", Source: "/srv/data", Options: []string{"rbind"}},
		},
	}
	out, err := classify(infos, spec, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		origin imagepb.MountOrigin
		path   string
		index  uint32 // in the bundle, plus one; it does not name /dev
	}{
		{imagepb.MountOrigin_MOUNT_ORIGIN_MADE_BY_US, "", 0},
		{imagepb.MountOrigin_MOUNT_ORIGIN_IN_IMAGE, "", 0},
		{imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL, "", 0},
		{imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL, "/srv/data", 2},
		{imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL, "/srv/data/sub", 2},
		{imagepb.MountOrigin_MOUNT_ORIGIN_IN_IMAGE, "", 0},
		{imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL, maskFile, 0},
	} {
		m := out.Mounts[i]
		if m.Origin != want.origin || m.HostPath != want.path || m.BundleIndex != want.index {
			t.Errorf("%s: %v from %q, mount %d of the bundle; want %+v", m.Point, m.Origin, m.HostPath, m.BundleIndex, want)
		}
	}
	if got := out.Mounts[3].Propagation; len(got) != 1 || got[0] != "master:7" {
		t.Errorf("propagation of /vol: %v", got)
	}
}
