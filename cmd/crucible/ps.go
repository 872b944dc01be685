package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"crucible/container"
	"crucible/container/cgroup"
	"crucible/container/proc"
)

// task is a process of a container in `crucible ps`.
type task struct {
	Pid     int    `json:"pid"`     // in the container
	HostPid int    `json:"hostPid"` // on the host
	PPid    int    `json:"ppid"`    // on the host
	UID     uint32 `json:"uid"`     // as the host sees it
	State   string `json:"state"`
	Threads int    `json:"threads"`
	RSS     uint64 `json:"rssBytes"`
	Command string `json:"command"`
}

func newPsCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "ps [flags] NAME",
		Short: "List the processes of a container",
		Long: `List the processes of a container, with their numbers inside of it and on the host.

Exit status: 0 success, 3 no such container, 4 it is stopped.`,
		Example:           "  crucible ps web",
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			box, err := a.open(c.Context(), args[0])
			if err != nil {
				return err
			}
			if _, err := box.Require("list the processes of", container.Created, container.Running, container.Frozen); err != nil {
				return err
			}
			tasks, err := tasksOf(box)
			if err != nil {
				return err
			}
			return a.print(a.json, tasks, func() error { return a.psTable(tasks) })
		},
	}
	a.jsonFlag(c)
	return c
}

func tasksOf(box *container.Container) ([]task, error) {
	g, err := box.Group()
	if err != nil {
		return nil, err
	}
	pids, err := g.Pids()
	if err != nil {
		return nil, err
	}
	tasks := []task{}
	for _, pid := range pids {
		t, err := readTask(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}

func readTask(pid int) (task, error) {
	f := proc.FS("/proc")
	stat, err := f.Stat(pid)
	if err != nil {
		return task{}, err
	}
	status, err := f.Status(pid)
	if err != nil {
		return task{}, err
	}
	args, err := f.Args(pid)
	if err != nil {
		return task{}, err
	}
	t := task{Pid: pid, HostPid: pid, PPid: stat.PPID, UID: status.UIDs[0], State: stat.State, Threads: stat.Threads, RSS: status.RSS, Command: strings.Join(args, " ")}
	if n := len(status.NSPID); n > 0 {
		t.Pid = status.NSPID[n-1]
	}
	if t.Command == "" {
		t.Command = "[" + stat.Comm + "]"
	}
	return t, nil
}

func (a *app) psTable(tasks []task) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PID\tHOST PID\tUID\tSTATE\tTHREADS\tRSS\tCOMMAND")
	for _, t := range tasks {
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%d\t%s\t%s\n", t.Pid, t.HostPid, t.UID, t.State, t.Threads, formatSize(int64(t.RSS)), shorten(printable(t.Command), 80))
	}
	return w.Flush()
}

func newStatsCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "stats [flags] [NAME...]",
		Short: "Show what containers use: processor time, memory, tasks",
		Long: `Show what containers use, those that are named or all that are not stopped:
processor time, memory now and at most, tasks.

Exit status: 0 success, 3 no such container, 4 one that is named is stopped.`,
		Example:           "  crucible stats web\n  crucible stats --json",
		ValidArgsFunction: a.containerNames(true),
		RunE:              func(c *cobra.Command, args []string) error { return runStats(c, a, args) },
	}
	a.jsonFlag(c)
	return c
}

type usage struct {
	Name string `json:"name"`
	cgroup.Stats
}

func runStats(c *cobra.Command, a *app, names []string) error {
	named := len(names) > 0
	if !named {
		all, err := a.root().List()
		if err != nil {
			return err
		}
		for _, box := range all {
			names = append(names, box.Name)
		}
	}
	rows := []usage{}
	for _, name := range names {
		box, err := a.open(c.Context(), name)
		if err != nil {
			return err
		}
		if _, err := box.Require("read the statistics of", container.Created, container.Running, container.Frozen); err != nil {
			if named {
				return err
			}
			continue
		}
		g, err := box.Group()
		if err != nil {
			return err
		}
		s, err := g.Stats()
		if err != nil {
			return err
		}
		rows = append(rows, usage{name, s})
	}
	return a.print(a.json, rows, func() error { return a.statsTable(rows) })
}

func newUpdateCommand(a *app) *cobra.Command {
	var memory string
	var o container.RunOptions
	c := &cobra.Command{
		Use:   "update [flags] NAME",
		Short: "Change a container's limits",
		Long: `Change a container's limits, at once and without a restart. What is not named
stays as it is.

Exit status: 0 success, 3 no such container, 4 it is stopped.`,
		Example:           "  crucible update --memory 512m --cpus 1.5 web",
		Args:              exactArgs(1, "the name of a container"),
		ValidArgsFunction: a.containerNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if o.Memory, err = parseSize(memory); err != nil {
				return misuse("--memory: %w", err)
			}
			if !c.Flags().Changed("memory") && !c.Flags().Changed("cpus") && !c.Flags().Changed("pids") {
				return misuse("nothing to change: give --memory, --cpus or --pids")
			}
			new, err := limits(c, o)
			if err != nil {
				return err
			}
			if err := needRoot("update a container"); err != nil {
				return err
			}
			return a.change(c.Context(), args[0], func(box *container.Container) error { return box.SetLimits(c.Context(), new) })
		},
	}
	f := c.Flags()
	f.StringVar(&memory, "memory", "", "limit of memory, in bytes or with k, m, g; 0 for none")
	f.Float64Var(&o.CPUs, "cpus", 0, "limit of processor time, in processors; 0 for none")
	f.Int64Var(&o.Pids, "pids", 0, "limit of tasks; 0 for none")
	a.jsonFlag(c)
	return c
}

// limits are the resources that were named; 0 takes a limit away.
func limits(c *cobra.Command, o container.RunOptions) (*specs.LinuxResources, error) {
	r, err := container.Resources(o)
	if err != nil {
		return nil, err
	}
	none := int64(-1)
	if c.Flags().Changed("memory") && o.Memory == 0 {
		r.Memory = &specs.LinuxMemory{Limit: &none}
	}
	if c.Flags().Changed("cpus") && o.CPUs == 0 {
		r.CPU = &specs.LinuxCPU{Quota: &none}
	}
	if c.Flags().Changed("pids") && o.Pids == 0 {
		r.Pids = &specs.LinuxPids{Limit: &none}
	}
	return r, nil
}

func (a *app) statsTable(rows []usage) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tCPU TIME\tMEMORY\tLIMIT\tPEAK\tTASKS")
	for _, r := range rows {
		cpu, memory, pids := cgroup.CPUStats{}, cgroup.MemoryStats{}, cgroup.PidsStats{}
		if r.CPU != nil {
			cpu = *r.CPU
		}
		if r.Memory != nil {
			memory = *r.Memory
		}
		if r.Pids != nil {
			pids = *r.Pids
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", r.Name, time.Duration(cpu.Usage).Round(time.Millisecond),
			formatSize(int64(memory.Current)), limitText(memory.Limit), formatSize(int64(memory.Peak)), pids.Current)
	}
	return w.Flush()
}

func limitText(n uint64) string {
	if n == 0 {
		return "-"
	}
	return formatSize(int64(n))
}
