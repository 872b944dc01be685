package fingerprint

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeProcess adds what the threads of a process have in common.
func (t *taker) takeProcess(p *process) {
	key := p.key()
	t.takeStatus(p)
	t.takeStat(p)
	if p.zombie {
		return
	}
	for _, name := range []string{"exe", "cwd", "root"} {
		t.link(key+"/"+name, p.path(name))
	}
	for _, name := range []string{"oom_score_adj", "personality", "coredump_filter", "loginuid", "sessionid", "setgroups", "projid_map", "uid_map", "gid_map", "cpuset"} {
		t.tableFile(key+"/"+name, p.path(name))
	}
	if line, err := text(p.path("cmdline")); err == nil {
		t.put(key+"/cmdline", strings.ReplaceAll(strings.TrimSuffix(line, "\x00"), "\x00", " "))
	} else {
		t.cannot(key+"/cmdline", err)
	}
	t.digestFile(key+"/environ", p.path("environ"))
	t.takeAuxv(p)
	t.takeLimits(p)
	t.takeTimers(p)
	t.takeCgroupOf(key, p.path("cgroup"))
	t.takeNamespacesOf(p)
	t.takeOwner(p)
	t.takeMemory(p)
	for i := range p.fds {
		t.takeDescriptor(p, &p.fds[i])
	}
}

// tableFile adds a file whose blanks are there for the looks.
func (t *taker) tableFile(key, path string) {
	value, err := text(path)
	if err != nil {
		t.file(key, path) // says why
		return
	}
	var lines []string
	for line := range strings.Lines(value) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	t.put(key, strings.Join(lines, "; "))
}

// digestFile adds a digest of what is long, or a secret.
func (t *taker) digestFile(key, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.cannot(key, err)
		return
	}
	sum := sha256.Sum256(data)
	t.put(key, fmt.Sprintf("%d bytes, sha256 %s", len(data), hex.EncodeToString(sum[:16])))
}

// takeAuxv adds the auxiliary vector, getauxval(3), entry by entry.
func (t *taker) takeAuxv(p *process) {
	data, err := os.ReadFile(p.path("auxv"))
	if err != nil {
		t.cannot(p.key()+"/auxv", err)
		return
	}
	const size = int(unsafe.Sizeof(uintptr(0)))
	word := func(b []byte) uint64 {
		if size == 4 {
			return uint64(binary.NativeEndian.Uint32(b))
		}
		return binary.NativeEndian.Uint64(b)
	}
	for ; len(data) >= 2*size; data = data[2*size:] {
		kind, value := word(data), word(data[size:])
		if kind == 0 { // AT_NULL
			break
		}
		t.put(fmt.Sprintf("%s/auxv/%d", p.key(), kind), fmt.Sprintf("%#x", value))
	}
}

// takeLimits adds the table of resource limits, getrlimit(2).
func (t *taker) takeLimits(p *process) {
	data, err := os.ReadFile(p.path("limits"))
	if err != nil {
		t.cannot(p.key()+"/limits", err)
		return
	}
	for _, row := range parseLimits(bytes.NewReader(data)) {
		t.put(p.key()+"/limits/"+row.key, row.value)
	}
}

// pair is a line of one of the kernel's tables.
type pair struct{ key, value string }

// parseLimits reads /proc/PID/limits: a name of several words in 26 columns,
// then soft, hard and, for most, the unit.
func parseLimits(r io.Reader) (rows []pair) {
	const nameColumns = 26 // fs/proc/base.c, proc_pid_limits: "%-25s "
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		line := lines.Text()
		if first || len(line) <= nameColumns {
			continue
		}
		name := strings.ToLower(strings.TrimSpace(line[:nameColumns]))
		rows = append(rows, pair{strings.ReplaceAll(strings.TrimPrefix(name, "max "), " ", "-"), strings.Join(strings.Fields(line[nameColumns:]), " ")})
	}
	return rows
}

