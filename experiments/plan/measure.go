package plan

import (
	"strings"
)

// Unit is what a measure counts.
type Unit string

// The units. Times are seconds, whatever they are shown in.
const (
	Seconds Unit = "s"
	Bytes   Unit = "bytes"
	Count   Unit = ""
)

// Measure is a number that a run yields. Where a run does the same step several
// times it is the mean of them.
type Measure struct {
	Name   string `json:"name"`
	Unit   Unit   `json:"unit"`
	What   string `json:"what"`
	Source string `json:"source"` // where the number comes from
}

// Measures are all that can be asked for, beside the phases: see [FindMeasure].
func Measures() []Measure {
	command := "the clock around the whole command, from fork to exit"
	own := "crucible's own clock, in the result of the command"
	return []Measure{
		{"run", Seconds, "crucible run", command},
		{"ready", Seconds, "from the start of crucible run until the program is ready", "the readiness probe"},
		{"checkpoint", Seconds, "crucible checkpoint", command},
		{"frozen", Seconds, "how long no task of the container ran", own},
		{"restore", Seconds, "crucible restore", command},
		{"clone", Seconds, "crucible restore of all clones of a step", command},
		{"first-answer", Seconds, "from the start of crucible restore until the program is ready again", "the readiness probe"},
		{"downtime", Seconds, "the longest time that the client waited for an answer, over all steps", "the client: a question a millisecond after the last answer, on one TCP connection"},
		{"image-size", Bytes, "files of the image", "the manifest"},
		{"image-pages", Bytes, "memory pages in the image", "the manifest: criu/pages-*.img"},
		{"store-size", Bytes, "what all images of the run take on disk, at the end", "blocks of their files: st_blocks of stat(2)"},
		{"checkpoint-cpu", Seconds, "user and system time of crucible checkpoint and CRIU", "getrusage(2) of the command and what it has waited for"},
		{"checkpoint-memory", Bytes, "the most memory that crucible checkpoint, or CRIU, had", "ru_maxrss of getrusage(2)"},
		{"restore-cpu", Seconds, "user and system time of crucible restore, without its monitor", "getrusage(2)"},
		{"container-memory", Bytes, "memory of the container's cgroup at the end", "crucible stats"},
		{"differences", Count, "what is not as it was, of all that the kernel shows: checkpoint and restore with {verify: true}", "the fingerprints: crucible restore --help"},
		{"machine-memory", Bytes, "memory that the machine has less of at the end than before the run; on a machine that does other things it may be less than nothing", "MemAvailable of /proc/meminfo (proc_meminfo(5))"},
		{"leaks", Count, "cgroups, links, mounts and processes of the run that are left when it has been cleaned up", "the kernel's lists, before and after"},
		{"failed", Count, "1: the run failed", "the run's verdict"},
	}
}

// FindMeasure finds a measure by its name. "phase:checkpoint/NAME" and
// "phase:restore/NAME" are the phases that the two commands tell of, by their names
// in `crucible checkpoint --json`; any name is possible.
func FindMeasure(name string) (Measure, bool) {
	if phase, ok := strings.CutPrefix(name, "phase:"); ok {
		verb, what, _ := strings.Cut(phase, "/")
		return Measure{name, Seconds, verb + ": " + what, "crucible's own clock, in the result of the command"}, what != "" && (verb == "checkpoint" || verb == "restore")
	}
	for _, m := range Measures() {
		if m.Name == name {
			return m, true
		}
	}
	return Measure{}, false
}

func measureNames() []string {
	var all []string
	for _, m := range Measures() {
		all = append(all, m.Name)
	}
	return all
}
