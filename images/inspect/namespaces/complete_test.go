package namespaces

import (
	"os"
	"path/filepath"
	"testing"

	"crucible/images"
	"crucible/proto/imagepb"
)

func TestComplete(t *testing.T) {
	i, err := images.Store{Dir: "../../testdata/format-1"}.Open("tick@1")
	if err != nil {
		t.Fatal(err)
	}
	var n imagepb.Namespaces
	if err := i.Get(images.Namespaces, &n); err != nil {
		t.Fatal(err)
	}
	p := &imagepb.Processes{Processes: []*imagepb.Process{{Pid: 1}, {Pid: 7, Tasks: []*imagepb.Thread{{Tid: 7}, {Tid: 12}}}}}
	if err := Complete(i.CRIUDir(), &n, p); err != nil {
		t.Fatal(err)
	}
	for _, one := range n.Namespaces {
		switch {
		case one.GetPid() != nil && one.GetPid().Highest != 12:
			t.Errorf("pid: %v", one)
		case one.GetTime() != nil && (one.GetTime().MonotonicNs == 0 || one.GetTime().BoottimeNs < one.GetTime().MonotonicNs):
			t.Errorf("time: %v", one)
		case one.GetIpc() != nil:
			s := one.GetIpc().Sysctls
			if s["kernel/sem"] != "32000\t1024000000\t500\t32000" || s["fs/mqueue/msg_max"] != "10" || s["kernel/shmmni"] != "4096" || len(s) != 13 {
				t.Errorf("ipc: %v", s)
			}
		case one.Detail == nil && (one.Kind == imagepb.NamespaceKind_NAMESPACE_KIND_IPC || one.Kind == imagepb.NamespaceKind_NAMESPACE_KIND_PID):
			t.Errorf("nothing is said of %v", one)
		}
	}
	if err := Prepare(); err != nil {
		t.Error(err)
	}
}

func TestDamaged(t *testing.T) {
	for _, file := range []string{"timens-0.img", "ipcns-var-1.img", "ipcns-shm-1.img", "ipcns-sem-1.img", "ipcns-msg-1.img"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file), []byte("\x19\x43\x56\x54 garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		n := &imagepb.Namespaces{Namespaces: []*imagepb.Namespace{
			{Kind: imagepb.NamespaceKind_NAMESPACE_KIND_TIME, Detail: &imagepb.Namespace_Time{Time: &imagepb.TimeNamespace{}}},
			{Kind: imagepb.NamespaceKind_NAMESPACE_KIND_IPC},
		}}
		if err := Complete(dir, n, nil); err == nil {
			t.Errorf("%s was read", file)
		}
	}
}
