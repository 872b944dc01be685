package fingerprint

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeInfo adds the lines of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)).
func (t *taker) takeInfo(key string, rows []pair, terminal bool) {
	for _, row := range rows {
		if row.key == "flags" {
			t.openFlags(key, row.value, terminal)
			continue
		}
		name, value := t.infoFact(row)
		t.put(key+"/"+name, value)
	}
}

// openFlags adds those of open(2), and apart from them the ones that tell how a
// file was opened, and nothing of what it is.
func (t *taker) openFlags(key, value string, terminal bool) {
	flags, err := strconv.ParseUint(value, 8, 64)
	if err != nil {
		t.put(key+"/flags", value)
		return
	}
	if flags&unix.O_TMPFILE == unix.O_TMPFILE {
		flags &^= unix.O_TMPFILE
		t.put(key+"/tmpfile", "yes")
	} else if flags&unix.O_DIRECTORY != 0 {
		flags &^= unix.O_DIRECTORY
		t.put(key+"/directory-only", "yes")
	}
	if terminal {
		const largeFile = 0o100000 // O_LARGEFILE, which x/sys has as 0 where every file is
		for flag, name := range map[uint64]string{largeFile: "large-file", unix.O_CLOEXEC: "close-on-exec"} {
			if flags&flag != 0 {
				flags &^= flag
				t.put(key+"/terminal-flag/"+name, "yes")
			}
		}
	}
	t.put(key+"/flags", "0"+strconv.FormatUint(flags, 8))
}

// infoFact puts a line into its canonical form.
func (t *taker) infoFact(row pair) (name, value string) {
	switch row.key {
	case "mnt_id":
		if m, known := t.mounts[row.value]; known {
			return "mount", m
		}
		return "mount", "none of init's"
	case "Pid", "PPid": // of a pidfd: as the reader numbers it
		n, err := strconv.Atoi(row.value)
		if err != nil {
			return row.key, row.value
		}
		return row.key, t.number(n)
	case "NSpid":
		all := strings.Fields(row.value)
		if len(all) == 0 {
			return row.key, ""
		}
		return row.key, all[len(all)-1]
	case "tfd", "inotify", "fanotify":
		return watchFact(row)
	case "lock":
		return "lock", t.lockFact(row.value)
	case "it_value", "it_interval":
		return row.key, nanoseconds(row.value)
	}
	return row.key, strings.Join(strings.Fields(row.value), " ")
}

// watchFact names what an epoll, inotify or fanotify descriptor waits for, and
// leaves out the numbers that file systems give (fs/notify/fdinfo.c,
// fs/eventpoll.c: ino, sdev and the handle).
func watchFact(row pair) (name, value string) {
	// "       5 events:       19 data: 7fff  pos:0 ino:3f sdev:e", "wd:1 ino:.. mask:800"
	words := strings.Fields(strings.ReplaceAll(row.value, ": ", ":"))
	name = row.key
	var kept []string
	for i := 0; i < len(words); i++ {
		word := words[i]
		key, value, pair := strings.Cut(word, ":")
		if pair && value == "" && i+1 < len(words) { // "events:       19"
			i++
			word = key + ":" + words[i]
		}
		switch {
		case i == 0 && !pair, key == "wd":
			name += "/" + strings.TrimPrefix(word, "wd:")
		case key == "ino" || key == "sdev" || key == "fhandle-bytes" || key == "fhandle-type" || key == "f_handle" || key == "mnt_id":
		default:
			kept = append(kept, word)
		}
	}
	return name, strings.Join(kept, " ")
}

// lockFact leaves of a lock, "1: POSIX  ADVISORY  WRITE 359 00:13:11691 0 EOF",
// the kind, who holds it, and the range (fs/locks.c, lock_get_status).
func (t *taker) lockFact(line string) string {
	words := strings.Fields(line)
	if len(words) < 8 {
		return strings.Join(words, " ")
	}
	pid := words[len(words)-4]
	if n, err := strconv.Atoi(pid); err == nil && n > 0 {
		pid = t.number(n)
	}
	kind := strings.Join(words[1:len(words)-4], " ")
	return fmt.Sprintf("%s by %s from %s to %s", kind, pid, words[len(words)-2], words[len(words)-1])
}

// nanoseconds reads "(3, 140000000)".
func nanoseconds(s string) string {
	seconds, nanos, ok := strings.Cut(strings.Trim(s, "()"), ",")
	a, err := strconv.ParseInt(strings.TrimSpace(seconds), 10, 64)
	b, err2 := strconv.ParseInt(strings.TrimSpace(nanos), 10, 64)
	if !ok || err != nil || err2 != nil || a < 0 || a > 1<<33 {
		return s
	}
	return strconv.FormatInt(a*1e9+b, 10)
}

// signalOwner is struct f_owner_ex of fcntl(2).
type signalOwner struct{ kind, pid int32 }

func fcntlOwner(fd int) (o signalOwner, err error) {
	const getOwnerEx = 16 // F_GETOWN_EX
	if _, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), getOwnerEx, uintptr(unsafe.Pointer(&o))); errno != 0 {
		return o, errno
	}
	return o, nil
}
