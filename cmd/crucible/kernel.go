package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"crucible/experiments/lab"
	"crucible/experiments/lab/archive"
)

func newKernelCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "kernel",
		Short: "Ask any kernel, in a virtual machine, whether checkpoint and restore work on it",
		Long: `Boot a kernel in a throw-away virtual machine and ask it what the conformance
cases ask. No root is needed, and no /dev/kvm: where that does not work, QEMU
emulates the processor.

What keeps a kernel from being asked, a mistake on the command line included, is
exit status 125: git bisect then steps over the commit.

A kernel is named by its bzImage, by the directory of its build, or as
debian:6.12 for a package of the distribution's archive. A CRIU is named by its
version there (4.2.1), or by its path.`,
		Example: `  crucible kernel test --kernel arch/x86/boot/bzImage
  git bisect run crucible kernel test --case tcp-established
  crucible kernel matrix --kernels debian:6.1,debian:6.12 --criu 4.1.1,4.3`,
		DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misuse("unknown command %q for %q", args[0], "crucible kernel")
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newKernelTestCommand(a), newKernelCasesCommand(a), newKernelMatrixCommand(a), newKernelCompareCommand(a),
		newKernelListCommand(a), newKernelFetchCommand(a), newKernelConfigCommand(a), newKernelShellCommand(a), newKernelExecCommand(a))
	return c
}

// machineFlags are those of every command that starts machines.
type machineFlags struct {
	memory string
	cpus   int
	with   []string
	append []string
}

func (f *machineFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.memory, "memory", "512m", "memory of a machine")
	c.Flags().IntVar(&f.cpus, "cpus", 1, "processors of a machine")
	c.Flags().StringArrayVar(&f.append, "append", nil, "more words for the kernel's command line")
}

func (f *machineFlags) withFlag(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.with, "with", nil, "take along a program of the host, with its libraries, or a directory")
}

// mebibytes is --memory; a machine needs 200 MiB or so for its root alone.
func (f *machineFlags) mebibytes() (int, error) {
	size, err := parseSize(f.memory)
	if err != nil || size < 256<<20 || size > 1<<40 {
		return 0, misuse("--memory: must be a size from 256m on, not %q", f.memory)
	}
	if f.cpus < 1 || f.cpus > 64 {
		return 0, misuse("--cpus: must be from 1 to 64, not %d", f.cpus)
	}
	return int(size >> 20), nil
}

// targetFlags name one kernel, CRIU and cgroup layout.
type targetFlags struct {
	kernel, cgroup string
}

func (f *targetFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.kernel, "kernel", "", "a bzImage, the directory of a kernel's build, or debian:VERSION (default: the build in the current directory)")
	c.Flags().StringVar(&f.cgroup, "cgroup", lab.CgroupV2, "cgroup layout: v1, hybrid or v2")
}

func checkCgroup(layout string) error {
	for _, known := range lab.Cgroups() {
		if layout == known {
			return nil
		}
	}
	return misuse("--cgroup %q: must be %s", layout, strings.Join(lab.Cgroups(), ", "))
}

// archive opens the cache of fetched kernels and CRIUs.
func (a *app) archive() (*archive.Archive, error) {
	store, err := archive.Open("")
	if err != nil {
		return nil, err
	}
	store.Progress = a.progress()
	return store, nil
}

// machine makes a machine from the flags, without a job.
func (a *app) machine(ctx context.Context, t *targetFlags, f *machineFlags) (*lab.Machine, error) {
	if err := checkCgroup(t.cgroup); err != nil {
		return nil, err
	}
	memory, err := f.mebibytes()
	if err != nil {
		return nil, err
	}
	store, err := a.archive()
	if err != nil {
		return nil, err
	}
	defer store.Progress("")
	kernel, err := lab.FindKernel(ctx, store, t.kernel)
	if err != nil {
		return nil, err
	}
	criu, err := lab.FindCRIU(ctx, store, a.criuPath)
	if err != nil {
		return nil, err
	}
	files, err := along(f.with)
	if err != nil {
		return nil, err
	}
	qemu, err := lab.FindQEMU(ctx)
	if err != nil {
		return nil, err
	}
	return &lab.Machine{
		QEMU: qemu, Kernel: kernel.Image, Modules: kernel.Modules, Absent: kernel.Absent,
		Files: lab.Merge(criu.Files, files), Criu: criu.Path, Rundir: criu.Rundir,
		Cgroup: t.cgroup, MemoryMiB: memory, CPUs: f.cpus, Append: f.append,
	}, nil
}

// along is what --with names.
func along(paths []string) ([]lab.File, error) {
	var files []lab.File
	for _, path := range paths {
		more, err := lab.Along(path)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	return files, nil
}

// absolute is for a path that the guest is to have, too.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", path, err)
	}
	if _, err := os.Stat(abs); err != nil {
		return "", err
	}
	return abs, nil
}
