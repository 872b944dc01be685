package main

import (
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"

	"crucible/experiments/lab"
)

func newKernelShellCommand(a *app) *cobra.Command {
	var (
		t    targetFlags
		m    machineFlags
		keep string
		gdb  bool
	)
	c := &cobra.Command{
		Use:   "shell [flags]",
		Short: "Give a prompt in a virtual machine with crucible and CRIU",
		Long: `Boot a kernel in a throw-away virtual machine and give a prompt in it, as root,
with crucible, CRIU, and the host's shell and common tools; --with takes others
along. What is put into /results is copied to the directory that --results names
when the shell ends. It needs a terminal.

With --gdb the machine stops before its first instruction and waits for a
debugger: ` + "`gdb vmlinux -ex 'target remote :1234'`" + `.

Exit status: 0, or 125 if there was no prompt, or the machine went away under it.`,
		Example: `  crucible kernel shell --kernel debian:6.12
  crucible kernel shell --kernel arch/x86/boot/bzImage --gdb`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			return runKernelShell(c, a, &t, &m, keep, gdb)
		},
	}
	t.add(c)
	m.add(c)
	a.jsonFlagFor(c, "print errors of crucible as JSON")
	m.withFlag(c)
	c.Flags().StringVar(&keep, "results", "", "directory for what is left in /results")
	c.Flags().BoolVar(&gdb, "gdb", false, "wait for a debugger on TCP port 1234 of this host")
	return c
}

// tools are what somebody at a prompt reaches for; those that the host has go
// along.
func tools() []string {
	return []string{
		"bash", "ls", "cat", "cp", "mv", "rm", "mkdir", "rmdir", "ln", "stat", "ps", "dmesg", "mount", "umount", "grep", "sed",
		"less", "head", "tail", "find", "ip", "ss", "kill", "sleep", "tar", "sort", "wc", "id", "uname", "env", "lsns", "nsenter",
		"unshare", "findmnt", "strace", "vi", "stty", "clear",
	}
}

func runKernelShell(c *cobra.Command, a *app, t *targetFlags, f *machineFlags, keep string, gdb bool) error {
	if !a.interactive() {
		return misuse("a prompt needs a terminal as its standard input; `crucible kernel exec` runs a program without one")
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		return fmt.Errorf("take a shell along: %w", err)
	}
	f.with = append(f.with, shell)
	for _, tool := range tools() {
		if path, err := exec.LookPath(tool); err == nil {
			f.with = append(f.with, path)
			if tool == "bash" {
				shell = path
			}
		}
	}
	m, err := a.machine(c.Context(), t, f)
	if err != nil {
		return err
	}
	if gdb {
		fmt.Fprintln(a.stderr, "waiting for a debugger on 127.0.0.1:1234")
	}
	rows, columns := a.terminalSize()
	m.Keep, m.GDB = keep, gdb
	m.Job = lab.Job{Shell: &lab.Shell{Path: shell, Rows: rows, Columns: columns}}
	m.Stdin, m.Stdout = a.stdin, a.stdout
	return m.Run(c.Context())
}
