package podman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container"
	"crucible/container/mount"
	"crucible/proto/imagepb"
)

// conversion changes CRIU's files in dir from the ways of runc and crun to ours.
type conversion struct {
	ctx  context.Context
	dir  string
	spec *specs.Spec
	// descriptors are what standard input, output and error were.
	descriptors []string

	ids    object // of the container's first process
	host   object // of CRIU itself
	mounts *imagepb.Mounts
	// rootMode is that of the root directory, if it is open.
	rootMode int64
	// cgroups are mounts that are left out.
	cgroups []int64
	notes   []string
}

func (c *conversion) run() error {
	tree, err := load(c.ctx, filepath.Join(c.dir, "pstree.img"))
	if err != nil {
		return err
	}
	if len(tree.entries) == 0 {
		return errors.New("pstree.img names no process")
	}
	inventory, err := load(c.ctx, filepath.Join(c.dir, "inventory.img"))
	if err != nil {
		return err
	}
	ids, err := load(c.ctx, filepath.Join(c.dir, fmt.Sprintf("ids-%d.img", number(tree.entries[0], "pid"))))
	if err != nil {
		return err
	}
	if len(ids.entries) == 0 || len(inventory.entries) == 0 {
		return errors.New("ids or inventory are empty")
	}
	c.ids, c.host = ids.entries[0], part(inventory.entries[0], "root_ids")
	files, err := load(c.ctx, filepath.Join(c.dir, "files.img"))
	if err != nil {
		return err
	}
	if err := c.convertMounts(files); err != nil {
		return err
	}
	if err := c.convertStdio(files); err != nil {
		return err
	}
	old, own := number(c.ids, "net_ns_id"), number(c.host, "net_ns_id")
	replace(files.whole["entries"], "ns_id", old, own)
	if err := files.save(c.ctx); err != nil {
		return err
	}
	return c.convertIDs(old, own)
}

// convertIDs puts the tasks into the network namespace that CRIU is in.
func (c *conversion) convertIDs(old, own int64) error {
	all, err := loadAll(c.ctx, c.dir, "ids-*.img")
	if err != nil {
		return err
	}
	for _, d := range all {
		for _, e := range d.entries {
			replace(e, "net_ns_id", old, own)
		}
		if err := d.save(c.ctx); err != nil {
			return err
		}
	}
	return nil
}

// What CRIU calls the filesystems of cgroups (its mnt.proto).
const fsCgroup, fsCgroup2 = 12, 23

// convertMounts marks as external what the bundle makes, and takes away what
// it does not have any more.
func (c *conversion) convertMounts(files *document) error {
	d, err := load(c.ctx, filepath.Join(c.dir, fmt.Sprintf("mountpoints-%d.img", number(c.ids, "mnt_ns_id"))))
	if err != nil {
		return err
	}
	hidden := c.hideCgroups(d)
	ours, err := container.Mounts(c.spec)
	if err != nil {
		return err
	}
	c.mounts = &imagepb.Mounts{}
	gone := map[int64]int64{} // by id: what it was mounted on
	var kept []object
	for n := len(d.entries) - 1; n >= 0; n-- { // parents first
		e := d.entries[n]
		m := describe(e)
		if hidden != "" && (m.Point == hidden || strings.HasPrefix(m.Point, hidden+"/")) {
			c.cgroups = append(c.cgroups, int64(m.Id))
			continue
		}
		switch index := owner(ours, m.Point, number(e, "fstype")); {
		case m.Point == "/":
			m.Origin = imagepb.MountOrigin_MOUNT_ORIGIN_MADE_BY_US
		case c.maskFile(m):
			m.Origin, m.CriuKey, m.HostPath = imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL, m.Point, "crucible:null"
		case index >= 0:
			m.Origin, m.CriuKey, m.BundleIndex = imagepb.MountOrigin_MOUNT_ORIGIN_EXTERNAL, m.Point, uint32(index)
		case e["ext_key"] != nil:
			gone[int64(m.Id)] = int64(m.Parent)
			continue
		}
		if m.CriuKey != "" {
			e["ext_key"] = m.CriuKey
		}
		kept = append(kept, e)
		c.mounts.Mounts = append(c.mounts.Mounts, m)
	}
	for i, j := 0, len(kept)-1; i < j; i, j = i+1, j-1 {
		kept[i], kept[j] = kept[j], kept[i]
	}
	d.entries = kept
	c.closeCgroups(files)
	for _, e := range files.entries {
		// Each process has it open: it is where it is.
		if reg := part(e, "reg"); text(reg, "name") == "/" && number(reg, "mnt_id") == c.mountOf("/") {
			c.rootMode = number(reg, "mode") & 0o7777
		}
	}
	for _, e := range d.entries {
		if _, lost := gone[number(e, "parent_mnt_id")]; lost {
			return &Error{Text: fmt.Sprintf("%s is mounted on a file of Podman's, which does not come along", text(e, "mountpoint"))}
		}
	}
	// What is open there is open in the root filesystem now.
	for id, below := range gone {
		replace(files.whole["entries"], "mnt_id", id, below)
	}
	return d.save(c.ctx)
}

