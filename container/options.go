package container

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"crucible/container/confine"
)

// RunOptions are a bundle in the words of `crucible run`. The zero value with
// Args set is a program of the host, isolated.
type RunOptions struct {
	Args     []string
	Env      []string // KEY=VALUE, or KEY for the caller's value
	Cwd      string   // default /
	User     string   // UID[:GID]
	Hostname string   // default: the container's name, set by the caller
	Rootfs   string   // default / of the host
	ReadOnly bool
	Terminal bool

	Volumes []string // SRC:DST[:ro]
	Tmpfs   []string // DST[:OPTIONS]
	Devices []string // host device node to give

	Sysctls    []string // KEY=VALUE
	Rlimits    []string // TYPE=SOFT[:HARD]
	CapAdd     []string
	CapDrop    []string
	Privileges bool // may gain privileges by execve: no no_new_privs
	Seccomp    *specs.LinuxSeccomp

	Memory int64   // bytes, 0 for no limit
	CPUs   float64 // processors, 0 for no limit
	Pids   int64   // 0 for no limit

	HostNet      bool
	UserNS       string // "" for none, "auto", or CONTAINER:HOST:SIZE
	CgroupNS     bool
	TimeOffsets  []string // CLOCK=SECONDS: monotonic, boottime
	hostSubmount func() ([]string, error)
}

// OptionError is an option that makes no sense.
type OptionError struct{ Cause error }

func (e *OptionError) Error() string { return e.Cause.Error() }
func (e *OptionError) Unwrap() error { return e.Cause }

// NewSpec writes the bundle that the options ask for. What is wrong with them
// is an *OptionError.
func NewSpec(o RunOptions) (*specs.Spec, error) {
	spec, err := newSpec(o)
	if err == nil {
		err = Validate(spec)
	}
	if err != nil {
		return nil, &OptionError{err}
	}
	return spec, nil
}

func newSpec(o RunOptions) (*specs.Spec, error) {
	if len(o.Args) == 0 {
		return nil, fmt.Errorf("no program given")
	}
	if o.Rootfs == "" {
		o.Rootfs = "/"
	}
	rootfs, err := filepath.Abs(o.Rootfs)
	if err != nil {
		return nil, err
	}
	resources, err := Resources(o)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version: specs.Version, Hostname: o.Hostname,
		Root: &specs.Root{Path: rootfs, Readonly: o.ReadOnly},
		Process: &specs.Process{
			Args: o.Args, Cwd: "/", Terminal: o.Terminal, NoNewPrivileges: !o.Privileges,
			Env: environment(o),
		},
		Linux: &specs.Linux{Seccomp: o.Seccomp, MaskedPaths: maskedPaths(), ReadonlyPaths: readonlyPaths(), Resources: resources},
	}
	if o.Cwd != "" {
		spec.Process.Cwd = o.Cwd
	}
	if !filepath.IsAbs(spec.Process.Cwd) {
		return nil, fmt.Errorf("working directory %q: must be an absolute path", o.Cwd)
	}
	if st, err := os.Stat(rootfs); err != nil {
		return nil, fmt.Errorf("root filesystem %s: %w", rootfs, cause(err))
	} else if !st.IsDir() {
		return nil, fmt.Errorf("root filesystem %s: is not a directory", rootfs)
	}
	for _, set := range []func(*specs.Spec, RunOptions) error{setUser, setMounts, setNamespaces, setLimits, setDevices} {
		if err := set(spec, o); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

// cause is an error of package os without the name of the call and the path.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func environment(o RunOptions) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "HOSTNAME=" + o.Hostname, "container=crucible"}
	if o.Terminal {
		term := os.Getenv("TERM")
		if term == "" {
			term = "xterm"
		}
		env = append(env, "TERM="+term)
	}
	return mergeEnv(env, o.Env)
}

// mergeEnv puts variables in the place of those of the same name. KEY without
// a value stands for the caller's own value.
func mergeEnv(env, more []string) []string {
	env = append([]string(nil), env...)
	for _, e := range more {
		key, _, given := strings.Cut(e, "=")
		if !given {
			e += "=" + os.Getenv(key)
		}
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, key+"=") })
		env = append(env, e)
	}
	return env
}

func setUser(spec *specs.Spec, o RunOptions) error {
	caps, err := capabilities(o.CapAdd, o.CapDrop)
	if err != nil {
		return err
	}
	if o.User != "" {
		uid, gid, hasGID := strings.Cut(o.User, ":")
		if !hasGID {
			gid = uid
		}
		u, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("user %q: must be UID or UID:GID", o.User)
		}
		g, err := strconv.ParseUint(gid, 10, 32)
		if err != nil {
			return fmt.Errorf("user %q: must be UID or UID:GID", o.User)
		}
		spec.Process.User = specs.User{UID: uint32(u), GID: uint32(g)}
	}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	if spec.Process.User.UID != 0 {
		spec.Process.Capabilities.Effective, spec.Process.Capabilities.Permitted = nil, nil
	}
	return nil
}

// capabilities are the default ones, changed as with podman: "ALL" is a word.
func capabilities(add, drop []string) ([]string, error) {
	set := map[string]bool{}
	for _, c := range confine.DefaultCapabilities() {
		set[c] = true
	}
	canonical := func(c string) string {
		c = strings.ToUpper(c)
		if c != "ALL" && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		return c
	}
	for _, c := range drop {
		if c = canonical(c); c == "ALL" {
			clear(set)
		}
		delete(set, c)
	}
	for _, c := range add {
		if c = canonical(c); c != "ALL" {
			set[c] = true
			continue
		}
		all, err := confine.AllCapabilities()
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			set[c] = true
		}
	}
	var names []string
	for c := range set {
		names = append(names, c)
	}
	sort.Strings(names)
	return names, nil
}

