package proc

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Cgroup is a line of /proc/PID/cgroup (cgroups(7)).
type Cgroup struct {
	Hierarchy int // 0 is v2
	// None on v2; a named hierarchy is "name=systemd".
	Controllers []string
	// From the root of the reader's cgroup namespace.
	Path string
}

// ParseCgroups reads /proc/PID/cgroup.
func ParseCgroups(r io.Reader) ([]Cgroup, error) {
	var all []Cgroup
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		// "9:cpu,cpuacct:/path": a path may hold colons, and so may the name
		// of a hierarchy, but then a path still starts with a slash.
		id, rest, ok := strings.Cut(lines.Text(), ":")
		at := strings.Index(rest, ":/")
		n, err := strconv.Atoi(id)
		if !ok || at < 0 || err != nil {
			return nil, fmt.Errorf("cgroup: line %q is not ID:CONTROLLERS:PATH", lines.Text())
		}
		c := Cgroup{Hierarchy: n, Path: rest[at+1:]}
		if at > 0 {
			c.Controllers = strings.Split(rest[:at], ",")
		}
		all = append(all, c)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return all, nil
}

// Namespace is what a link in /proc/PID/ns leads to.
type Namespace struct {
	Kind  string // "net", also for links such as net_for_children
	Inode uint64
}

// ParseNamespace reads a link's target: "net:[4026531833]".
func ParseNamespace(target string) (Namespace, error) {
	kind, rest, ok := strings.Cut(target, ":[")
	number, closed := strings.CutSuffix(rest, "]")
	inode, err := strconv.ParseUint(number, 10, 64)
	if !ok || !closed || kind == "" || err != nil {
		return Namespace{}, fmt.Errorf("namespace %q is not KIND:[INODE]", target)
	}
	return Namespace{Kind: kind, Inode: inode}, nil
}

// FDInfo is what is wanted of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)).
type FDInfo struct {
	Flags uint64 // O_* of open(2), with O_CLOEXEC
	MntID int
	// What a kind of file adds, in order: "eventfd-count", "tfd", "inotify",
	// "lock", "clockid", "Pid", ...
	More []Detail
}

// Detail is a line of FDInfo: what stands before and after its first colon, or
// its first blank where it has no colon ("inotify wd:1 ino:2 ...").
type Detail struct {
	Key   string
	Value string
}

// ParseFDInfo reads /proc/PID/fdinfo/FD.
func ParseFDInfo(r io.Reader) (FDInfo, error) {
	info := FDInfo{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		at := strings.IndexAny(line, ": ")
		if at < 0 {
			return FDInfo{}, fmt.Errorf("fdinfo: line %q has no key", line)
		}
		key, value := line[:at], strings.TrimSpace(line[at+1:])
		var err error
		switch key {
		case "pos", "ino": // nobody asks
		case "flags":
			err = number(value, 8, &info.Flags)
		case "mnt_id":
			err = number(value, 10, &info.MntID)
		default:
			info.More = append(info.More, Detail{Key: key, Value: value})
		}
		if err != nil {
			return FDInfo{}, fmt.Errorf("fdinfo: %s: %w", key, err)
		}
	}
	if err := lines.Err(); err != nil {
		return FDInfo{}, fmt.Errorf("fdinfo: %w", err)
	}
	return info, nil
}
