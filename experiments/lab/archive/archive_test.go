package archive

import (
	"context"
	"os"
	"testing"

	"crucible/experiments/lab/kernel"
)

func TestTry(t *testing.T) {
	a, err := Open(os.Getenv("TRY"))
	if err != nil {
		t.Fatal(err)
	}
	a.Progress = func(s string) { t.Log(s) }
	for _, v := range []string{"6.1", "6.12", "7.3-rc7"} {
		k, err := a.Kernel(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		i, err := kernel.Open(k.Image)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v %+v", k, i)
		m, err := kernel.OpenModules(k.Modules, i.Release)
		if err != nil {
			t.Fatal(err)
		}
		l, absent, err := m.Load([]string{"unix_diag", "inet_diag", "tcp-diag", "udp_diag", "raw_diag", "af_packet_diag", "netlink_diag", "veth", "bridge", "tun", "overlay", "nf_tables", "nft_*", "x_tables", "virtio_pci", "virtio_blk"})
		var names []string
		for _, x := range l {
			names = append(names, x.Name)
		}
		t.Log(names, absent, err)
	}
}

func TestTryCRIU(t *testing.T) {
	a, err := Open(os.Getenv("TRY"))
	if err != nil {
		t.Fatal(err)
	}
	a.Progress = func(s string) { t.Log(s) }
	for _, v := range []string{"3.17.1", "4.1.1", "4.2.1", "4.3"} {
		c, err := a.CRIU(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", c)
	}
}