// parseKeyed reads "key:\tvalue" lines, as status and fdinfo have them. A line
// without a colon has its first word for a key.
func parseKeyed(r io.Reader) (rows []pair, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		at := strings.IndexAny(line, ": ")
		if at <= 0 {
			if line != "" {
				rows = append(rows, pair{line, ""})
			}
			continue
		}
		rows = append(rows, pair{line[:at], strings.TrimSpace(line[at+1:])})
	}
	return rows, lines.Err()
}

// takeTimers adds the timers of timer_create(2). What is left of each the kernel
// does not show.
func (t *taker) takeTimers(p *process) {
	data, err := os.ReadFile(p.path("timers"))
	if err != nil {
		if !os.IsNotExist(err) {
			t.cannot(p.key()+"/timer", err)
		}
		return
	}
	rows, err := parseKeyed(bytes.NewReader(data))
	if err != nil {
		t.cannot(p.key()+"/timer", err)
		return
	}
	id := ""
	for _, row := range rows {
		switch row.key {
		case "ID":
			id = row.value
			continue
		case "notify": // "signal/tid.7": fs/proc/base.c, show_timer
			how, pid, _ := strings.Cut(row.value, ".")
			if n, err := strconv.Atoi(pid); err == nil {
				row.value = how + " to " + t.number(n)
			}
		}
		t.put(fmt.Sprintf("%s/timer/%s/%s", p.key(), id, row.key), row.value)
	}
}

// takeOwner adds who owns the process's files in /proc: root where the process
// may not be looked into, prctl(2) PR_SET_DUMPABLE.
func (t *taker) takeOwner(p *process) {
	var st unix.Stat_t
	if err := unix.Stat(p.path("status"), &st); err != nil {
		t.cannot(p.key()+"/owner", err)
		return
	}
	t.put(p.key()+"/owner", fmt.Sprintf("%d:%d", st.Uid, st.Gid))
}

// takeNamespacesOf adds which namespaces a process is in.
func (t *taker) takeNamespacesOf(p *process) {
	entries, err := os.ReadDir(p.path("ns"))
	if err != nil {
		t.cannot(p.key()+"/ns", err)
		return
	}
	for _, e := range entries {
		key := p.key() + "/ns/" + e.Name()
		name, err := t.namespaceName(p, e.Name())
		if err != nil {
			t.cannot(key, err)
			continue
		}
		t.put(key, name)
	}
}

// namespaceName tells whose namespace it is: the host's, that of the process
// with the lowest number that is in it, or nobody's but this one's children's.
func (t *taker) namespaceName(p *process, file string) (string, error) {
	target, err := os.Readlink(p.path("ns/" + file))
	if err != nil {
		return "", err
	}
	kind := strings.TrimSuffix(file, "_for_children")
	if t.hosts(kind, target) {
		return "host's", nil
	}
	for _, other := range t.processes {
		if link, err := os.Readlink(other.path("ns/" + kind)); err == nil && link == target {
			return fmt.Sprintf("that of process %d", other.inside), nil
		}
	}
	return "another", nil
}

// hosts tells whether a namespace is the host's. The caller may be a monitor,
// which stands in the container's network and in a mount namespace of its own.
func (t *taker) hosts(kind, target string) bool {
	switch kind {
	case "net":
		return t.subject.NetNS == nil
	case "mnt":
		return false
	}
	host, err := ours(kind)
	return err == nil && host == target
}

// ours is a namespace of the caller's. Not that of /proc/self, which is the first
// thread's: see within, which may have taken that one.
func ours(kind string) (string, error) { return os.Readlink("/proc/thread-self/ns/" + kind) }

// takeCgroupOf adds the groups of a task, from the container's own group on.
func (t *taker) takeCgroupOf(key, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.cannot(key+"/cgroup", err)
		return
	}
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, where, _ := strings.Cut(rest, ":")
		if g := t.subject.Group; g != nil {
			if _, inside, ok := strings.Cut(where+"/", "/"+filepath.Join(cgroupTop, g.Name())+"/"); ok {
				where = "own/" + strings.TrimSuffix(inside, "/")
			}
		}
		if controllers == "" {
			controllers = "v2"
		}
		t.put(key+"/cgroup/"+controllers, where)
	}
}
