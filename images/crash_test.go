package images

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/testenv"
	"crucible/proto/imagepb"
)

// committer is the variable that makes the test binary a command that commits
// images to a store, until it is killed.
const committer = "CRUCIBLE_TEST_COMMITTER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(committer); dir != "" {
		fmt.Println(commitForever(Store{Dir: dir}))
		os.Exit(1)
	}
	if dir := os.Getenv(packer); dir != "" {
		fmt.Println(packForever(Store{Dir: dir}))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func commitForever(s Store) error {
	ctx := context.Background()
	for n := 0; ; n++ {
		d, err := s.Draft(ctx, "web")
		if err != nil {
			return err
		}
		d.Follow()
		for i := range 5 {
			if err := d.Write(fmt.Sprintf("criu/%d.img", i), make([]byte, rand.IntN(300_000))); err != nil {
				return err
			}
		}
		if err := d.Put(Mounts, &imagepb.Mounts{}); err != nil {
			return err
		}
		if _, err := d.Commit(ctx, &imagepb.Manifest{}); err != nil {
			return err
		}
		if n == 0 {
			fmt.Println("started")
		}
		if n%4 == 3 {
			if err := s.Remove(ctx, "web"); err != nil && !errors.Is(err, NotFound) && !errors.Is(err, InUse) {
				return err
			}
		}
	}
}

// Commands are killed at any point of drafting, committing and removing: what
// is in the store are whole images, and the next command sweeps the rest.
func TestKilled(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	swept := 0
	for range 25 {
		var commands []*exec.Cmd
		for range 2 {
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), committer+"="+s.Dir)
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 100)
			n, _ := out.Read(line)
			if got := strings.TrimSpace(string(line[:n])); got != "started" {
				t.Fatalf("command says %q", got)
			}
			commands = append(commands, c)
		}
		// Not a wait for something: the moment itself is what is varied.
		time.Sleep(time.Duration(rand.IntN(15_000)) * time.Microsecond)
		for _, c := range commands {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		swept += len(drafts(t, s))
		all, err := s.List("")
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range all {
			if err := i.Verify(t.Context(), VerifyOptions{}); err != nil {
				t.Error(err)
			}
		}
		d, err := s.Draft(t.Context(), "other")
		if err != nil {
			t.Fatal(err)
		}
		if left := drafts(t, s); len(left) != 1 {
			t.Errorf("not swept: %v", left)
		}
		if err := d.Discard(); err != nil {
			t.Error(err)
		}
	}
	if swept == 0 {
		t.Error("no command was killed while it had a draft")
	}
	t.Logf("%d drafts of killed commands were swept", swept)
}

// smallDisk mounts a filesystem that is soon full.
func smallDisk(t *testing.T) string {
	testenv.Root(t)
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("crucible-test", dir, "tmpfs", 0, "size=1m,nr_inodes=64"); err != nil {
		testenv.Skip(t, "mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func wantNoSpace(t *testing.T, what string, err error) {
	t.Helper()
	var full *NoSpaceError
	if !errors.As(err, &full) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(full.Hint(), "MiB free now") {
		t.Errorf("%s: %v", what, err)
	}
}

// usable says whether the store can make an image again.
func usable(t *testing.T, s Store) {
	t.Helper()
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if numbers, err := s.Numbers("web"); err != nil || len(numbers) != 0 {
		t.Errorf("images: %v, %v", numbers, err)
	}
	i := makeImage(t, s, "web", &imagepb.Manifest{})
	if err := s.Remove(t.Context(), i.Ref()); err != nil {
		t.Error(err)
	}
}

func TestFullDisk(t *testing.T) {
	s := Store{Dir: filepath.Join(smallDisk(t), "images")}
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	wantNoSpace(t, "write", d.Write("criu/pages-1.img", make([]byte, 2<<20)))
	// The disk is full to the last byte now: there is no room for a manifest.
	_, err = d.Commit(t.Context(), &imagepb.Manifest{Command: []string{strings.Repeat("x", 8192)}})
	wantNoSpace(t, "commit", err)
	if err := d.Discard(); err != nil {
		t.Error(err)
	}
	usable(t, s)
}

func TestNoInodes(t *testing.T) {
	s := Store{Dir: filepath.Join(smallDisk(t), "images")}
	d, err := s.Draft(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; err == nil; n++ {
		err = d.Write(fmt.Sprintf("criu/%d", n), nil)
	}
	wantNoSpace(t, "write", err)
	_, err = d.Commit(t.Context(), &imagepb.Manifest{})
	wantNoSpace(t, "commit", err)
	_, err = s.Draft(t.Context(), "web")
	wantNoSpace(t, "draft", err)
	if err := d.Discard(); err != nil {
		t.Error(err)
	}
	usable(t, s)
}
