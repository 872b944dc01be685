package filesystem

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// disks are directories on the filesystems that matter.
func disks(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"disk": t.TempDir()}
	if shm, err := os.MkdirTemp("/dev/shm", "crucible-test-"); err == nil {
		t.Cleanup(func() { os.RemoveAll(shm) })
		all["tmpfs"] = shm
	}
	return all
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// zoo makes one of everything that can be in a container's filesystem.
func zoo(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		t.Helper()
		must(t, os.WriteFile(at(name), []byte(content), 0o644))
	}
	for _, d := range []string{"a", "a/b", "a/b/c", "empty", "sticky", "closed"} {
		must(t, os.Mkdir(at(d), 0o755))
	}
	write("a/file", "hello")
	write("a/empty", "")
	write("a/b/"+strings.Repeat("long", 60), "x")
	write("a/b/c/new\nline \xff\xfe=", "odd name")
	write("big", strings.Repeat("0123456789abcdef", 50_000))
	must(t, os.Link(at("big"), at("a/b/big-again")))
	must(t, os.Link(at("big"), at("zlast")))
	must(t, os.Symlink("../../outside\n", at("a/link")))
	must(t, os.Symlink(strings.Repeat("y", 3000), at("a/longlink")))
	must(t, os.Link(at("a/link"), at("a/link-again")))
	must(t, unix.Mkfifo(at("fifo"), 0o620))
	must(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o755, 0))
	must(t, os.Chmod(at("a/file"), 0o4751&0o777|fs.ModeSetuid))
	must(t, os.Chmod(at("sticky"), 0o777|fs.ModeSticky|fs.ModeSetgid))
	must(t, os.Chmod(at("a/empty"), 0))
	holes(t, at("sparse"), 1<<30, 5<<20, 700<<20)
	holes(t, at("hole"), 1<<30)
	holes(t, at("ends-with-data"), 10<<20, 0, 10<<20-100)
	userXattrs(t, dir)
	if os.Geteuid() == 0 {
		rootsZoo(t, dir)
	}
	must(t, os.Chmod(at("closed"), 0o500))
	times(t, dir)
}

// holes makes a file of which only a little has data.
func holes(t *testing.T, path string, size int64, data ...int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	for _, at := range data {
		_, err := f.WriteAt([]byte(strings.Repeat("data", 25)), at)
		must(t, err)
	}
	must(t, f.Truncate(size))
	must(t, f.Close())
}

// userXattrs: tmpfs has them from Linux 6.6 on only.
func userXattrs(t *testing.T, dir string) {
	t.Helper()
	for name, value := range map[string]string{"user.plain": "v", "user.nul": "a\x00b\n=", "user.empty": "", "user.a=b": "eq", "user.big": strings.Repeat("z", 1000)} {
		for _, file := range []string{"a/file", "a/b"} {
			if err := unix.Lsetxattr(filepath.Join(dir, file), name, []byte(value), 0); err != nil && err != unix.ENOTSUP {
				t.Fatalf("%s %s: %v", file, name, err)
			}
		}
	}
}

// rootsZoo is what only root can make.
func rootsZoo(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(at("acl"), 0o750))
	must(t, os.WriteFile(at("acl/child"), []byte("made before the default ACL"), 0o640))
	// linux/posix_acl_xattr.h: version 2; tag, permissions, id.
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\x2a\x00\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		if err := unix.Lsetxattr(at("acl"), name, []byte(acl), 0); err != nil && err != unix.ENOTSUP {
			t.Fatal(err)
		}
	}
	must(t, os.WriteFile(at("ping"), []byte("program"), 0o755))
	must(t, os.Chown(at("ping"), 1000, 1001))
	// linux/capability.h: struct vfs_cap_data, revision 2, CAP_NET_RAW.
	must(t, unix.Setxattr(at("ping"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, unix.Lsetxattr(at("a/link"), "trusted.on.a.link", []byte("1"), 0))
	must(t, unix.Lsetxattr(at("fifo"), "trusted.on.a.fifo", []byte("1"), 0))
	must(t, os.WriteFile(at("suid"), nil, 0o755))
	must(t, os.Chown(at("suid"), 12345, 2_000_000_000))
	must(t, os.Chmod(at("suid"), 0o755|fs.ModeSetuid|fs.ModeSetgid))
	must(t, os.Lchown(at("a/longlink"), 7, 8))
	must(t, os.Chown(at("socket"), 9, 10))
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(at("loop"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 300))))
	must(t, unix.Mknod(at("whiteout"), unix.S_IFCHR, 0))
	must(t, os.Link(at("whiteout"), at("whiteout2")))
}

// times gives everything a time of its own, also before 1970 and after 2038.
func times(t *testing.T, dir string) {
	t.Helper()
	n := int64(0)
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		m := unix.NsecToTimespec((1_000_000_000+n*100_000_000-1_200_000_000*(n%2))*1e9 + 123_456_789*(n%8))
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, m}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// describeTree says everything about a tree, a line for each file.
func describeTree(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		name, err := filepath.Rel(dir, path)
		must(t, err)
		line := fmt.Sprintf("%q mode=%o owner=%d:%d mtime=%d.%09d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if !e.IsDir() {
			line += fmt.Sprintf(" size=%d", st.Size)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK {
			line += fmt.Sprintf(" dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		} else if !e.IsDir() && st.Nlink > 1 {
			if inodes[st.Ino] == "" {
				inodes[st.Ino] = name
			}
			line += " same-as=" + inodes[st.Ino]
		}
		switch {
		case e.Type().IsRegular():
			line += content(t, path, st)
		case e.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			must(t, err)
			line += fmt.Sprintf(" to=%q", to)
		}
		lines = append(lines, line+attributes(t, path))
		return nil
	}))
	return lines
}

func content(t *testing.T, path string, st unix.Stat_t) string {
	t.Helper()
	if st.Mode&0o400 == 0 && os.Geteuid() != 0 {
		return " unreadable"
	}
	if st.Size >= 1<<30 {
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		parts, err := dataParts(int(f.Fd()), st.Size)
		must(t, err)
		line := fmt.Sprintf(" parts=%v", parts)
		for _, p := range parts {
			b := make([]byte, p.length)
			_, err := f.ReadAt(b, p.offset)
			must(t, err)
			line += fmt.Sprintf(" %q", strings.Trim(string(b), "\x00"))
		}
		return line
	}
	b, err := os.ReadFile(path)
	must(t, err)
	return fmt.Sprintf(" content=%q sparse=%v", b, st.Blocks*512 < st.Size)
}

func attributes(t *testing.T, path string) (line string) {
	t.Helper()
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil && err != unix.ENOTSUP && err != unix.EACCES {
		t.Fatal(err)
	}
	names := strings.FieldsFunc(string(list[:max(n, 0)]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	for _, name := range names {
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		line += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return line
}

func compareTrees(t *testing.T, got, want string) {
	t.Helper()
	a, b := describeTree(t, got), describeTree(t, want)
	for i := 0; i < max(len(a), len(b)); i++ {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			t.Errorf("loaded %.400s\n want %.400s", x, y)
		}
	}
}
