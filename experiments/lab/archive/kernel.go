package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"crucible/experiments/lab/kernel"
)

// Kernel is one that the lab can boot, in the cache.
type Kernel struct {
	Release string // as uname -r shows it
	Version string // 6.12.113, 7.3-rc7
	Image   string // the bzImage
	Modules string // a directory for kernel.OpenModules; the files are plain
	Config  string // the configuration
}

// Kernel gives a kernel by its version: "6.12" is the newest 6.12.x, "6.12.113"
// that one, and so is "6.12.113+deb13-cloud-amd64" or the version of the
// package. A kernel that is not in the cache is fetched, in seconds.
func (a *Archive) Kernel(ctx context.Context, version string) (Kernel, error) {
	e, dir, err := a.get(ctx, KernelKind, version, fillKernel)
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{
		Release: e.Release,
		Version: e.Version,
		Image:   filepath.Join(dir, "vmlinuz"),
		Modules: filepath.Join(dir, "modules"),
		Config:  filepath.Join(dir, "config"),
	}, nil
}

func fillKernel(ctx context.Context, apt *apt, e Entry, dir string) error {
	var packages []pkg
	for _, p := range e.packages {
		// That is a name for the others, from Linux 6.19 on.
		if !strings.HasPrefix(p.Name, "linux-image-") || p.Size > 1<<20 {
			packages = append(packages, p)
		}
	}
	only, err := apt.use(e.Suite, e.Suite)
	if err != nil {
		return err
	}
	debs, err := apt.fetch(ctx, only, packages)
	if err != nil {
		return err
	}
	u := unpacking{release: e.Release, dir: dir}
	for _, deb := range debs {
		if err := apt.unpack(ctx, deb, u.take); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	for _, name := range []string{"vmlinuz", "config", "modules"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("packages of kernel %s: %w", e.Release, err)
		}
	}
	return nil
}

// unpack calls take for each file of a package.
func (a *apt) unpack(ctx context.Context, deb string, take func(name string, r io.Reader) error) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	cmd.ExtraFiles = []*os.File{a.lock}
	_, stderr := start(cmd)
	cmd.Stdout = nil
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = untar(pipe, take)
	if err != nil {
		cmd.Cancel()
	}
	_, drain := io.Copy(io.Discard, pipe)
	wait := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case wait != nil:
		return fmt.Errorf("dpkg-deb: %w: %s", wait, complaint(stderr.Bytes()))
	}
	return drain
}

func untar(r io.Reader, take func(name string, r io.Reader) error) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if err := take(path.Clean("/"+h.Name), t); err != nil {
				return err
			}
		}
	}
}

// unpacking puts the files of a kernel's packages where Kernel finds them.
type unpacking struct {
	release string
	dir     string
}

// take writes a file, if the lab has a use for it. Packages before that of
// Linux 6.19 have the kernel and its configuration in /boot.
func (u *unpacking) take(name string, r io.Reader) error {
	name = strings.TrimPrefix(name, "/usr")
	modules := "/lib/modules/" + u.release + "/"
	switch name {
	case "/boot/vmlinuz-" + u.release, modules + "vmlinuz":
		return u.write("vmlinuz", r)
	case "/boot/config-" + u.release, modules + "config":
		return u.write("config", r)
	}
	file, ok := strings.CutPrefix(name, modules)
	switch {
	case !ok:
		return nil
	case strings.HasPrefix(file, "modules.builtin"):
		return u.write("modules/"+file, r)
	case !strings.HasPrefix(file, "kernel/") || !kept(file):
		return nil
	}
	plain, data, err := kernel.ReadModule(file, r)
	if err != nil {
		return err
	}
	return u.writeBytes("modules/"+plain, data)
}

// kept holds for the modules that a container, or the lab's machine, can meet:
// all but the drivers of real hardware.
func kept(file string) bool {
	rest, driver := strings.CutPrefix(file, "kernel/drivers/")
	if !driver {
		return !strings.HasPrefix(file, "kernel/sound/") && !strings.HasPrefix(file, "kernel/arch/x86/kvm/")
	}
	if one, ok := strings.CutPrefix(rest, "net/"); ok {
		return !strings.Contains(one, "/") || strings.HasPrefix(one, "bonding/") || strings.HasPrefix(one, "ipvlan/") ||
			strings.HasPrefix(one, "vxlan/") || strings.HasPrefix(one, "wireguard/") || strings.HasPrefix(one, "netdevsim/")
	}
	for _, kind := range []string{"virtio/", "block/", "vhost/", "char/", "md/", "scsi/virtio_scsi", "scsi/scsi_"} {
		if strings.HasPrefix(rest, kind) {
			return true
		}
	}
	return false
}

func (u *unpacking) write(name string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return u.writeBytes(name, data)
}

func (u *unpacking) writeBytes(name string, data []byte) error {
	file := filepath.Join(u.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