func setNamespaces(spec *specs.Spec, o RunOptions) error {
	kinds := []specs.LinuxNamespaceType{specs.PIDNamespace, specs.MountNamespace, specs.UTSNamespace, specs.IPCNamespace}
	if !o.HostNet {
		kinds = append(kinds, specs.NetworkNamespace)
	}
	if o.CgroupNS {
		kinds = append(kinds, specs.CgroupNamespace)
	}
	if o.UserNS != "" {
		kinds = append(kinds, specs.UserNamespace)
		m, err := parseIDMap(o.UserNS)
		if err != nil {
			return err
		}
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = m, m
	}
	if o.UserNS != "" && !o.HostNet {
		// Its root has no rights over the network namespace. What that costs most
		// programs are the low ports and ping, and both can be given by sysctls.
		spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
	}
	if len(o.TimeOffsets) > 0 {
		kinds = append(kinds, specs.TimeNamespace)
		spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{}
	}
	for _, t := range o.TimeOffsets {
		clock, seconds, _ := strings.Cut(t, "=")
		secs, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil || clock != "monotonic" && clock != "boottime" {
			return fmt.Errorf("time offset %q: must be monotonic=SECONDS or boottime=SECONDS", t)
		}
		spec.Linux.TimeOffsets[clock] = specs.LinuxTimeOffset{Secs: secs}
	}
	for _, k := range kinds {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: k})
	}
	return nil
}

// parseIDMap reads "auto" or CONTAINER:HOST:SIZE[,...]. auto maps 65,536 ids
// from 100,000 on, the range that useradd(8) gives to the first user.
func parseIDMap(s string) ([]specs.LinuxIDMapping, error) {
	if s == "auto" {
		return []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}, nil
	}
	var maps []specs.LinuxIDMapping
	for _, one := range strings.Split(s, ",") {
		var n [3]uint32
		parts := strings.Split(one, ":")
		bad := len(parts) != len(n)
		for i := 0; i < len(n) && !bad; i++ {
			v, err := strconv.ParseUint(parts[i], 10, 32)
			n[i], bad = uint32(v), err != nil
		}
		if bad || n[2] == 0 {
			return nil, fmt.Errorf("user namespace %q: must be auto or CONTAINER:HOST:SIZE[,...]", s)
		}
		maps = append(maps, specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]})
	}
	return maps, nil
}

// leastMemory is below what any program needs to start. With a few pages we
// could not even come back from the container's cgroup, in which our thread
// stands while it clones.
const leastMemory = 1 << 20

// Resources are the limits that the options ask for.
func Resources(o RunOptions) (*specs.LinuxResources, error) {
	// A quota is at least 1 ms, of a period of 100 (min_cfs_quota_period in
	// kernel/sched/core.c).
	const period, leastQuota = 100_000, 1_000 // microseconds
	switch quota := o.CPUs * period; {
	case o.Memory != 0 && o.Memory < leastMemory:
		return nil, &OptionError{fmt.Errorf("limit of memory %d: must be at least 1m, or 0 for none", o.Memory)}
	case o.CPUs != 0 && !(quota >= leastQuota && quota <= math.MaxInt32):
		return nil, &OptionError{fmt.Errorf("limit of processors %v: must be from 0.01 on, or 0 for none", o.CPUs)}
	case o.Pids < 0:
		return nil, &OptionError{fmt.Errorf("limit of tasks %d: must not be below 0", o.Pids)}
	}
	r := &specs.LinuxResources{}
	if o.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &o.Memory}
	}
	if o.CPUs > 0 {
		period := uint64(period) // the kernel's default
		quota := int64(o.CPUs * float64(period))
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if o.Pids > 0 {
		r.Pids = &specs.LinuxPids{Limit: &o.Pids}
	}
	return r, nil
}

func setLimits(spec *specs.Spec, o RunOptions) error {
	for _, s := range o.Sysctls {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("sysctl %q: must be KEY=VALUE", s)
		}
		if spec.Linux.Sysctl == nil {
			spec.Linux.Sysctl = map[string]string{}
		}
		spec.Linux.Sysctl[key] = value
	}
	for _, s := range o.Rlimits {
		kind, value, ok := strings.Cut(s, "=")
		soft, hard, two := strings.Cut(value, ":")
		if !two {
			hard = soft
		}
		low, err1 := parseLimit(soft)
		high, err2 := parseLimit(hard)
		if !ok || err1 != nil || err2 != nil {
			return fmt.Errorf("limit %q: must be TYPE=SOFT[:HARD], for example nofile=1024", s)
		}
		kind = strings.ToUpper(kind)
		if !strings.HasPrefix(kind, "RLIMIT_") {
			kind = "RLIMIT_" + kind
		}
		spec.Process.Rlimits = append(spec.Process.Rlimits, specs.POSIXRlimit{Type: kind, Soft: low, Hard: high})
	}
	return nil
}

func parseLimit(s string) (uint64, error) {
	if s == "unlimited" || s == "-1" {
		return ^uint64(0), nil
	}
	return strconv.ParseUint(s, 10, 64)
}
