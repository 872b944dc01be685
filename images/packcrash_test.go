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
	"crucible/images/pack"
	"crucible/proto/imagepb"
)

// packer is the variable that makes the test binary a command that packs, shows,
// removes and prunes images of a store, until it is killed.
const packer = "CRUCIBLE_TEST_PACKER"

func packForever(s Store) error {
	ctx := context.Background()
	for n := 0; ; n++ {
		if n == 1 {
			fmt.Println("started")
		}
		all, err := s.List("")
		if err != nil {
			return err
		}
		// Images of "kept" are packed and shown, but never removed.
		i := all[rand.IntN(len(all))]
		switch rand.IntN(4) {
		case 0:
			_, err = s.Prune(ctx, PruneOptions{})
		case 1:
			var v *View
			if v, err = i.View(ctx, ViewOptions{}); err == nil {
				err = v.Close()
			}
		case 2:
			if i.Name != "kept" {
				err = remake(ctx, s, i)
			}
		default:
			_, err = i.Pack(ctx, PackOptions{})
		}
		if err != nil && !errors.Is(err, InUse) && !errors.Is(err, NotFound) {
			return err
		}
	}
}

// remake puts an image of other pages in the place of a few, so that packs are
// left with little in them.
func remake(ctx context.Context, s Store, old *Image) error {
	if numbers, err := s.Numbers(old.Name); err != nil || len(numbers) > 4 {
		return errors.Join(err, s.Remove(ctx, old.Ref()))
	}
	d, err := s.Draft(ctx, old.Name)
	if err != nil {
		return err
	}
	from := rand.IntN(2000)
	if err := d.Write("criu/pages-1.img", memory(span(from, from+rand.IntN(200)+1)...)); err != nil {
		return err
	}
	_, err = d.Commit(ctx, &imagepb.Manifest{})
	return err
}

// Commands are killed at any point of packing, showing and pruning: every image
// that is there is whole, and the next prune leaves nothing of theirs.
func TestPackersKilled(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	want := map[string][]byte{}
	for n := range 3 {
		b := memory(span(n*100, n*100+400)...)
		want[withMemory(t, s, "kept", nil, b).Ref()] = b
		withMemory(t, s, "other", nil, b)
	}
	unfinished := 0
	for range 25 {
		var commands []*exec.Cmd
		for range 2 {
			commands = append(commands, startPacker(t, s))
		}
		// Not a wait for something: the moment itself is what is varied.
		time.Sleep(time.Duration(rand.IntN(25_000)) * time.Microsecond)
		for _, c := range commands {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		unfinished += len(s.packs().Left()) + len(drafts(t, s))
		all, err := s.List("")
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range all {
			if err := i.Verify(t.Context(), VerifyOptions{}); err != nil {
				t.Error(err)
			}
			if b, ours := want[i.Ref()]; ours {
				if err := holds(i, "criu/pages-1.img", b); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if _, err := s.Prune(t.Context(), PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := append(s.packs().Left(), drafts(t, s)...); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if unfinished == 0 {
		t.Error("no command was killed while it had something unfinished")
	}
	t.Logf("%d unfinished files and drafts of killed commands", unfinished)
}

func startPacker(t *testing.T, s Store) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), packer+"="+s.Dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 400)
	n, _ := out.Read(line)
	if got := strings.TrimSpace(string(line[:n])); got != "started" {
		t.Fatalf("command says %q", got)
	}
	return c
}

// TestPackFullDisk: what does not fit leaves nothing, and says so; room can
// still be made.
func TestPackFullDisk(t *testing.T) {
	testenv.Root(t)
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("crucible-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		testenv.Skip(t, "mount a tmpfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	s := Store{Dir: filepath.Join(dir, "images")}
	var noise []int
	for n := range 250 { // 1 MB, as big when packed
		noise = append(noise, 2*n+1)
	}
	content := memory(noise...)
	i := withMemory(t, s, "web", nil, content)
	filler := filepath.Join(dir, "filler")
	full := func(leave int64) {
		t.Helper()
		_ = os.Remove(filler)
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filler, make([]byte, int64(st.Bavail)*st.Bsize-leave), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	full(300 << 10)
	_, err := i.Pack(t.Context(), PackOptions{})
	wantNoSpace(t, "pack", err)
	if left := s.packs().Left(); len(left) > 0 || i.isPacked("criu/pages-1.img") {
		t.Errorf("after a pack that did not fit: %v", left)
	}
	_ = os.Remove(filler)
	mustPack(t, i)
	full(300 << 10)
	_, err = i.View(t.Context(), ViewOptions{})
	wantNoSpace(t, "view", err)
	if left := drafts(t, s); len(left) > 0 {
		t.Errorf("after a view that did not fit: %v", left)
	}
	if err := holds(i, "criu/pages-1.img", content); err != nil {
		t.Error(err)
	}
	// 100 of the pack's 250 pages are needed.
	_ = os.Remove(filler)
	small := withMemory(t, s, "web", nil, content[:100*pack.PageSize])
	mustPack(t, small)
	if err := s.Remove(t.Context(), i.Ref()); err != nil {
		t.Fatal(err)
	}
	full(100 << 10)
	_, err = s.Prune(t.Context(), PruneOptions{})
	wantNoSpace(t, "prune", err)
	if err := holds(small, "criu/pages-1.img", content[:100*pack.PageSize]); err != nil {
		t.Error(err)
	}
	_ = os.Remove(filler)
	if p, err := s.Prune(t.Context(), PruneOptions{}); err != nil || p.Rewritten != 1 {
		t.Errorf("with room: %+v, %v", p, err)
	}
	if err := holds(small, "criu/pages-1.img", content[:100*pack.PageSize]); err != nil {
		t.Error(err)
	}
}

// Old packs go only when no index refers to them any more: who opens an image
// while packs are rewritten finds the old or the new ones.
func TestReadWhilePacksAreRewritten(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	big := withMemory(t, s, "big", nil, memory(span(1, 1000)...))
	mustPack(t, big)
	want := memory(span(1, 40)...)
	var all []*Image
	for range 20 {
		i := withMemory(t, s, "small", nil, want)
		mustPack(t, i)
		all = append(all, i)
	}
	if err := s.Remove(t.Context(), big.Ref()); err != nil {
		t.Fatal(err)
	}
	pruned := make(chan error, 1)
	go func() {
		p, err := s.Prune(t.Context(), PruneOptions{})
		if err == nil && p.Rewritten != 1 {
			err = fmt.Errorf("rewrote %d packs, want 1", p.Rewritten)
		}
		pruned <- err
	}()
	for reads := 0; ; reads++ {
		select {
		case err := <-pruned:
			if err != nil {
				t.Error(err)
			}
			for _, i := range all {
				if err := holds(i, "criu/pages-1.img", want); err != nil {
					t.Error(err)
				}
			}
			t.Logf("%d reads meanwhile", reads)
			return
		default:
		}
		if err := holds(all[reads%len(all)], "criu/pages-1.img", want); err != nil {
			t.Fatal(err)
		}
	}
}
