package confine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"crucible/container/testenv"

	"golang.org/x/sys/unix"
)

func TestIsNull(t *testing.T) {
	for name, want := range map[string]string{
		"/dev/null": "", "/dev/zero": "not the null device", "/etc/passwd": "not the null device", "/": "not the null device",
	} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, isNull(f), want)
		f.Close()
	}
}

// masks puts a root together, covers paths of it and looks at the result.
//
//	T (tmpfs)          T/dev/null (a bind of the real one)
//	T/secret/key       a directory to mask
//	T/file             a file to mask
//	T/conf/sub (tmpfs) a directory to make read-only, with a mount inside
//	T/link -> /secret  a link in the last place: refused
//	T/via -> /         a link on the way: followed, inside the root
func helpMasks(input string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	const top = "/tmp"
	if err := unix.Mount("cru", top, "tmpfs", unix.MS_NOSUID, ""); err != nil {
		return err
	}
	var errs []error
	for _, d := range []string{"/secret", "/conf", "/conf/sub", "/dev", "/empty"} {
		errs = append(errs, os.Mkdir(top+d, 0o755))
	}
	for _, f := range []string{"/secret/key", "/file", "/conf/a", "/dev/null"} {
		errs = append(errs, os.WriteFile(top+f, []byte("secret"), 0o644))
	}
	errs = append(errs, unix.Mount("cru", top+"/conf/sub", "tmpfs", 0, ""),
		unix.Mount("/dev/null", top+"/dev/null", "", unix.MS_BIND, ""),
		os.WriteFile(top+"/conf/sub/b", []byte("x"), 0o644),
		os.Symlink("/secret", top+"/link"), os.Symlink("/", top+"/via"))
	root, err := os.Open(top)
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	empty, err := os.Open(top + "/empty")
	if err != nil {
		return err
	}
	for _, p := range []string{"/secret", "file", "/nothing", "/file/nothing/here", "/nothing/here"} {
		if err := MaskPath(root, p, empty); err != nil {
			return err
		}
	}
	for _, p := range []string{"/via/conf/", "/nothing"} {
		if err := ReadonlyPath(root, p); err != nil {
			return err
		}
	}
	return checkMasks(root, empty, top)
}

func checkMasks(root, empty *os.File, top string) error {
	if names, err := os.ReadDir(top + "/secret"); err != nil || len(names) != 0 {
		return fmt.Errorf("masked directory shows %v, %v", names, err)
	}
	if err := os.WriteFile(top+"/secret/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("masked directory can be written: %v", err)
	}
	if data, err := os.ReadFile(top + "/file"); err != nil || len(data) != 0 {
		return fmt.Errorf("masked file shows %q, %v", data, err)
	}
	for _, f := range []string{"/conf/a", "/conf/new", "/conf/sub/b", "/conf/sub/new"} {
		if err := os.WriteFile(top+f, nil, 0o644); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("read-only %s can be written: %v", f, err)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(top+"/conf", &fs); err != nil || fs.Flags&unix.ST_NOSUID == 0 {
		return fmt.Errorf("read-only mount lost nosuid: %#x, %v", fs.Flags, err)
	}
	for _, p := range []string{"/link", "link"} {
		if err := MaskPath(root, p, empty); err == nil || !strings.Contains(err.Error(), "is a symbolic link") {
			return fmt.Errorf("mask of a link: %v", err)
		}
		if err := ReadonlyPath(root, p); err == nil || !strings.Contains(err.Error(), "is a symbolic link") {
			return fmt.Errorf("read-only link: %v", err)
		}
	}
	if err := MaskPath(root, "..", empty); err == nil {
		return errors.New("the root itself was masked")
	}
	return checkForgedNull(root, empty, top)
}

// CVE-2025-31133: the image's /dev/null is a link to, or a bind of, something
// that would then be mounted over a masked path.
func checkForgedNull(root, empty *os.File, top string) error {
	if err := unix.Unmount(top+"/dev/null", 0); err != nil {
		return err
	}
	os.Remove(top + "/dev/null")
	for _, forge := range []func() error{
		func() error { return os.Symlink("/conf/a", top+"/dev/null") },
		func() error { return os.Symlink("/proc/self/mem", top+"/dev/null") },
		func() error { return os.WriteFile(top+"/dev/null", nil, 0o666) },
		func() error { return unix.Mkfifo(top+"/dev/null", 0o666) },
	} {
		if err := forge(); err != nil {
			return err
		}
		if err := MaskPath(root, "/via/conf/a", empty); err == nil {
			return errors.New("a forged null device was used")
		}
		if err := os.Remove(top + "/dev/null"); err != nil {
			return err
		}
	}
	return checkOldMounts(root, empty, top)
}

// The same by mount(2), which is all that kernels before 5.2 have.
func checkOldMounts(root, empty *os.File, top string) error {
	var errs []error
	for _, d := range []string{"/old", "/old/sub"} {
		errs = append(errs, os.Mkdir(top+d, 0o755))
	}
	old, err := os.OpenFile(top+"/old", unix.O_PATH, 0)
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	if err := bindOld(old, old, unix.MOUNT_ATTR_RDONLY, true); err != nil {
		return err
	}
	if err := os.WriteFile(top+"/old/x", nil, 0o644); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("mount(2): read-only directory can be written: %v", err)
	}
	sub, err := os.OpenFile(top+"/old/sub", unix.O_PATH, 0)
	if err != nil {
		return err
	}
	if err := bindOld(empty, sub, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOEXEC, false); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(top+"/old/sub", &fs); err != nil || fs.Flags&unix.ST_NOEXEC == 0 || fs.Flags&unix.ST_NOSUID == 0 {
		return fmt.Errorf("mount(2): flags %#x, %v", fs.Flags, err)
	}
	if !haveOpenTree() {
		return errors.New("open_tree is there and was not found")
	}
	return nil
}

func TestMasks(t *testing.T) {
	testenv.Root(t)
	_, err := run(help(t, "masks", nil, unix.CLONE_NEWNS))
	wantError(t, err, "")
	_, err = run(help(t, "masks", nil, unix.CLONE_NEWNS|unix.CLONE_NEWUSER))
	wantError(t, err, "")
}
