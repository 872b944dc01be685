package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"crucible/container/cgroup"
	"crucible/container/confine"
	"crucible/container/mount"
)

// BundleError says which field of a bundle is wrong or not supported.
type BundleError struct {
	Path  string // of the config.json
	Cause error
}

func (e *BundleError) Error() string { return fmt.Sprintf("bundle %s: %v", e.Path, e.Cause) }
func (e *BundleError) Unwrap() error { return e.Cause }

// LoadSpec reads a config.json.
func LoadSpec(path string) (*specs.Spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &BundleError{Path: path, Cause: cause(err)}
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, &BundleError{Path: path, Cause: err}
	}
	return &spec, nil
}

// LoadBundle reads and checks the bundle in a directory, down to keys that
// nobody knows and limits that this machine's cgroups do not have. Relative
// paths in it are made absolute, as seen from the bundle.
func LoadBundle(dir string) (*specs.Spec, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &BundleError{Path: path, Cause: cause(err)}
	}
	spec := &specs.Spec{}
	if err := Decode(data, spec); err != nil {
		return nil, &BundleError{Path: path, Cause: err}
	}
	if spec.Root != nil && !filepath.IsAbs(spec.Root.Path) {
		spec.Root.Path = filepath.Join(dir, spec.Root.Path)
	}
	for i, m := range spec.Mounts {
		if m.Type == "bind" && !filepath.IsAbs(m.Source) {
			spec.Mounts[i].Source = filepath.Join(dir, m.Source)
		}
	}
	if err = Validate(spec); err == nil {
		// Not a part of Validate: a restore brings an image's limits to this
		// machine's version of cgroups.
		err = cgroup.Check(spec.Linux.Resources)
	}
	if err != nil {
		return nil, &BundleError{Path: path, Cause: err}
	}
	return spec, nil
}

// Validate refuses a bundle that asks for what is not supported, or makes no
// sense; the error names the field. A field that passes is honoured, except for
// annotations, which are for others to read.
func Validate(spec *specs.Spec) error {
	if err := checkVersion(spec.Version); err != nil {
		return err
	}
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return errors.New("process.args: is missing")
	}
	if !filepath.IsAbs(spec.Process.Cwd) {
		return fmt.Errorf("process.cwd: %q is not an absolute path", spec.Process.Cwd)
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return errors.New("root.path: is missing")
	}
	if st, err := os.Stat(spec.Root.Path); err != nil {
		return fmt.Errorf("root.path: %s: %w", spec.Root.Path, cause(err))
	} else if !st.IsDir() {
		return fmt.Errorf("root.path: %s: is not a directory", spec.Root.Path)
	}
	if spec.Linux == nil {
		return errors.New("linux: is missing")
	}
	if err := unsupported(spec); err != nil {
		return err
	}
	if r := spec.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Limit != nil {
		if n := *r.Memory.Limit; n >= 0 && n < leastMemory {
			return fmt.Errorf("linux.resources.memory.limit: %d bytes are too few for any program", n)
		}
	}
	if _, err := namespacesOf(spec); err != nil {
		return err
	}
	if _, err := mountsOf(spec); err != nil {
		return err
	}
	for _, err := range []error{
		checkConsole(spec.Process), checkIDs(spec), checkPaths(spec.Linux), checkOffsets(spec.Linux.TimeOffsets),
		checkSeccomp(spec.Linux), confine.Check(spec),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// unsupported names the first field that is set and that Crucible would have
// to ignore.
func unsupported(spec *specs.Spec) error {
	l, p := spec.Linux, spec.Process
	hooks := spec.Hooks
	for _, f := range []struct {
		set   bool
		field string
	}{
		{spec.Solaris != nil, "solaris"}, {spec.Windows != nil, "windows"}, {spec.VM != nil, "vm"},
		{spec.ZOS != nil, "zos"}, {spec.FreeBSD != nil, "freebsd"},
		//lint:ignore SA1019 the deprecated field may stand in a bundle
		{hooks != nil && len(hooks.Prestart)+len(hooks.CreateRuntime)+len(hooks.CreateContainer)+
			len(hooks.StartContainer)+len(hooks.Poststart)+len(hooks.Poststop) > 0, "hooks"},
		{p.ApparmorProfile != "", "process.apparmorProfile"},
		{p.SelinuxLabel != "", "process.selinuxLabel"},
		{l.MountLabel != "", "linux.mountLabel"},
		{p.Scheduler != nil, "process.scheduler"},
		{p.IOPriority != nil, "process.ioPriority"},
		{p.ExecCPUAffinity != nil, "process.execCPUAffinity"},
		{p.CommandLine != "", "process.commandLine"},
		{p.User.Username != "", "process.user.username (uid and gid are)"},
		{l.IntelRdt != nil, "linux.intelRdt"},
		{l.Personality != nil && (l.Personality.Domain != specs.PerLinux || len(l.Personality.Flags) > 0), "linux.personality"},
		{l.MemoryPolicy != nil, "linux.memoryPolicy"},
		{len(l.NetDevices) > 0, "linux.netDevices"},
		{l.CgroupsPath != "", "linux.cgroupsPath (the cgroup is crucible/NAME)"},
		{l.RootfsPropagation != "" && l.RootfsPropagation != "private" && l.RootfsPropagation != "rprivate", "linux.rootfsPropagation (private is)"},
	} {
		if f.set {
			return fmt.Errorf("%s: not supported", f.field)
		}
	}
	return nil
}

// mountsOf are the bundle's mounts, in order. A bundle without a /dev gets one:
// the standard streams live there.
func mountsOf(spec *specs.Spec) ([]mount.Mount, error) {
	var all []mount.Mount
	hasDev := false
	for i, s := range spec.Mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		m, err := mount.Parse(s, field)
		if err != nil {
			return nil, err
		}
		for _, before := range all {
			if before.Inside() && before.Type != "devpts" && !m.Inside() && within(m.Target, before.Target) {
				return nil, fmt.Errorf("%s.destination: a mount below %s is not supported", field, before.Target)
			}
		}
		if m.Target == "/dev" {
			if m.Type != "tmpfs" {
				return nil, fmt.Errorf("%s.type: /dev must be a tmpfs", field)
			}
			hasDev = true
		}
		all = append(all, m)
	}
	if !hasDev {
		dev, err := mount.Parse(devMount(), "/dev")
		if err != nil {
			return nil, err
		}
		all = append([]mount.Mount{dev}, all...)
	}
	return all, nil
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && (len(rel) < 3 || rel[:3] != "../")
}