// hideCgroups takes the mounts of cgroups out of the bundle, and says where they
// are, if they are of version 1: the container's group is not in the same
// hierarchies as runc's.
func (c *conversion) hideCgroups(mounts *document) (point string) {
	if !slices.ContainsFunc(mounts.entries, func(e object) bool { return number(e, "fstype") == fsCgroup }) {
		return ""
	}
	c.spec.Mounts = slices.DeleteFunc(c.spec.Mounts, func(m specs.Mount) bool {
		if m.Type != "cgroup" {
			return false
		}
		point = m.Destination
		return true
	})
	if point != "" {
		c.notes = append(c.notes, "it does not see its cgroups in "+point)
	}
	return point
}

// closeCgroups makes the null device of files that are open there: Go's runtime
// reads the limit of processor time from one, and takes an empty one for none.
func (c *conversion) closeCgroups(files *document) {
	for _, e := range files.entries {
		reg := part(e, "reg")
		if reg == nil || !slices.Contains(c.cgroups, number(reg, "mnt_id")) {
			continue
		}
		c.notes = append(c.notes, text(reg, "name")+" was open, and is the null device now")
		reg["name"], reg["mnt_id"], reg["mode"], reg["flags"] = "/dev/null", c.mountOf("/dev"), unix.S_IFCHR|0o666, number(reg, "flags")&unix.O_ACCMODE
		delete(reg, "size")
	}
}

// owner finds the bundle's mount that a mount is, or comes with; -1: none.
func owner(ours []mount.Mount, point string, fstype int64) int {
	found := -1
	for n, o := range ours {
		below := (o.Recursive || o.Type == "cgroup" && (fstype == fsCgroup || fstype == fsCgroup2)) && strings.HasPrefix(point, o.Target+"/")
		if !o.Inside() && (point == o.Target || below) {
			found = n
		}
	}
	return found
}

// maskFile: the null device, over a file that is not to be seen.
func (c *conversion) maskFile(m *imagepb.Mount) bool {
	for _, p := range c.spec.Linux.MaskedPaths {
		if p == m.Point {
			return m.Root == "/null"
		}
	}
	return false
}

