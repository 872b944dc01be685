package criu

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// moreDumpProvocations are those that came later. Where there are several of one
// kind, each is another wording of CRIU's.
func moreDumpProvocations() []provocation {
	extra := func(option string) func(*testing.T, *DumpOptions) {
		return func(_ *testing.T, o *DumpOptions) { o.Extra = []string{option} }
	}
	return []provocation{
		{kind: "seccomp-notify", hold: "seccomp-notify"},
		{kind: "bpf", hold: "bpf"},
		{kind: "anon-inode", hold: "landlock"},
		{kind: "device", hold: "device"},
		{kind: "socket-family", hold: "xdp"},
		{kind: "unix-in-flight", hold: "in-flight-data"},
		{kind: "netlink-data", hold: "netlink-data"},
		{kind: "inotify", hold: "inotify-proc"},
		{kind: "sigtrap", hold: "sigtrap"},
		{kind: "timeout", hold: "vfork", after: awaitChild, options: func(_ *testing.T, o *DumpOptions) { o.Timeout = time.Second }},
		{kind: "task-gone", hold: "file", options: func(_ *testing.T, o *DumpOptions) { o.Pid = 4194303 }},
		{kind: "option-argument", detail: "missing", hold: "file", options: extra("ghost-limit")},
		{kind: "option-argument", detail: "ambiguous", hold: "file", options: extra("tcp")},
		{kind: "option-argument", detail: "lsm", hold: "file", options: extra("lsm-profile=nonsense")},
		{kind: "read-only", hold: "file", options: func(t *testing.T, o *DumpOptions) { o.Images = readOnlyDir(t) }},
		{kind: "unix-external", detail: "no-name", hold: "inherited", change: outsideDatagrams, options: func(_ *testing.T, o *DumpOptions) { o.ExtUnixSockets = true }},
		{kind: "tty-outside", detail: "slave", hold: "inherited", change: outsideSlave},
		{kind: "mount-task-root", hold: "chroot", box: true},
		{kind: "mount-fs", hold: "ramfs", box: true},
		{kind: "file-overmounted", hold: "overmounted", box: true},
		{kind: "file-unreachable", hold: "bound-over", box: true},
		{kind: "link", hold: "link-unknown", box: true},
		{kind: "namespace-init", hold: "child", box: true, child: true, options: func(_ *testing.T, o *DumpOptions) { o.ShellJob = true }},
	}
}

func awaitChild(w *workload) {
	for end := time.Now().Add(patience); len(children(w.pid)) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatal("no child")
		}
	}
}

