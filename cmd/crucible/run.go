package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"crucible/container"
	"crucible/container/confine/seccomp"
	"crucible/container/name"
	"crucible/container/network"
)

// defineOptions are the flags that define a container; run and create share them.
type defineOptions struct {
	container.RunOptions
	name        string
	bundle      string
	net         string
	address     string
	publish     []string
	memory      string
	seccompFile string
	remove      bool
	interactive bool
	explain     bool
}

func (o *defineOptions) addFlags(a *app, c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "name of the container (default: a random one)")
	f.StringVar(&o.bundle, "bundle", "", "run the OCI bundle in this directory; no other flag may change it")
	f.StringVar(&o.Rootfs, "rootfs", "", "root filesystem; it is not written to (default: the host's own)")
	f.BoolVar(&o.ReadOnly, "read-only", false, "make the root filesystem read-only")
	f.BoolVarP(&o.Terminal, "terminal", "t", false, "give it a terminal")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "keep its standard input open")
	f.BoolVar(&o.remove, "rm", false, "delete the container when it stops")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "set a variable: KEY=VALUE, or KEY for the value here")
	f.StringVarP(&o.Cwd, "workdir", "w", "", "working directory (default /)")
	f.StringVarP(&o.User, "user", "u", "", "run as UID[:GID]")
	f.StringVar(&o.Hostname, "hostname", "", "host name (default: the container's name)")
	f.StringArrayVarP(&o.Volumes, "volume", "v", nil, "show a file or directory of the host: SOURCE:TARGET[:ro]")
	f.StringArrayVar(&o.Tmpfs, "tmpfs", nil, "mount a tmpfs: TARGET[:OPTIONS]")
	f.StringArrayVar(&o.Devices, "device", nil, "give it a device of the host: no other than the usual ones (null, tty, ...) can be opened")
	f.StringVar(&o.net, "net", "none", "network: none, host, or bridge[=NAME]; a bridge that does not exist is made")
	f.StringVar(&o.address, "ip", "", "address on the bridge: A.B.C.D[/N] (default: a free one); the first one's /N is the bridge's")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "forward a port of the host: [HOSTADDRESS:]HOSTPORT:PORT[/udp]")
	f.StringVar(&o.memory, "memory", "", "limit of memory, in bytes or with k, m, g")
	f.Float64Var(&o.CPUs, "cpus", 0, "limit of processor time, in processors")
	f.Int64Var(&o.Pids, "pids", 0, "limit of tasks")
	f.StringArrayVar(&o.Rlimits, "ulimit", nil, "set a resource limit: TYPE=SOFT[:HARD]")
	f.StringArrayVar(&o.Sysctls, "sysctl", nil, "set a sysctl of its namespaces: KEY=VALUE")
	f.StringArrayVar(&o.CapAdd, "cap-add", nil, "add a capability, or ALL")
	f.StringArrayVar(&o.CapDrop, "cap-drop", nil, "drop a capability, or ALL")
	f.BoolVar(&o.Privileges, "new-privileges", false, "let programs gain privileges (no no_new_privs)")
	f.StringVar(&o.seccompFile, "seccomp", "", "install this seccomp profile (OCI form, JSON)")
	f.StringVar(&o.UserNS, "userns", "", "user namespace: auto, or CONTAINER:HOST:SIZE[,...]")
	f.BoolVar(&o.CgroupNS, "cgroupns", false, "give it a cgroup namespace")
	f.StringArrayVar(&o.TimeOffsets, "time-offset", nil, "time namespace: monotonic=SECONDS or boottime=SECONDS")
	f.BoolVar(&o.explain, "explain", false, "print what would be done, and do nothing")
	_ = c.RegisterFlagCompletionFunc("net", a.networkNames) // fails only for a flag that is not there
}