// describe is an entry of mountpoints.img as a line of mountinfo.
func describe(e object) *imagepb.Mount {
	dev := number(e, "root_dev") // as the kernel has it: 12 and 20 bits
	m := &imagepb.Mount{
		Id: int32(number(e, "mnt_id")), Parent: int32(number(e, "parent_mnt_id")), Major: uint32(dev >> 20), Minor: uint32(dev & 0xfffff),
		Root: text(e, "root"), Point: text(e, "mountpoint"), Source: text(e, "source"), Origin: imagepb.MountOrigin_MOUNT_ORIGIN_IN_IMAGE,
		Type: map[int64]string{1: "proc", 2: "sysfs", 5: "tmpfs", 6: "devpts", fsCgroup: "cgroup", 14: "mqueue", 17: "overlay", fsCgroup2: "cgroup2"}[number(e, "fstype")],
	}
	flags := number(e, "flags")
	for _, f := range []struct {
		bit  int64
		word string
	}{{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"}} {
		if flags&f.bit != 0 {
			m.Options = append(m.Options, f.word)
		}
	}
	if o := text(e, "options"); o != "" {
		m.SuperOptions = strings.Split(o, ",")
	}
	return m
}

// convertStdio makes our FIFOs of the pipes to conmon, and of a pipe that is
// standard input, the null device.
func (c *conversion) convertStdio(files *document) error {
	dev := c.mountOf("/dev")
	next := int64(0)
	for _, e := range files.entries {
		next = max(next, number(e, "id")+1)
	}
	changed := map[int64]string{} // by id: what it is now
	var more []object
	for _, e := range files.entries {
		pipe := part(e, "pipe")
		stream := c.stream(number(pipe, "pipe_id"))
		if pipe == nil || stream < 0 {
			continue
		}
		id := number(e, "id")
		reg := object{"id": id, "pos": 0, "fown": pipe["fown"], "mnt_id": dev, "name": "/dev/null", "flags": unix.O_RDONLY | 0o100000, "mode": unix.S_IFCHR | 0o666}
		delete(e, "pipe")
		if stream == 0 {
			e["type"], e["reg"], changed[id] = "REG", reg, "REG"
			continue
		}
		e["type"], changed[id] = "FIFO", "FIFO"
		e["fifo"] = object{"id": id, "pipe_id": pipe["pipe_id"], "regf_id": next}
		reg["id"], reg["name"], reg["flags"], reg["mode"] = next, "/dev/crucible/"+[]string{"", "stdout", "stderr"}[stream], unix.O_WRONLY|0o100000, unix.S_IFIFO|0o600
		more = append(more, object{"type": "REG", "id": next, "reg": reg})
		next++
	}
	files.entries = append(files.entries, more...)
	if len(changed) == 0 {
		return nil
	}
	if dev == 0 {
		return &Error{Text: "the container has no /dev of its own"}
	}
	tables, err := loadAll(c.ctx, c.dir, "fdinfo-*.img")
	if err != nil {
		return err
	}
	for _, d := range tables {
		for _, e := range d.entries {
			if kind, is := changed[number(e, "id")]; is {
				e["type"] = kind
			}
		}
		if err := d.save(c.ctx); err != nil {
			return err
		}
	}
	return nil
}

// stream says which standard stream a pipe is; -1: none.
func (c *conversion) stream(pipe int64) int {
	for n, d := range c.descriptors {
		if n < 3 && d == "pipe:["+strconv.FormatInt(pipe, 10)+"]" {
			return n
		}
	}
	return -1
}

func (c *conversion) mountOf(point string) int64 {
	for _, m := range c.mounts.Mounts {
		if m.Point == point {
			return int64(m.Id)
		}
	}
	return 0
}

// processes are those of CRIU's files.
func (c *conversion) processes() (*imagepb.Processes, error) {
	tree, err := load(c.ctx, filepath.Join(c.dir, "pstree.img"))
	if err != nil {
		return nil, err
	}
	out := &imagepb.Processes{}
	for n, e := range tree.entries {
		threads, _ := e["threads"].([]any)
		p := &imagepb.Process{
			Pid: int32(number(e, "pid")), Ppid: int32(number(e, "ppid")), Pgid: int32(number(e, "pgid")), Sid: int32(number(e, "sid")),
			Threads: uint32(len(threads)),
		}
		core, err := load(c.ctx, filepath.Join(c.dir, fmt.Sprintf("core-%d.img", p.Pid)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && len(core.entries) > 0 {
			p.Comm = text(part(core.entries[0], "tc"), "comm")
		}
		if n == 0 {
			p.Args = c.spec.Process.Args
		}
		out.Processes = append(out.Processes, p)
	}
	return out, nil
}