func readOnlyDir(t *testing.T) *os.File {
	dir := t.TempDir()
	fatal(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	fatal(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	return openDir(t, dir)
}

func outsideDatagrams(t *testing.T, cmd *exec.Cmd) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	fatal(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
}

func outsideSlave(t *testing.T, cmd *exec.Cmd) {
	master, slave := openPty(t)
	cmd.ExtraFiles = append(cmd.ExtraFiles, slave)
	t.Cleanup(func() { master.Close(); slave.Close() })
}

type spoiler = func(t *testing.T, w *workload, images string)

func remove(pattern string) spoiler {
	return func(t *testing.T, _ *workload, images string) {
		names, _ := filepath.Glob(filepath.Join(images, pattern))
		if len(names) == 0 {
			t.Fatalf("no %s", pattern)
		}
		for _, name := range names {
			fatal(t, os.Remove(name))
		}
	}
}

// shorten cuts files to a size, or by it if it is negative.
func shorten(pattern string, size int64) spoiler {
	return func(t *testing.T, _ *workload, images string) {
		names, _ := filepath.Glob(filepath.Join(images, pattern))
		for _, name := range names {
			info, err := os.Stat(name)
			fatal(t, err)
			to := size
			if to < 0 {
				to += info.Size()
			}
			fatal(t, os.Truncate(name, to))
		}
	}
}

// replace puts other bytes in the place of the first that are so.
func replace(pattern string, from, to []byte) spoiler {
	return func(t *testing.T, _ *workload, images string) {
		names, _ := filepath.Glob(filepath.Join(images, pattern))
		for _, name := range names {
			data, err := os.ReadFile(name)
			fatal(t, err)
			at := bytes.Index(data, from)
			if at < 0 {
				t.Fatalf("%s has no %x", name, from)
			}
			copy(data[at:], to)
			fatal(t, os.WriteFile(name, data, 0o644))
		}
	}
}

func moreRestoreProvocations() []restoreProvocation {
	file := func(w *workload) string { return filepath.Join(w.Dir, "file") }
	inRoot := func(path string) spoiler {
		return func(t *testing.T, w *workload, _ string) { fatal(t, os.RemoveAll(filepath.Join(w.root, path))) }
	}
	external := func(o *DumpOptions) { o.External = []string{"mnt[/tmp/t]:work"} }
	return []restoreProvocation{
		{kind: "file-changed", detail: "mode", hold: "file", spoil: func(t *testing.T, w *workload, _ string) { fatal(t, os.Chmod(file(w), 0o600)) }},
		{kind: "file-changed", detail: "build-id", hold: "program", spoil: otherBuild},
		{kind: "file-open", hold: "file", spoil: func(t *testing.T, w *workload, _ string) {
			fatal(t, os.Remove(file(w)))
			fatal(t, os.Mkdir(file(w), 0o700))
		}},
		{kind: "image-version", hold: "file", spoil: replace("inventory.img", []byte{0x08, 2}, []byte{0x08, 9})}, // field 1: img_version
		{kind: "image-damaged", detail: "no-core", hold: "file", spoil: remove("core-*.img")},
		{kind: "image-damaged", detail: "short-head", hold: "file", spoil: shorten("core-*.img", 6)},
		{kind: "image-damaged", detail: "short", hold: "file", spoil: shorten("core-*.img", 40)},
		{kind: "image-damaged", detail: "garbage", hold: "file", spoil: func(t *testing.T, _ *workload, images string) { damage(t, images, "core-*.img", 30) }},
		{kind: "image-damaged", detail: "no-pages", hold: "file", spoil: remove("pages-*.img")},
		{kind: "image-damaged", detail: "no-files", hold: "file", spoil: remove("files.img")},
		{kind: "image-damaged", detail: "no-ids", hold: "file", spoil: remove("ids-*.img")},
		{kind: "image-damaged", detail: "no-mounts", hold: "file", box: true, spoil: remove("mountpoints-*.img")},
		// Field 4, flags: in the parent's images, which there are not.
		{kind: "image-damaged", detail: "no-parent", hold: "file", spoil: replace("pagemap-*.img", []byte{0x20, 4}, []byte{0x20, 1})},
		{kind: "inotify", hold: "inotify", spoil: func(t *testing.T, w *workload, _ string) { fatal(t, os.RemoveAll(filepath.Join(w.Dir, "watched"))) }},
		{kind: "link-remap", hold: "link", dump: func(o *DumpOptions) { o.LinkRemap = true }, spoil: func(t *testing.T, w *workload, _ string) {
			remove("link_remap*")(t, w, w.Dir)
		}},
		{kind: "tty-outside", hold: "inherited", start: outsideTerminal, dump: func(o *DumpOptions) { o.ShellJob = true }, change: func(o *RestoreOptions) { o.ShellJob = true }},
		{kind: "criu-bug", hold: "file", box: true, change: func(o *RestoreOptions) { o.Root = "" }},
		{kind: "mount-missing", hold: "file", box: true, spoil: inRoot("dev/pts")},
		{kind: "mount-source", detail: "root", hold: "file", box: true, change: func(o *RestoreOptions) { o.Root = "/nowhere" }},
		{kind: "mount-source", hold: "tmpfs", box: true, dump: external, change: func(o *RestoreOptions) { o.External = []string{"mnt[work]:/nowhere"} }},
		{kind: "mount-external", hold: "tmpfs", box: true, dump: external},
		{kind: "tmpfs", hold: "tmpfs", box: true, spoil: func(t *testing.T, _ *workload, images string) { damage(t, images, "tmpfs-*.tar.gz.img", 0) }},
		{kind: "overlay", hold: "overlay", box: true},
		{kind: "interface-missing", hold: "bind-device", box: true, inside: true},
		{kind: "namespace-net", hold: "file", box: true, dump: func(o *DumpOptions) {
			at := "/proc/" + strconv.Itoa(o.Pid) + "/ns/net"
			var st unix.Stat_t
			if unix.Stat(at, &st) == nil {
				o.External = []string{"net[" + strconv.FormatUint(st.Ino, 10) + "]:outer"}
			}
		}},
	}
}

// otherBuild makes the program look like one that was linked anew.
func otherBuild(t *testing.T, w *workload, _ string) {
	path := filepath.Join(w.Dir, "program")
	program, err := elf.Open(path)
	fatal(t, err)
	defer program.Close()
	note := program.Section(".note.gnu.build-id")
	if note == nil {
		t.Fatal("no build ID")
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	fatal(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("another"), int64(note.Offset)+16) // behind the note's head and name
	fatal(t, err)
}
