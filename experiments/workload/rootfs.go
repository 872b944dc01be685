package workload

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rootCases ask about what the engine keeps of files: the container's layer, its
// tmpfs mounts, and its volumes.
func rootCases() []Case {
	return []Case{
		{Name: "root-changes", Question: "Do files written, changed, deleted and renamed over the root filesystem come back so?", program: rootChanges},
		{Name: "root-opaque-directory", Question: "Does a directory that was deleted and made again hide what lies below it?", program: opaqueDirectory},
		{Name: "root-attributes", Question: "Do modes, owners, times, links, holes and extended attributes of files come back?", program: attributes("/srv")},
		{Name: "tmpfs", Question: "Do the files of a tmpfs come back?", define: func(d *definition) { d.Tmpfs = []string{"/scratch:size=4m"} }, program: attributes("/scratch")},
		{Name: "volume", Question: "Is a volume of the host still that volume, and a file in it still open?",
			define: func(d *definition) { d.Volumes = append(d.Volumes, "volume:/volume") }, program: volume, plot: volumePlot},
		{Name: "stdio", Question: "Does what a container writes after the restore follow what it wrote before?", program: stdio, plot: stdioPlot},
	}
}

// listing is a tree as far as a program can see it, but for change times.
func listing(dir string) (string, error) {
	out := ""
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		out += fmt.Sprintf("%s mode %o owner %d:%d links %d", path, st.Mode, st.Uid, st.Gid, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out += fmt.Sprintf(" size %d blocks %d time %d contents %q", st.Size, st.Blocks, st.Mtim.Nano(), head(data))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			out += " to " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			out += fmt.Sprintf(" device %#x", st.Rdev)
		}
		out += " " + xattrs(path) + "\n"
		return nil
	})
	return out, err
}

func head(b []byte) []byte { return b[:min(len(b), 40)] }

func xattrs(path string) string {
	b := make([]byte, 1024)
	n, err := unix.Llistxattr(path, b)
	if err != nil {
		return ""
	}
	out := ""
	for _, name := range strings.Split(strings.Trim(string(b[:n]), "\x00"), "\x00") {
		value := make([]byte, 256)
		if n, err := unix.Lgetxattr(path, name, value); err == nil {
			out += fmt.Sprintf("%s=%q", name, value[:n])
		}
	}
	return out
}

func rootChanges() (func() error, error) {
	err := first(
		os.WriteFile("/srv/lower/new", []byte("new"), 0o600),
		os.WriteFile("/srv/lower/changed", []byte("changed"), 0o644),
		os.Remove("/srv/lower/deleted"),
		os.Rename("/srv/lower/renamed", "/srv/lower/other"),
		os.RemoveAll("/srv/lower/full"))
	if err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) { return listing("/srv") })
}

func opaqueDirectory() (func() error, error) {
	err := first(
		os.RemoveAll("/srv/lower/full"),
		os.Mkdir("/srv/lower/full", 0o700),
		os.WriteFile("/srv/lower/full/fresh", []byte("fresh"), 0o644))
	if err != nil {
		return nil, err
	}
	return unchanged(func() (string, error) {
		out, err := listing("/srv")
		if strings.Contains(out, "hidden") {
			err = first(err, fmt.Errorf("what lies below shows: %s", out))
		}
		return out, err
	})
}

func attributes(dir string) program {
	return func() (func() error, error) {
		dir := dir + "/tree"
		path := func(name string) string { return filepath.Join(dir, name) }
		when := time.Unix(1234567890, 123456789)
		err := first(
			os.Mkdir(dir, 0o750),
			os.WriteFile(path("file"), pattern(5000, 1), 0o640),
			os.Chmod(path("file"), 0o4711|os.ModeSetuid),
			os.Lchown(path("file"), 12, 34),
			os.Chtimes(path("file"), when, when),
			os.Link(path("file"), path("linked")),
			os.Symlink("no/where", path("link")),
			unix.Mkfifo(path("fifo"), 0o600),
			unix.Mknod(path("null"), unix.S_IFCHR|0o666, 1<<8|3),
			os.Truncate(mustCreate(path("holes")), 1<<20))
		if err != nil {
			return nil, err
		}
		if err := unix.Setxattr(path("file"), "user.crucible", []byte("kept"), 0); err != nil && err != unix.EOPNOTSUPP {
			return nil, fmt.Errorf("setxattr: %w", err)
		}
		return unchanged(func() (string, error) { return listing(dir) })
	}
}

// mustCreate makes an empty file; whoever uses it sees when there is none.
func mustCreate(path string) string {
	_ = os.WriteFile(path, nil, 0o644)
	return path
}

func volume() (func() error, error) {
	f, err := os.Create("/volume/open")
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString("before "); err != nil {
		return nil, err
	}
	return func() error {
		got, err := os.ReadFile("/volume/outside")
		_, err2 := f.WriteString("after")
		return first(err, err2, same("what was written outside meanwhile", string(got), "outside"))
	}, nil
}

func volumePlot(ctx context.Context, s *stage) error {
	dir := filepath.Join(s.dir, "volume")
	if err := os.WriteFile(filepath.Join(dir, "outside"), []byte("outside"), 0o644); err != nil {
		return err
	}
	if err := once(ctx, s); err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(dir, "open"))
	return first(err, same("the volume's file", string(got), "before after"))
}

func stdio() (func() error, error) {
	_, err := fmt.Println("one")
	return func() error {
		_, err := fmt.Println("two")
		_, err2 := fmt.Fprintln(os.Stderr, "three")
		return first(err, err2)
	}, err
}

func stdioPlot(ctx context.Context, s *stage) error {
	if err := once(ctx, s); err != nil {
		return err
	}
	log, err := os.ReadFile(s.box.Log())
	if err != nil {
		return err
	}
	said := words(string(log))
	// The two streams have no order between each other.
	if fmt.Sprint(said) != "[one ready two three]" && fmt.Sprint(said) != "[one ready three two]" {
		return fmt.Errorf("the container's log is %q", said)
	}
	return nil
}
