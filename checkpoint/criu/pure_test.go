package criu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v6/rpc"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]Version{
		"Version: 4.2.1\n":              {4, 2, 1},
		"Version: 3.17.1\nGitID: v3.17": {3, 17, 1},
		"4.3":                           {4, 3, 0},
		"Version: 4.1-12-gabcdef":       {4, 1, 0},
	} {
		if got, err := parseVersion(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "four", "4", "4.x", "1.2.3.4.5", "-1.2"} {
		if got, err := parseVersion(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	older := []Version{{3, 17, 1}, {4, 1, 1}, {4, 2, 0}, {4, 2, 1}, {4, 3, 0}}
	for i := range older[1:] {
		if !older[i].Less(older[i+1]) || older[i+1].Less(older[i]) {
			t.Errorf("%v and %v", older[i], older[i+1])
		}
	}
	if s := (Version{4, 3, 0}).String() + " " + (Version{4, 2, 1}).String(); s != "4.3 4.2.1" {
		t.Error(s)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "criu")
	fatal(t, os.WriteFile(path, []byte("#!/bin/sh\necho Version: 4.0.1\n"), 0o755))
	t.Setenv(Env, "")
	if c, err := Find(path); err != nil || c.Path != path {
		t.Errorf("explicit: %v %v", c, err)
	}
	t.Setenv(Env, path)
	c, err := Find("")
	if err != nil || c.Path != path {
		t.Errorf("environment: %v %v", c, err)
	}
	var missing *NotFound
	if _, err := Find(filepath.Join(dir, "none")); !errors.As(err, &missing) || missing.Hint() == "" {
		t.Errorf("an explicit path that is not there: %v", err)
	}
	t.Setenv(Env, filepath.Join(dir, "none"))
	if _, err := Find(""); !errors.As(err, &missing) {
		t.Errorf("the environment's path is not there: %v", err)
	}
	if got := candidates(dir + ":relative::" + dir + ":/usr/sbin"); !cmp.Equal(got, []string{Prefix, path, "/usr/sbin/criu", "/usr/local/sbin/criu", "/sbin/criu"}) {
		t.Errorf("candidates: %v", got)
	}
	if v, err := c.Version(t.Context()); err != nil || v != (Version{4, 0, 1}) {
		t.Errorf("%v %v", v, err)
	}
	fatal(t, os.WriteFile(path, []byte("#!/bin/sh\necho what\n"), 0o755))
	var broken *NotWorking
	if _, err := c.Version(t.Context()); !errors.As(err, &broken) || broken.Hint() == "" {
		t.Errorf("%v", err)
	}
}

func TestConfigText(t *testing.T) {
	got, err := configText([]string{"ghost-fiemap", "file-validation=filesize", "cgroup-props=a#b"})
	if err != nil || got != "ghost-fiemap\nfile-validation=filesize\ncgroup-props=a#b\n" {
		t.Errorf("%q %v", got, err)
	}
	for _, bad := range []string{"", "=x", "--tcp-close", "# x", "a b", "a=b c", "a=b\nimages-dir=/", "images-dir=/x", "log-file=x", "images-d=/x",
		"track-mem", "no-track-mem", "track", "prev-images-dir=/x", "auto-dedup", "pre-dump-mode=read"} {
		if got, err := configText([]string{bad}); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

func TestDumpRequest(t *testing.T) {
	images := openDir(t, t.TempDir())
	work := openDir(t, t.TempDir())
	fd := func(f *os.File) *int32 { return proto.Int32(int32(f.Fd())) }
	plain := func() *rpc.CriuOpts {
		return &rpc.CriuOpts{ImagesDirFd: fd(images), Pid: proto.Int32(7), LogLevel: proto.Int32(3), LogFile: proto.String("criu.log"),
			NotifyScripts: proto.Bool(true), ManageCgroups: proto.Bool(false), ManageCgroupsMode: rpc.CriuCgMode_IGNORE.Enum()}
	}
	full := plain()
	proto.Merge(full, &rpc.CriuOpts{
		WorkDirFd: fd(work), LogLevel: proto.Int32(4), LogFile: proto.String("dump.log"), LeaveRunning: proto.Bool(true),
		FreezeCgroup: proto.String("/cg"), External: []string{"mnt[/dev]:dev"}, NetworkLock: rpc.CriuNetworkLockMethod(3).Enum(),
		TrackMem: proto.Bool(true), ParentImg: proto.String("../1"),
		GhostLimit: proto.Uint32(5), Timeout: proto.Uint32(2), IrmapScanPaths: []string{"/i"},
		TcpEstablished: proto.Bool(true), TcpClose: proto.Bool(true), TcpSkipInFlight: proto.Bool(true), FileLocks: proto.Bool(true), ShellJob: proto.Bool(true),
		ExtUnixSk: proto.Bool(true), LinkRemap: proto.Bool(true), LazyPages: proto.Bool(true), OrphanPtsMaster: proto.Bool(true),
	})
	for _, x := range []struct {
		name   string
		in     DumpOptions
		want   *rpc.CriuOpts
		config string
	}{
		{"the least", DumpOptions{Common: Common{Images: images}, Pid: 7}, plain(), ""},
		{"everything", DumpOptions{Pid: 7, LeaveRunning: true, FreezeCgroup: "/cg", TrackMemory: true, Parent: "../1", GhostLimit: 5, Timeout: 1100 * time.Millisecond,
			Common: Common{Images: images, Work: work, logLevel: 4, LogFile: "dump.log", External: []string{"mnt[/dev]:dev"}, NetworkLock: LockSkip,
				TCPEstablished: true, TCPClose: true, SkipInFlight: true, FileLocks: true, ShellJob: true, ExtUnixSockets: true, LinkRemap: true,
				LazyPages: true, OrphanPTSMaster: true, IrmapScanPaths: []string{"/i"}, Extra: []string{"ghost-fiemap"}}}, full, "ghost-fiemap\n"},
	} {
		got, config, err := x.in.request()
		if err != nil || config != x.config {
			t.Errorf("%s: config %q, %v", x.name, config, err)
		}
		if d := cmp.Diff(x.want, got, protocmp.Transform()); d != "" {
			t.Errorf("%s:\n%s", x.name, d)
		}
	}
	for name, bad := range map[string]DumpOptions{
		"no images":     {Pid: 7},
		"no pid":        {Common: Common{Images: images}},
		"extra options": {Common: Common{Images: images, Extra: []string{"a b"}}, Pid: 7},
	} {
		if _, _, err := bad.request(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRestoreRequest(t *testing.T) {
	images := openDir(t, t.TempDir())
	o := RestoreOptions{Common: Common{Images: images}, Root: "/r", Sibling: true}
	got, _, err := o.request()
	fatal(t, err)
	want := &rpc.CriuOpts{ImagesDirFd: proto.Int32(int32(images.Fd())), LogLevel: proto.Int32(3), LogFile: proto.String("criu.log"), NotifyScripts: proto.Bool(true),
		ManageCgroups: proto.Bool(false), ManageCgroupsMode: rpc.CriuCgMode_IGNORE.Enum(), Root: proto.String("/r"), RstSibling: proto.Bool(true)}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

func TestFeatures(t *testing.T) {
	names := featureNames("x\n  --feature FEAT        only check a particular feature, one of:\n          mnt_id, tun,\n     uffd-noncoop\n\n* Logging:\n  -o x")
	if !cmp.Equal(names, []string{"mnt_id", "tun", "uffd-noncoop"}) {
		t.Errorf("%v", names)
	}
	path := filepath.Join(t.TempDir(), "criu")
	script := `#!/bin/sh
case "$*" in
*--help) echo "  only check a particular feature, one of:"; echo "    a, b, c, d"; echo "* Logging"; exit 1;;
*"--feature a") echo "a is supported";;
*"--feature b") echo "Warn  (criu/cr-check.c:1): no b here"; exit 1;;
*"--feature c") echo "Error (criu/cr-check.c:1): Unknown feature c"; exit 1;;
*"--feature d") echo "Error (criu/vdso.c:1): vdso: Unexpected rt vDSO area bounds"; echo "Error (criu/crtools.c:1): Could not initialize kernel features detection."; exit 1;;
*check*) echo "Error (criu/vdso.c:1): vdso: Unexpected rt vDSO area bounds"; exit 1;;
esac
`
	fatal(t, os.WriteFile(path, []byte(script), 0o755))
	c := &CRIU{Path: path}
	rows, err := c.Features(t.Context())
	fatal(t, err)
	want := []Row{{"a", Have, ""}, {"b", HaveNot, "no b here"}, {"c", Unknown, "this CRIU does not know the feature"}, {"d", Unknown, "vdso: Unexpected rt vDSO area bounds"}}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
	var broken *NotWorking
	if err := c.Check(t.Context()); !errors.As(err, &broken) || !strings.Contains(broken.Hint(), "scripts/setup") || !strings.Contains(err.Error(), "vDSO") {
		t.Errorf("%v", err)
	}
}

func TestRealFeatures(t *testing.T) {
	c := theCRIU(t)
	rows, err := c.Features(t.Context())
	fatal(t, err)
	have := 0
	for _, r := range rows {
		if r.State == Have {
			have++
		}
		if r.State == Unknown {
			t.Errorf("%+v", r)
		}
	}
	if len(rows) < 20 || have < 10 {
		t.Errorf("%d of %d", have, len(rows))
	}
}

// Which lock works is found out by trying, where CRIU takes the name at all.
func TestLocks(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		fatal(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755))
		return path
	}
	c := &CRIU{Path: script("criu", `case "$*" in
*"--network-lock skip"*) echo "Error (criu/config.c:1): Invalid value for --network-lock: skip"; exit 1;;
*"--feature network_lock_nftables") exit 1;;
esac
`)}
	t.Setenv("PATH", t.TempDir())
	want := []Row{{"nftables", HaveNot, "the kernel has no nf_tables, or this CRIU was built without"},
		{"iptables", HaveNot, "no iptables-restore in $PATH"}, {"skip", HaveNot, "this CRIU does not know it"}}
	if d := cmp.Diff(want, c.Locks(t.Context())); d != "" {
		t.Error(d)
	}
	if os.Geteuid() != 0 {
		return // no network namespace to try iptables in
	}
	t.Setenv("PATH", dir)
	script("iptables-restore", "echo 'iptables-restore: unable to initialize'; exit 3\n")
	if got, want := c.Locks(t.Context())[1], (Row{"iptables", HaveNot, "iptables-restore: unable to initialize"}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	script("iptables-restore", "exit 0\n")
	if got, want := c.Locks(t.Context())[1], (Row{"iptables", Have, ""}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSuffices(t *testing.T) {
	for v, want := range map[Version]bool{{3, 17, 1}: false, {3, 18, 0}: false, {3, 19, 0}: true, {4, 0, 0}: true} {
		err := v.Suffices()
		var old *TooOld
		if (err == nil) != want || err != nil && (!errors.As(err, &old) || old.Hint() == "" || !strings.Contains(err.Error(), v.String())) {
			t.Errorf("%s: %v", v, err)
		}
	}
}