// networkNames completes --net: the modes, and the bridges of containers.
func (a *app) networkNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names := []string{
		cobra.CompletionWithDesc("none", "a loopback and nothing else"), cobra.CompletionWithDesc("host", "the host's own network"),
		cobra.CompletionWithDesc("bridge", "a bridge of this state root"),
	}
	all, _ := a.root().List() // what cannot be read is not offered
	for _, box := range all {
		if b := box.State.Net.Bridge; b != "" && !slices.Contains(names, "bridge="+b) {
			names = append(names, "bridge="+b)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// define makes the bundle and the create options from the flags.
func (o *defineOptions) define(c *cobra.Command, args []string) (*specs.Spec, container.CreateOptions, error) {
	create := container.CreateOptions{Remove: o.remove}
	var err error
	if o.name == "" {
		o.name = randomName()
	}
	if err := name.ValidName(o.name); err != nil {
		return nil, create, &usageError{err}
	}
	if create.Net, err = parseNetwork(o.net, o.address, o.publish); err != nil {
		return nil, create, &usageError{err}
	}
	if o.bundle != "" {
		spec, err := o.loadBundle(c, args)
		if err == nil {
			err = fitNetwork(c, spec, &create.Net)
		}
		return spec, create, err
	}
	if len(args) == 0 {
		return nil, create, misuse("no program given: put it behind --, or give --bundle")
	}
	o.Args = args
	if o.Hostname == "" {
		o.Hostname = o.name
	}
	o.HostNet = create.Net.Mode == network.ModeHost
	if o.Memory, err = parseSize(o.memory); err != nil {
		return nil, create, misuse("--memory: %w", err)
	}
	if o.Seccomp, err = loadSeccomp(o.seccompFile); err != nil {
		return nil, create, err
	}
	spec, err := container.NewSpec(o.RunOptions)
	return spec, create, err
}

func (o *defineOptions) loadBundle(c *cobra.Command, args []string) (*specs.Spec, error) {
	if len(args) > 0 {
		return nil, misuse("a bundle names its own program: give no arguments with --bundle")
	}
	for _, name := range []string{"rootfs", "read-only", "terminal", "env", "workdir", "user", "hostname", "volume", "tmpfs", "device", "memory", "cpus", "pids", "ulimit", "sysctl", "cap-add", "cap-drop", "new-privileges", "seccomp", "userns", "cgroupns", "time-offset"} {
		if c.Flags().Changed(name) {
			return nil, misuse("--%s does not go with --bundle: change the bundle's config.json", name)
		}
	}
	return container.LoadBundle(o.bundle)
}

// fitNetwork compares --net with the bundle: whether a container shares the
// host's network is the bundle's to say.
func fitNetwork(c *cobra.Command, spec *specs.Spec, net *network.Config) error {
	own := slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	switch {
	case own && net.Mode == network.ModeHost:
		return misuse("--net host: the bundle has a network namespace in linux.namespaces: take it out of its config.json, or use --net none or bridge")
	case !own && net.Mode != network.ModeHost && c.Flags().Changed("net"):
		return misuse(`--net %s: the bundle has no network namespace in linux.namespaces: add {"type": "network"} to its config.json, or use --net host`, net.Mode)
	case !own:
		net.Mode = network.ModeHost
	}
	return nil
}

func loadSeccomp(path string) (*specs.LinuxSeccomp, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, misuse("seccomp profile: %w", err)
	}
	var s specs.LinuxSeccomp
	if err := container.Decode(data, &s); err != nil {
		return nil, misuse("seccomp profile %s: is not in the form of OCI, in JSON: %w", path, err)
	}
	if _, err := seccomp.Compile(&s); err != nil {
		return nil, misuse("seccomp profile %s: %w", path, err)
	}
	return &s, nil
}

func randomName() string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return "c" + hex.EncodeToString(b[:])
}

type runOptions struct {
	defineOptions
	detach bool
}

