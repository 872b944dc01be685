package preflight

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crucible/checkpoint/criu"
	"crucible/container/testenv"
)

// What is said here must be true of the CRIU that is used: it refuses to dump
// what is said to block, and with what is said to be needed it dumps all else.
func TestCRIUAgrees(t *testing.T) {
	c := theCRIU(t)
	for name, thing := range things() {
		if thing.notDumped {
			continue
		}
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			b := startBox(t, name)
			r := b.inspect(Options{})
			blocking := ""
			for _, f := range r.Findings {
				if f.Blocks {
					blocking = f.String()
				}
			}
			err := b.dump(c, r.Needs)
			var refused *criu.Error
			switch {
			case blocking == "" && err != nil:
				t.Errorf("nothing is said to block, and CRIU says: %v", err)
			case blocking != "" && err == nil:
				t.Errorf("CRIU dumps it, although %s", blocking)
			case errors.As(err, &refused):
				t.Logf("CRIU: %v", err)
				t.Logf("here: %s", blocking)
			}
		})
	}
}

// dump dumps a box and leaves it running.
func (b *box) dump(c *criu.CRIU, need Options) error {
	b.t.Helper()
	images, err := os.Open(b.t.TempDir())
	must(b.t, err)
	defer images.Close()
	p, err := c.Start(b.t.Context(), criu.StartOptions{NetNS: b.net})
	must(b.t, err)
	defer p.Close()
	o := criu.DumpOptions{Pid: b.pid, LeaveRunning: true, GhostLimit: need.GhostLimit, Common: criu.Common{
		Images: images, NetworkLock: criu.LockSkip,
		TCPEstablished: need.TCPEstablished, SkipInFlight: need.SkipInFlight, FileLocks: need.FileLocks,
		ShellJob: need.ShellJob, ExtUnixSockets: need.ExtUnixSockets, LinkRemap: need.LinkRemap, IrmapScanPaths: need.IrmapPaths,
	}}
	for _, point := range external() {
		o.External = append(o.External, "mnt["+point+"]:"+filepath.Base(point))
	}
	_, err = p.Dump(b.t.Context(), o, func(criu.Event) error { return nil })
	return err
}

func theCRIU(t *testing.T) *criu.CRIU {
	t.Helper()
	testenv.Root(t)
	c, err := criu.Find("")
	if err != nil {
		testenv.Skip(t, "%v", err)
	}
	if err := c.Check(context.Background()); err != nil {
		testenv.Skip(t, "%v", err)
	}
	return c
}
