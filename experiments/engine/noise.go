package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Noise is what the host did while a run went on.
type Noise struct {
	Steal float64 `json:"steal"` // part of the processors' time that the hypervisor gave to others
	Busy  float64 `json:"busy"`  // part of it in which they worked, for us or others
	Load  float64 `json:"load"`  // average of the last minute, at the end: /proc/loadavg
}

// ticks are the first line of /proc/stat (proc_stat(5)): USER_HZ since boot.
type ticks struct{ all, idle, steal uint64 }

func readTicks() (ticks, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return ticks{}, err
	}
	defer f.Close()
	return parseTicks(f)
}

func parseTicks(r io.Reader) (t ticks, err error) {
	line, err := bufio.NewReader(r).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) < 9 || fields[0] != "cpu" {
		return t, errors.New("read /proc/stat: unexpected form")
	}
	for i, text := range fields[1:9] { // guest time behind it is in user time already
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return t, fmt.Errorf("read /proc/stat: %w", err)
		}
		t.all += n
		switch i {
		case 3, 4: // idle, iowait
			t.idle += n
		case 7:
			t.steal = n
		}
	}
	return t, nil
}

// since is the noise between two looks.
func (t ticks) since(before ticks) Noise {
	all := float64(t.all - before.all)
	if all <= 0 {
		return Noise{Load: load()}
	}
	steal := float64(t.steal-before.steal) / all
	return Noise{Steal: steal, Busy: 1 - float64(t.idle-before.idle)/all - steal, Load: load()}
}

// coarse is how much stolen time is within what the kernel's ticks, of 4 to 10 ms,
// can tell in a short run.
const coarse = 0.03

// beyond tells whether more than a part of so many seconds was stolen.
func (n Noise) beyond(limit, seconds float64) bool {
	return n.Steal > limit && n.Steal*seconds*float64(runtime.NumCPU()) > coarse
}

func load() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(data), " ")
	n, _ := strconv.ParseFloat(first, 64)
	return n
}

// available is MemAvailable, in bytes.
func available() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if _, err := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, errors.New("read /proc/meminfo: no MemAvailable")
}
