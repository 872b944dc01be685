package restore_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func ownerOf(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// survey describes each file below some directories of a container, as its
// processes see them.
func (b *box) survey(dirs ...string) map[string]string {
	b.t.Helper()
	out := map[string]string{}
	first := map[uint64]string{} // of a file with several names
	for _, dir := range dirs {
		top := b.path(dir)
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && path == top {
				out[dir] = "is not there"
				return nil
			}
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(path, b.path(""))
			out[name], err = describe(path, name, first)
			return err
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}

func describe(path, name string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	text := fmt.Sprintf("mode %o owner %d:%d changed %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" size %d blocks %d links %d content %x", st.Size, min(st.Blocks, 16), st.Nlink, sha256.Sum256(data))
		// An overlay shows two inodes for the names of a file of the host.
		if st.Nlink > 1 && !strings.HasPrefix(name, "/etc/") {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			text += " same as " + first[st.Ino]
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		text += " to " + target
	case unix.S_IFCHR, unix.S_IFBLK:
		text += fmt.Sprintf(" device %x", st.Rdev)
	}
	attributes, err := attributesOf(path)
	return text + attributes, err
}

func attributesOf(path string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "llistxattr", Path: path, Err: err}
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	sort.Strings(names)
	var out string
	for _, name := range names {
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", &os.PathError{Op: "lgetxattr " + name, Path: path, Err: err}
		}
		out += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return out, nil
}

// changes are what a container does to the root filesystem and the tmpfs mounts.
const changes = `set -e
mkdir -p /srv/crucible-test/deep/er; cd /srv/crucible-test
echo plain >plain; chmod 4751 plain; chown 12:34 plain
echo two >name1; ln name1 name2; ln name1 deep/er/name3
ln -s plain symlink; ln -s /nowhere/at/all dangling
mkfifo fifo; mkdir -m 1777 sticky; : >empty
head -c 300000 /dev/zero | tr '\0' x >large
dd if=/dev/zero of=sparse bs=1 count=1 seek=20000000 2>/dev/null
printf 'name with\nnewline' >"$(printf 'odd \n name \377')"
touch -d '2001-02-03 04:05:06.789012345' plain deep/er deep
rm /etc/debian_version                      # a file of the host
rm -r /etc/nginx; mkdir /etc/nginx; echo mine >/etc/nginx/nginx.conf   # a directory, made anew
echo more >>/etc/profile; chmod 600 /etc/profile                      # changed
mv /etc/issue /etc/issue.moved; ln /etc/issue.net /etc/issue.linked
rm -r /etc/redis; ln -s /srv /etc/redis     # a directory that becomes something else
mkdir -p /tmp/of/container; echo tmp >/tmp/of/container/file; ln /tmp/of/container/file /tmp/linked; chmod 700 /tmp/of
echo shm >/dev/shm/file; echo run >/run/file; mkfifo /run/fifo; chown 5:6 /run/fifo; ln -s /nowhere /tmp/dangling
echo scratch >/scratch/file
"$1" -c 'import os
os.setxattr("/srv/crucible-test/plain", "user.colour", b"bl\0ue")
os.setxattr("/srv/crucible-test/deep", "user.empty", b"")
os.setxattr("/srv/crucible-test/name1", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
os.setxattr("/srv/crucible-test/plain", "system.posix_acl_access", bytes.fromhex("0200000001000700ffffffff020005000c00000004000500ffffffff10000500ffffffff20000100ffffffff"))
open("/srv/crucible-test/done", "w")'
exec sleep 100000`

// testFiles: what a container changed comes back, in its root and in its tmpfs
// mounts; and the host's own files stay as they were.
func testFiles(t *testing.T, e *env, flags ...string) {
	program(t, "/usr/sbin/nginx")
	program(t, "redis-server")
	b := e.run(append(flags, "--tmpfs", "/scratch:size=1m"), "/bin/sh", "-c", changes, "sh", python(t))
	eventually(t, "changes", func() error {
		_, err := os.Stat(b.path("/srv/crucible-test/done"))
		return err
	})
	dirs := []string{"/srv", "/etc", "/tmp", "/run", "/dev/shm", "/scratch"}
	before := b.survey(dirs...)
	for _, gone := range []string{"/etc/debian_version", "/etc/issue", "/etc/nginx/mime.types"} {
		if before[gone] != "" {
			t.Fatalf("%s: %s", gone, before[gone])
		}
	}
	for range 2 { // the second image is made from a restored layer
		b.cycle()
		if d := cmp.Diff(before, b.survey(dirs...)); d != "" {
			t.Fatalf("(-before +after):\n%s", d)
		}
	}
	for _, host := range []string{"/etc/debian_version", "/etc/issue", "/etc/nginx/mime.types"} {
		if _, err := os.Stat(host); err != nil {
			t.Errorf("on the host: %v", err)
		}
	}
	if _, err := os.Stat("/srv/crucible-test"); err == nil {
		t.Error("/srv/crucible-test is on the host")
	}
}

// testVolumes: volumes are the host's, before and after, and what is open in
// them stays open. A file that was open for reading and has another size cannot
// be restored, and the error says which one it is; a log may grow.
func testVolumes(t *testing.T, e *env) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one", "one\ntwo\n")
	write("closed", "old")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := e.run([]string{"-v", dir + ":/volume", "-v", filepath.Join(dir, "one") + ":/etc/issue:ro", "-v", filepath.Join(dir, "sub") + ":/deep/er/sub"},
		python(t), "-c", ask(t)+`
log = open("/volume/log", "a")
one = open("/etc/issue")
one.readline()
def write(word):
    log.write(word + "\n"); log.flush()
    open("/deep/er/sub/last", "w").write(word)
    try: open("/etc/issue", "w"); refused = False
    except OSError: refused = True
    return [open("/volume/log").read().split(), one.read(), open("/volume/closed").read(), refused]
answer({"write": write})`)
	var got []any
	check := func(word string, want ...any) {
		t.Helper()
		b.ask("write "+word, &got)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("write %s (-want +got):\n%s", word, d)
		}
	}
	check("a", []any{"a"}, "two\n", "old", true)

	b.checkpoint()
	write("closed", "new and longer") // while the container is away
	write("log", "a\nhost\n")
	write("one", "one\ntwo\nthree\n")
	_, err := b.command(nil, "restore", b.name)
	if err == nil || !strings.Contains(err.Error(), "etc/issue") {
		t.Errorf("restore with a changed open file: %v", err)
	}
	b.mustBe("stopped")
	write("one", "one\ntwo\n")
	b.restore()

	check("b", []any{"a", "host", "b"}, "", "new and longer", true)
	last, err := os.ReadFile(filepath.Join(dir, "sub", "last"))
	if err != nil || string(last) != "b" {
		t.Errorf("last: %q, %v", last, err)
	}
}
