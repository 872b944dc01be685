package fingerprint

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"crucible/container/network"
	"crucible/container/safepath"
)

// takeNamespaces adds what belongs to no process but to a namespace.
func (t *taker) takeNamespaces() {
	init := t.processes[0]
	t.takeClocks(init)
	if t.subject.NetNS != nil {
		t.takeNetwork()
	}
	own := func(kind string) bool {
		theirs, err := os.Readlink(init.path("ns/" + kind))
		host, err2 := ours(kind)
		return err == nil && err2 == nil && theirs != host
	}
	if own("uts") {
		t.within(init, "uts", unix.CLONE_NEWUTS, func() {
			t.file("namespace/uts/hostname", "/proc/sys/kernel/hostname")
			t.file("namespace/uts/domainname", "/proc/sys/kernel/domainname")
		})
	}
	if own("ipc") {
		t.within(init, "ipc", unix.CLONE_NEWIPC, t.takeIPC)
		t.takeQueues(init)
	}
}

// within runs a function on a thread that has entered a namespace of a process,
// and that ends afterwards.
func (t *taker) within(p *process, kind string, flag int, f func()) {
	ns, err := os.Open(p.path("ns/" + kind))
	if err != nil {
		t.cannot("namespace/"+kind, err)
		return
	}
	defer ns.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread is not to be used again
		if err := unix.Setns(int(ns.Fd()), flag); err != nil {
			t.cannot("namespace/"+kind, err)
			return
		}
		f()
	}()
	<-done
}

// takeClocks adds the container's clocks: the host's plus an offset, which is 0
// without a time namespace, time_namespaces(7).
func (t *taker) takeClocks(init *process) {
	data, err := os.ReadFile(init.path("timens_offsets"))
	if err != nil {
		return // a kernel without time namespaces
	}
	for line := range strings.Lines(string(data)) {
		var clock string
		var seconds, nanoseconds int64
		if _, err := fmt.Sscan(line, &clock, &seconds, &nanoseconds); err != nil {
			t.cannot("clock", err)
			return
		}
		id := map[string]int32{"monotonic": unix.CLOCK_MONOTONIC, "boottime": unix.CLOCK_BOOTTIME}[clock]
		var now unix.Timespec
		if err := unix.ClockGettime(id, &now); err != nil {
			t.cannot("clock/"+clock, err)
			continue
		}
		t.put("clock/"+clock, strconv.FormatInt(now.Nano()+seconds*int64(time.Second)+nanoseconds, 10))
	}
}

// takeNetwork adds links, addresses, routes and the like, and the sysctls.
func (t *taker) takeNetwork() {
	all, err := network.Show(t.subject.NetNS)
	if err != nil {
		t.cannot("network", err)
	}
	for _, d := range all {
		t.put("network/"+d.Key, d.Value)
	}
	err = network.Do(t.subject.NetNS, func() error { return t.sysctls("/proc/sys/net", "sysctl/net") })
	if err != nil {
		t.cannot("sysctl/net", err)
	}
}

// sysctls adds all below a directory that can be read.
func (t *taker) sysctls(dir, key string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err != nil || d.IsDir() || info.Mode()&0o444 == 0 {
			return nil
		}
		value, err := text(path)
		name := key + strings.TrimPrefix(path, dir)
		if errors.Is(err, unix.EIO) && d.Name() == "stable_secret" {
			value, err = "not set", nil // net/ipv6/addrconf.c, addrconf_sysctl_stable_secret
		}
		if err != nil {
			t.cannot(name, err)
			return nil
		}
		t.put(name, strings.Join(strings.Fields(value), " "))
		return nil
	})
}

// takeIPC adds the System V objects, sysvipc(7), and the limits of the
// namespace, on a thread that is in it.
func (t *taker) takeIPC() {
	for _, name := range []string{"auto_msgmni", "msgmax", "msgmnb", "msgmni", "sem", "shm_rmid_forced", "shmall", "shmmax", "shmmni", "msg_next_id", "sem_next_id", "shm_next_id"} {
		t.tableFile("sysctl/kernel/"+name, "/proc/sys/kernel/"+name)
	}
	if err := t.sysctls("/proc/sys/fs/mqueue", "sysctl/fs/mqueue"); err != nil && !os.IsNotExist(err) {
		t.cannot("sysctl/fs/mqueue", err)
	}
	for kind, id := range map[string]string{"shm": "shmid", "msg": "msqid", "sem": "semid"} {
		f, err := os.Open("/proc/sysvipc/" + kind)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.cannot("sysvipc/"+kind, err)
			continue
		}
		rows, err := parseTable(f)
		f.Close()
		if err != nil {
			t.cannot("sysvipc/"+kind, err)
		}
		for _, row := range rows {
			t.sysvFacts("sysvipc/"+kind, id, row)
		}
	}
}

func (t *taker) sysvFacts(key, id string, row map[string]string) {
	key += "/" + row[id]
	for column, value := range row {
		switch column {
		case id:
			continue
		case "cpid", "lpid", "lspid", "lrpid":
			if n, err := strconv.Atoi(value); err == nil {
				value = t.number(n)
			}
		}
		t.put(key+"/"+column, value)
	}
	nsems, err := strconv.Atoi(row["nsems"])
	number, err2 := strconv.Atoi(row[id])
	if err != nil || err2 != nil {
		return
	}
	for i := range nsems {
		const getValue = 12 // GETVAL
		n, _, errno := unix.Syscall6(unix.SYS_SEMCTL, uintptr(number), uintptr(i), getValue, 0, 0, 0)
		if errno != 0 {
			t.cannot(fmt.Sprintf("%s/value/%d", key, i), errno)
			return
		}
		t.put(fmt.Sprintf("%s/value/%d", key, i), strconv.Itoa(int(n)))
	}
}

// parseTable reads a table whose first line names the columns.
func parseTable(r io.Reader) (rows []map[string]string, err error) {
	lines := bufio.NewScanner(r)
	var names []string
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if names == nil {
			names = words
			continue
		}
		if len(words) != len(names) {
			return rows, fmt.Errorf("%d columns in %q, not %d", len(words), lines.Text(), len(names))
		}
		row := map[string]string{}
		for i, name := range names {
			row[name] = words[i]
		}
		rows = append(rows, row)
	}
	return rows, lines.Err()
}

// takeQueues adds the POSIX message queues, mq_overview(7), where the container
// has mounted them.
func (t *taker) takeQueues(init *process) {
	const place = "/dev/mqueue"
	if t.byKey["mount["+place+"]/type"].Value != "mqueue" {
		return
	}
	root, err := os.Open(init.path("root"))
	if err != nil {
		t.cannot("mqueue", err)
		return
	}
	defer root.Close()
	dir, err := safepath.Open(root, place)
	if err != nil {
		t.cannot("mqueue", err)
		return
	}
	defer dir.Close()
	const magic = 0x19800202 // MQUEUE_MAGIC
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil || st.Type != magic {
		return
	}
	entries, err := os.ReadDir(safepath.Path(dir))
	if err != nil {
		t.cannot("mqueue", err)
		return
	}
	for _, e := range entries {
		t.tableFile("mqueue/"+e.Name(), filepath.Join(safepath.Path(dir), e.Name()))
	}
}
