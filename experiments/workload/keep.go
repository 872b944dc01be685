package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"crucible/images"
)

func (s *stage) rootfs() string { return filepath.Join(s.dir, "rootfs") }

// makeDir makes a root filesystem with what the cases about it change, and a
// volume. It is below the state root, which a mapped root may look below.
func (s *stage) makeDir() error {
	s.dir = filepath.Join(string(s.o.Root), "workload", s.name)
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "etc", "srv/lower/full"} {
		if err := os.MkdirAll(filepath.Join(s.rootfs(), dir), 0o755); err != nil {
			return err
		}
	}
	for _, file := range []string{"srv/lower/kept", "srv/lower/changed", "srv/lower/deleted", "srv/lower/renamed", "srv/lower/full/hidden"} {
		if err := os.WriteFile(filepath.Join(s.rootfs(), file), []byte("lower\n"), 0o644); err != nil {
			return err
		}
	}
	return os.Mkdir(filepath.Join(s.dir, "volume"), 0o755)
}

func (s *stage) removeDir() error {
	if s.dir == "" {
		return nil
	}
	err := os.RemoveAll(s.dir)
	_ = os.Remove(filepath.Dir(s.dir)) // unless another case runs
	return err
}

func (s *stage) removeImages(ctx context.Context) error {
	store := images.Store{Dir: s.o.Root.Images()}
	numbers, err := store.Numbers(s.name)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range slices.Backward(numbers) { // one may build on those before
		errs = append(errs, store.Remove(ctx, images.Ref{Name: s.name, Number: n}.String()))
	}
	return errors.Join(errs...)
}

// keep copies what tells why a case failed to DIR/CASE/: the program's output,
// CRIU's logs, and the last image. It must come before clean.
func (s *stage) keep() error {
	if s.o.Dir == "" {
		return nil
	}
	dir := filepath.Join(s.o.Dir, s.c.Name)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	var errs []error
	for _, name := range s.names() {
		into := filepath.Join(dir, name)
		errs = append(errs, copyTree(into, s.o.Root.Logs(name)))
		if box, err := s.o.Root.Open(name); err == nil {
			errs = append(errs, copyFile(filepath.Join(into, "output.log"), box.Log()), copyFile(filepath.Join(into, "monitor.log"), filepath.Join(box.Dir, "monitor.log")))
		}
	}
	if s.image != nil {
		errs = append(errs, copyTree(filepath.Join(dir, "image"), s.image.Dir()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	return nil
}

func copyTree(into, from string) error {
	err := os.CopyFS(into, os.DirFS(from))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}
