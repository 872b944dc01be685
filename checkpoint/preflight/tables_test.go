package preflight

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/proc"
)

func TestKinds(t *testing.T) {
	check := func(what string, f Finding, none bool, want string) {
		t.Helper()
		if none != (want == "") || f.Kind != want || !none && f.What == "" {
			t.Errorf("%s: %+v, %t", what, f, none)
		}
	}
	for name, want := range map[string]string{
		"[eventfd]": "", "[eventpoll]": "", "inotify": "", "[signalfd]": "", "[timerfd]": "", "[fanotify]": "", "[pidfd]": "",
		"[io_uring]": "io-uring", "[userfaultfd]": "userfaultfd", "[perf_event]": "perf", "seccomp notify": "seccomp-notify",
		"bpf-prog": "bpf", "bpf_link": "bpf", "btf": "bpf", "bpf-map": "bpf", "kvm-vm": "kvm", "[fscontext]": "anon-inode", "[landlock-ruleset]": "landlock",
	} {
		f, none := anonymousKind(name)
		check(name, f, none, want)
		if f.Blocks != (want != "" && name != "bpf-map") {
			t.Errorf("%s: blocks %t", name, f.Blocks)
		}
	}
	for name, want := range map[string]string{
		"TCP": "", "TCPv6": "", "UDPLITEv6": "", "RAW": "", "PING": "", "UNIX": "", "UNIX-STREAM": "", "NETLINK": "", "PACKET": "",
		"MPTCP": "mptcp", "MPTCPv6": "mptcp", "AF_VSOCK": "vsock", "SCTP": "socket-protocol", "ALG": "socket-family", "XDP": "socket-family", "TIPC": "socket-family",
	} {
		f, none := socketKind(name)
		check(name, f, none, want)
	}
	for rdev, want := range map[uint64]string{
		unix.Mkdev(1, 3): "", unix.Mkdev(1, 11): "", unix.Mkdev(5, 0): "", unix.Mkdev(5, 2): "", unix.Mkdev(136, 70000): "", unix.Mkdev(4, 1): "", unix.Mkdev(10, 235): "",
		unix.Mkdev(10, 200): "tun", unix.Mkdev(10, 229): "device", unix.Mkdev(10, 232): "device", unix.Mkdev(226, 0): "device", unix.Mkdev(4, 64): "device", unix.Mkdev(5, 3): "device",
	} {
		f, none := deviceKind(rdev)
		check(itoa(int(rdev)), f, none, want)
	}
	for magic, want := range map[int64]string{mqueueMagic: "mqueue", secretmemMagic: "secretmem", unix.EXT4_SUPER_MAGIC: "file-outside"} {
		check(want, strayKind(magic), false, want)
	}
}

const mountText = `50 20 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/,upperdir=/u,workdir=/w
51 50 0:51 / /dev rw - tmpfs tmpfs rw
52 51 0:52 / /dev/pts rw - devpts devpts rw
53 50 0:53 / /proc rw - proc proc rw
54 53 0:53 /sys /proc/sys ro - proc proc rw
55 50 8:1 /srv/data /data rw master:7 - ext4 /dev/sda1 rw
56 50 8:1 /srv/data/x /also rw - ext4 /dev/sda1 rw
57 50 0:57 / /mnt/fuse rw - fuse.sshfs host: rw
58 50 0:58 / /mnt/over rw - overlay x rw,lowerdir=/a,upperdir=/b,workdir=/c
59 50 8:2 / /mnt/disk rw - xfs /dev/sdb rw
60 50 8:3 /sub /mnt/sub rw - ext4 /dev/sdc rw
61 50 0:61 / /mnt/slave rw master:9 - tmpfs x rw
62 50 0:62 / /mnt/peer rw shared:11 - tmpfs x rw
63 50 0:63 / /mnt/ours rw master:11 - tmpfs x rw
64 50 0:64 / /tmp rw - tmpfs x rw
65 64 0:65 / /tmp rw - tmpfs x rw
66 50 0:66 / /run/a/b rw - tmpfs x rw
67 50 0:67 / /run/a rw - tmpfs x rw
68 66 0:68 / /run/a/b/c rw - tmpfs x rw
69 50 0:50 /etc /mnt/etc rw - overlay overlay rw
`

func mountsOf(t *testing.T, external ...string) *mountTable {
	infos, err := parseMountInfo(strings.NewReader(mountText))
	must(t, err)
	return newMountTable(infos, external)
}