func newRunCommand(a *app) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run [flags] -- PROGRAM [ARGS...]",
		Short: "Run a program in a new container",
		Long: `Run a program in a new container: any program of the host, isolated, or one of
another root filesystem. What it writes goes to a private layer.

A container in the foreground ends with this command. With -d the name is printed
and the program goes on in the background; see logs, attach (whose keys to leave
are Ctrl-P Ctrl-Q), wait, stop.

Exit status: the program's, 125 crucible failed, 126 the program cannot be
executed, 127 it does not exist in the container; with -d 0 if it was started.`,
		Example: `  crucible run -- echo hello
  crucible run --name web -d --net bridge -p 8080:80 -- python3 -m http.server 80
  crucible run -t -i -- bash
  crucible run --bundle ./mybundle`,
		RunE: func(c *cobra.Command, args []string) error { return runRun(c, a, &o, args) },
	}
	o.addFlags(a, c)
	c.Flags().BoolVarP(&o.detach, "detach", "d", false, "leave it in the background and print its name")
	a.jsonFlagFor(c, "print JSON in place of the name, and errors of crucible as JSON")
	c.Flags().SetInterspersed(false)
	return c
}

func runRun(c *cobra.Command, a *app, o *runOptions, args []string) error {
	spec, create, err := o.define(c, args)
	if err != nil {
		return err
	}
	if o.explain {
		return printPlan(a, spec)
	}
	if err := needRoot("run a container"); err != nil {
		return err
	}
	create.Foreground = !o.detach
	box, err := a.root().Create(o.name, spec, create)
	if err != nil {
		return err
	}
	if o.detach {
		err = box.Launch(c.Context(), false, o.interactive)
	} else {
		return runForeground(c.Context(), a, box, o)
	}
	if err != nil {
		discard(box)
		return err
	}
	return a.printChanged(box)
}

// runForeground runs the container as our child.
func runForeground(ctx context.Context, a *app, box *container.Container, o *runOptions) error {
	// We would die of it and leave the container alone: its monitor ends it.
	signal.Ignore(unix.SIGPIPE)
	output := container.Output{Stdout: a.stdout, Stderr: a.stderr, Input: o.interactive}
	var restore func()
	code, err := box.Run(ctx, output, func(m *container.Monitor) {
		restore = a.connect(m, o)
	})
	if restore != nil {
		restore()
	}
	if err != nil && restore == nil { // it never started
		discard(box)
		return err
	}
	if code == 0 {
		var lost *container.OutputError
		if errors.As(err, &lost) {
			return err
		}
	}
	if err != nil {
		a.printFailure(failure{Message: oneLine(err), Code: code})
	}
	if code != 0 {
		return &exitError{code}
	}
	return nil
}

// discard deletes a container that never started.
func discard(box *container.Container) {
	_ = box.Delete(context.Background(), container.DeleteOptions{Force: true})
}

func printPlan(a *app, spec *specs.Spec) error {
	outside, err := container.OutsidePlan(spec)
	if err != nil {
		return err
	}
	inside, err := container.InitPlan(spec)
	if err != nil {
		return err
	}
	return a.print(a.json, map[string][]string{"outside": outside, "inside": inside}, func() error {
		_, err := fmt.Fprintf(a.stdout, "# outside, in the monitor's mount namespace\n%s\n# inside, in the container's namespaces\n%s\n",
			strings.Join(outside, "\n"), strings.Join(inside, "\n"))
		return err
	})
}

// parseNetwork reads --net, --ip and --publish.
func parseNetwork(mode, address string, publish []string) (network.Config, error) {
	c, err := network.ParseNet(mode)
	if err != nil {
		return c, err
	}
	if address != "" {
		if c.Address, err = network.ParseAddress(address); err != nil {
			return c, err
		}
	}
	for _, s := range publish {
		p, err := network.ParsePublish(s)
		if err != nil {
			return c, err
		}
		c.Publish = append(c.Publish, p)
	}
	return c, c.Validate()
}
