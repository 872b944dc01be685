package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"crucible/checkpoint/criu"
	"crucible/experiments/lab/archive"
	"crucible/experiments/lab/kernel"
)

// Kernel is one that a machine can boot.
type Kernel struct {
	Name    string // as it was asked for
	Release string // uname -r
	Image   string // its bzImage
	Modules []File // those that the lab wants, in the order of loading
	Absent  []string
}

// CRIU is one that a guest can have.
type CRIU struct {
	Version string
	Path    string // in the guest
	Rundir  string // see Machine
	Files   []File
}

// fromArchive begins the name of a kernel of the distribution's archive.
const fromArchive = "debian:"

// FindKernel finds a kernel: debian:VERSION in the archive, a bzImage by its
// path, or the directory of a build; "" is the current directory.
func FindKernel(ctx context.Context, store *archive.Archive, name string) (Kernel, error) {
	if version, found := strings.CutPrefix(name, fromArchive); found {
		k, err := store.Kernel(ctx, version)
		if err != nil {
			return Kernel{}, err
		}
		return openKernel(name, k.Image, k.Modules)
	}
	if name == "" {
		dir, err := os.Getwd()
		if err != nil {
			return Kernel{}, err
		}
		if _, err := os.Stat(filepath.Join(dir, builtImage)); err != nil {
			return Kernel{}, &Fault{
				Op: "find a kernel", Err: fmt.Errorf("the current directory has no %s", builtImage),
				Remedy: "name one with --kernel: a bzImage, the directory of a build, or debian:VERSION; a kernel tree needs a .config to be built",
			}
		}
		name = dir
	}
	k, err := openKernel(name, name, modulesOf(name))
	if errors.Is(err, os.ErrNotExist) && name != "" && name[0] >= '0' && name[0] <= '9' {
		return k, &Fault{Op: "find a kernel", Err: err, Remedy: "a version of the archive is named " + fromArchive + name}
	}
	return k, err
}

// builtImage is where a build puts its image.
const builtImage = "arch/x86/boot/bzImage"

// modulesOf is where the modules of an image are, if they are where a build, or
// an installation, puts them; else "".
func modulesOf(image string) string {
	abs, err := filepath.Abs(image)
	if err != nil {
		return ""
	}
	if info, err := os.Stat(abs); err == nil && info.IsDir() {
		return abs
	}
	if tree, found := strings.CutSuffix(abs, "/"+builtImage); found {
		return tree
	}
	beside := filepath.Dir(abs)
	release, found := strings.CutPrefix(filepath.Base(abs), "vmlinuz-")
	if !found {
		// As the archive's are in the cache.
		if dir := filepath.Join(beside, "modules"); filepath.Base(abs) == "vmlinuz" && isDir(dir) {
			return dir
		}
		return ""
	}
	for _, root := range []string{filepath.Dir(beside), beside} {
		for _, dir := range []string{"lib/modules", "usr/lib/modules"} {
			if dir = filepath.Join(root, dir, release); isDir(dir) {
				return dir
			}
		}
	}
	return ""
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func openKernel(name, image, modules string) (Kernel, error) {
	opened, err := kernel.Open(image)
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Name: name, Release: opened.Release, Image: opened.Path}
	if modules == "" {
		return k, nil
	}
	all, err := kernel.OpenModules(modules, opened.Release)
	if err != nil {
		return Kernel{}, err
	}
	list, absent, err := all.Load(wanted())
	if err != nil {
		return Kernel{}, err
	}
	k.Absent = absent
	for i, m := range list {
		k.Modules = append(k.Modules, File{
			Path: path.Join(labDir, "modules", fmt.Sprintf("%03d-%s.ko", i, m.Name)), Mode: 0o644, Data: m.Data,
		})
	}
	return k, nil
}

// wanted are the modules that a guest loads, where the kernel has them and not
// built in. CRIU dumps sockets with the *_diag; containers stand on veth, bridge
// and overlay; the results go to a virtio disk.
func wanted() []string {
	return []string{
		"virtio_pci", "virtio_blk",
		"unix_diag", "inet_diag", "tcp_diag", "udp_diag", "raw_diag", "af_packet_diag", "netlink_diag",
		"veth", "bridge", "tun", "macvlan", "overlay",
		"nf_tables", "nft_ct", "nft_nat", "nft_masq", "nft_chain_nat", "nft_reject_inet", "nft_fib_inet", "nft_compat",
		"nf_conntrack_netlink", "x_tables", "ip_tables", "ip6_tables", "iptable_filter", "ip6table_filter",
		"xt_mark", "xt_conntrack",
	}
}

// FindCRIU finds the CRIU that a guest gets: by its version in the archive, by
// its path on the host, or, for "", the host's own.
func FindCRIU(ctx context.Context, store *archive.Archive, name string) (CRIU, error) {
	if name != "" && !strings.Contains(name, "/") && name[0] >= '0' && name[0] <= '9' {
		found, err := store.CRIU(ctx, name)
		if err != nil {
			return CRIU{}, err
		}
		inside := strings.TrimPrefix(found.Path, found.Dir)
		files, err := Program(found.Dir, inside)
		return CRIU{Version: found.Version, Path: inside, Files: files}, err
	}
	found, err := criu.Find(name)
	if err != nil {
		return CRIU{}, err
	}
	version, err := found.Version(ctx)
	if err != nil {
		return CRIU{}, err
	}
	files, err := Program("/", found.Path)
	if err != nil {
		return CRIU{}, err
	}
	c := CRIU{Version: version.String(), Path: found.Path, Files: files}
	// scripts/setup writes down next to a CRIU of its own where that keeps its
	// cache.
	rundir, err := os.ReadFile(filepath.Join(filepath.Dir(found.Path), "..", "rundir"))
	if err == nil {
		c.Rundir = strings.TrimSpace(string(rundir))
	} else if !errors.Is(err, os.ErrNotExist) {
		return CRIU{}, err
	}
	return c, nil
}