func TestMounts(t *testing.T) {
	table := mountsOf(t, "/dev", "/data")
	got := map[string]string{}
	for _, f := range table.judge() {
		got[f.Path] = f.Kind
		if !f.Blocks || f.FD != -1 || f.What == "" || f.Remedy == "" {
			t.Errorf("%+v", f)
		}
	}
	want := map[string]string{
		"/mnt/fuse": "mount-fuse", "/mnt/over": "overlay", "/mnt/disk": "mount-fs", "/mnt/sub": "mount-root", "/mnt/slave": "mount-sharing",
	}
	for path, kind := range want {
		if got[path] != kind {
			t.Errorf("%s: %q, is to be %q", path, got[path], kind)
		}
		delete(got, path)
	}
	if len(got) > 0 {
		t.Errorf("found too: %v", got)
	}
	if kind := mountsOf(t, "/dev").judge()[0].Kind; kind != "mount-root" {
		t.Errorf("a volume that is not external: %s", kind)
	}
	infos, err := parseMountInfo(strings.NewReader("70 20 8:5 /box / rw - ext4 /dev/sdd rw\n71 70 8:5 /box/etc /mnt rw - ext4 /dev/sdd rw\n"))
	must(t, err)
	if all := newMountTable(infos, nil).judge(); len(all) > 0 {
		t.Errorf("a bind of a root that is a bind itself: %+v", all)
	}
	for id, want := range map[int]bool{50: false, 51: false, 52: false, 64: true, 65: false, 66: true, 67: false, 68: true, 54: false, 1: false} {
		if got := table.isCovered(id); got != want || table.isCovered(id) != want {
			t.Errorf("mount %d is covered: %t", id, got)
		}
	}
	if !table.has(0) || !table.has(69) || table.has(1) || !table.onOverlay(69) || table.onOverlay(1) {
		t.Error("has or onOverlay")
	}
}

// What no machine of ours can show.
func TestJudge(t *testing.T) {
	p := &process{pid: 7, status: proc.Status{Name: "x", State: "D", NSPID: []int{7, 1}, NSSID: []int{7, 1}, CPUs: "0-1"}}
	l := &look{s: Subject{Init: 7, Pids: []int{7}, UserNS: true}, r: newReader(), init: p, procs: []*process{p}, byPid: map[int]*process{7: p},
		stranger: map[int]bool{}, mounts: mountsOf(t), shmem: func() uint64 { return 99 }}
	l.judgeProcesses()
	for _, d := range []descriptor{
		{fd: -1, role: "map", link: "[uprobes]"},
		{fd: -1, role: "map", link: "anon_inode:[something]"},
		{fd: -1, role: "map", link: "/dev/mem", inode: inode{mode: unix.S_IFCHR, rdev: unix.Mkdev(1, 1), mount: 50}},
		{fd: -1, role: "map", link: "/dev/zero", inode: inode{mode: unix.S_IFCHR, rdev: unix.Mkdev(1, 5), mount: 50}},
		{fd: -1, role: "map", link: "/dmabuf:", inode: inode{mount: 5}},
		{fd: -1, role: "map", link: "socket:[1]", inode: inode{ino: 1}},
		{fd: -1, role: "map", link: "/SYSV00000000 (deleted)", inode: inode{mode: unix.S_IFREG, dev: 99, mount: 5}},
		{fd: 8, link: "/dev/sda", inode: inode{mode: unix.S_IFBLK, mount: 50}},
		{fd: 9, link: "/huge (deleted)", inode: inode{mode: unix.S_IFREG, mount: 50, blocks: 1 << 24}},
	} {
		l.judgeFiles(&process{pid: 7, files: []descriptor{d}})
	}
	var kinds []string
	for _, h := range l.hits {
		kinds = append(kinds, h.Kind)
	}
	want := []string{"uninterruptible", "uprobes", "mapping", "mapping", "descriptor", "descriptor", "ghost-limit"}
	if !slices.Equal(kinds, want) {
		t.Errorf("%q", kinds)
	}
	l.hits = nil
	l.noteSocket(p, &descriptor{fd: 3, proto: "TCP", inode: inode{ino: 5}})
	if len(l.sockets.tcp) != 1 || len(l.hits) != 0 {
		t.Errorf("%+v", l.sockets)
	}
}

func TestRoomFor(t *testing.T) {
	for size, want := range map[uint64]uint32{600 << 10: 2 << 20, 1 << 20: 4 << 20, 3 << 20: 8 << 20, 3 << 30: math.MaxUint32, math.MaxUint32: math.MaxUint32} {
		if got := roomFor(size); got != want || uint64(got) < size {
			t.Errorf("roomFor(%d) = %d, is to be %d", size, got, want)
		}
	}
}

func TestText(t *testing.T) {
	f := Finding{Kind: "mptcp", Blocks: true, Pid: 12, Command: "web", FD: 3, Path: "socket:[5]", What: "CRIU cannot save it", Remedy: "close it"}
	if s := f.String(); s != "pid 12 (web) descriptor 3: socket:[5]: CRIU cannot save it: close it" {
		t.Error(s)
	}
	if s := (Finding{FD: -1, Path: "/mnt", What: "it is so"}).String(); s != "/mnt: it is so" {
		t.Error(s)
	}
	data, err := json.Marshal(f)
	must(t, err)
	if s := string(data); s != `{"kind":"mptcp","blocks":true,"pid":12,"command":"web","fd":3,"path":"socket:[5]","what":"CRIU cannot save it","remedy":"close it"}` {
		t.Error(s)
	}
	var target *Error
	err = error(&Error{Findings: []Finding{f, f, f}})
	if !errors.As(err, &target) || err.Error() != "preflight: pid 12 (web) descriptor 3: socket:[5]: CRIU cannot save it (and 2 more)" {
		t.Error(err)
	}
	if s := (&Error{Findings: []Finding{f}}).Error(); strings.Contains(s, "more") {
		t.Error(s)
	}
}
