package filesystem

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
)

// overlay is a mounted overlay.
type overlay struct{ lower, upper, merged string }

func mountOverlay(t *testing.T, lower, upper string) overlay {
	t.Helper()
	dir := filepath.Dir(upper)
	o := overlay{lower, upper, filepath.Join(dir, "merged")}
	must(t, os.MkdirAll(o.merged, 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "work"), 0o755))
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s/work,redirect_dir=off,metacopy=off,index=off", lower, upper, dir)
	if err := unix.Mount("crucible-test", o.merged, "overlay", 0, data); err != nil {
		testenv.Skip(t, "mount an overlay: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(o.merged, unix.MNT_DETACH) })
	return o
}

// changeAll does in a merged tree what a container may do.
func changeAll(t *testing.T, merged string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(merged, name) }
	appendTo := func(name, content string) {
		f, err := os.OpenFile(at(name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		must(t, err)
		_, err = f.WriteString(content)
		must(t, err)
		must(t, f.Close())
	}
	appendTo("etc/hosts", "more")
	appendTo("etc/new", "new")
	must(t, os.Remove(at("etc/motd")))
	must(t, os.RemoveAll(at("var/cache")))
	must(t, os.RemoveAll(at("var/spool")))
	must(t, os.Mkdir(at("var/spool"), 0o700))
	appendTo("var/spool/job", "1")
	must(t, os.MkdirAll(at("srv/www/html"), 0o755))
	appendTo("srv/www/html/index", "<p>")
	must(t, os.Chmod(at("opt"), 0o711))
	must(t, os.WriteFile(at("etc/tmp"), []byte("replaced"), 0o644))
	must(t, os.Rename(at("etc/tmp"), at("etc/issue")))
	must(t, os.Remove(at("etc/link")))
	must(t, os.Mkdir(at("etc/link"), 0o755))
}

func lowerTree(t *testing.T, dir string) string {
	t.Helper()
	lower := filepath.Join(dir, "lower")
	for _, d := range []string{"etc", "var/cache/apt", "var/spool/old", "opt/keep"} {
		must(t, os.MkdirAll(filepath.Join(lower, d), 0o755))
	}
	for _, f := range []string{"etc/hosts", "etc/motd", "etc/issue", "etc/kept", "var/cache/apt/x", "var/spool/old/y", "opt/keep/z"} {
		must(t, os.WriteFile(filepath.Join(lower, f), []byte(f), 0o644))
	}
	must(t, os.Symlink("motd", filepath.Join(lower, "etc/link")))
	return lower
}

// A container on an overlay, saved and brought back: the upper directory and
// what the overlay shows are the same, and the changes have names.
func TestOverlay(t *testing.T) {
	testenv.Root(t)
	for name, dir := range disks(t) {
		t.Run(name, func(t *testing.T) {
			lower := lowerTree(t, dir)
			must(t, os.MkdirAll(filepath.Join(dir, "1", "upper"), 0o755))
			first := mountOverlay(t, lower, filepath.Join(dir, "1", "upper"))
			changeAll(t, first.merged)
			var archive bytes.Buffer
			_, err := Save(t.Context(), first.upper, &archive, SaveOptions{Kind: upper})
			must(t, err)
			must(t, os.MkdirAll(filepath.Join(dir, "2", "upper"), 0o700))
			_, err = Load(t.Context(), bytes.NewReader(archive.Bytes()), filepath.Join(dir, "2", "upper"))
			must(t, err)
			compareTrees(t, filepath.Join(dir, "2", "upper"), first.upper)
			second := mountOverlay(t, lower, filepath.Join(dir, "2", "upper"))
			compareTrees(t, second.merged, first.merged)
			wantChanges(t, archive.Bytes(), lower, `A /etc/new
				A /srv
				A /srv/www
				A /srv/www/html
				A /srv/www/html/index
				A /var/spool/job
				D /etc/motd
				D /var/cache
				M /etc/hosts
				M /etc/issue
				M /etc/link
				M /opt
				M /var/spool`)
			wantChanges(t, archive.Bytes(), "", `A /etc/issue
				A /etc/link
				A /etc/new
				A /srv
				A /srv/www
				A /srv/www/html
				A /srv/www/html/index
				A /var/spool
				A /var/spool/job
				D /etc/motd
				D /var/cache
				M /etc/hosts`)
		})
	}
}

func wantChanges(t *testing.T, archive []byte, lower, want string) {
	t.Helper()
	changes, err := Changes(t.Context(), bytes.NewReader(archive), lower)
	must(t, err)
	var lines []string
	for _, c := range changes {
		lines = append(lines, c.String())
	}
	slices.Sort(lines)
	if got := strings.Join(lines, "\n"); got != strings.ReplaceAll(want, "\t", "") {
		t.Errorf("with lower %q the changes are\n%s", lower, got)
	}
}

func TestChangesErrors(t *testing.T) {
	whole := pack(t, dir("etc"), file("etc/x", "1"))
	if c, err := Changes(t.Context(), bytes.NewReader(whole), t.TempDir()); err != nil || len(c) != 2 || c[1] != (Change{'A', "/etc/x"}) {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := Changes(t.Context(), bytes.NewReader(whole[:1024]), ""); err == nil {
		t.Error("a cut archive was listed")
	}
	if _, err := Changes(t.Context(), bytes.NewReader(pack(t, file("../x", ""))), ""); err == nil {
		t.Error("a path that leads out was listed")
	}
	if _, err := Changes(t.Context(), bytes.NewReader(whole), "/no/such/lower"); err == nil {
		t.Error("no lower directory, no error")
	}
}
