package plan

import (
	"fmt"
	"time"
)

// File is an experiment file, with values for its factors put in.
type File struct {
	Question    string      `yaml:"question" json:"question" doc:"what is to be found out, for people"`
	Workload    Workload    `yaml:"workload" json:"workload" doc:"the program under test"`
	Container   Options     `yaml:"container,omitempty" json:"container,omitempty" doc:"flags of crucible run, without the dashes"`
	Factors     Factors     `yaml:"factors,omitempty" json:"factors,omitempty" doc:"what is varied: lists of values, by name; all combinations are run unless cells names some"`
	Cells       []Values    `yaml:"cells,omitempty" json:"cells,omitempty" doc:"the combinations of factors to run, if not all"`
	Steps       []Step      `yaml:"steps" json:"steps" doc:"what is done with the container, in this order"`
	Repetitions Repetitions `yaml:"repetitions,omitempty" json:"repetitions,omitzero" doc:"how often each cell is run"`
	Measures    []string    `yaml:"measures,omitempty" json:"measures,omitempty" doc:"what the report shows; everything is recorded"`
	Hold        []Bound     `yaml:"hold,omitempty" json:"hold,omitempty" doc:"what must be so for the experiment to succeed"`
	Limits      Limits      `yaml:"limits,omitempty" json:"limits,omitzero" doc:"when a run is given up, or is done again"`
}

// Workload is the program under test: one of the host's, or the one that is
// part of crucible.
type Workload struct {
	Program []string `yaml:"program,omitempty" json:"program,omitempty" doc:"a program of the host, or of the container's root filesystem, and its arguments"`
	Builtin *Builtin `yaml:"builtin,omitempty" json:"builtin,omitempty" doc:"the program that is part of crucible: it holds what is listed, and checks it after a restore"`
	Case    string   `yaml:"case,omitempty" json:"case,omitempty" doc:"a conformance case, by its name in crucible kernel cases: check ends it, and fails if it finds a difference"`
	Ready   *Ready   `yaml:"ready,omitempty" json:"ready,omitempty" doc:"how it is told that the program is ready; the built-in one says so"`
	Client  string   `yaml:"client,omitempty" json:"client,omitempty" enum:"tcp" doc:"tcp: one connection to the built-in program's port asks a thousand times a second from the first step to the last"`
}

// Builtin is what the program that is part of crucible holds. All of it is in
// each process, but for the port, which is the first one's.
type Builtin struct {
	Processes   int    `yaml:"processes,omitempty" json:"processes,omitempty" doc:"processes, the first one counted (default 1)"`
	Threads     int    `yaml:"threads,omitempty" json:"threads,omitempty" doc:"threads of each that wait, beside those of the run time"`
	Descriptors int    `yaml:"descriptors,omitempty" json:"descriptors,omitempty" doc:"eventfds of each, with a counter to be kept"`
	Mappings    int    `yaml:"mappings,omitempty" json:"mappings,omitempty" doc:"mappings of one page of each"`
	Memory      Size   `yaml:"memory,omitempty" json:"memory,omitempty" doc:"memory of each with contents that no compression makes smaller"`
	Dirty       Size   `yaml:"dirty,omitempty" json:"dirty,omitempty" doc:"bytes of it written anew each second"`
	Timers      int    `yaml:"timers,omitempty" json:"timers,omitempty" doc:"timerfds of each, armed"`
	Files       int    `yaml:"files,omitempty" json:"files,omitempty" doc:"open files of each, with contents and a position"`
	Port        uint16 `yaml:"port,omitempty" json:"port,omitempty" doc:"TCP port of a server that sends back what it gets"`
}

// Ready tells when a program of the host's is ready: the first that is given.
type Ready struct {
	Log  string   `yaml:"log,omitempty" json:"log,omitempty" doc:"its log holds this text"`
	Port uint16   `yaml:"port,omitempty" json:"port,omitempty" doc:"it accepts TCP connections on this port of its address on the bridge"`
	Exec []string `yaml:"exec,omitempty" json:"exec,omitempty" doc:"this program succeeds in the container"`
}

// Repetitions say how often each cell is run.
type Repetitions struct {
	Runs   int    `yaml:"runs,omitempty" json:"runs,omitempty" doc:"runs of each cell that count (default 5)"`
	WarmUp int    `yaml:"warm-up,omitempty" json:"warm-up,omitempty" doc:"runs of each cell before them, which do not count"`
	Seed   uint64 `yaml:"seed,omitempty" json:"seed,omitempty" doc:"of the order of the runs, which is random (default 1)"`
	Until  *Until `yaml:"until,omitempty" json:"until,omitempty" doc:"go on with a cell until its median is known well enough"`
}

// Until adds runs to a cell while the 95 % interval of a median is wide.
type Until struct {
	Measure string  `yaml:"measure" json:"measure" doc:"whose median"`
	Within  float64 `yaml:"within" json:"within" doc:"half of the interval's width is at most this part of the median, such as 0.05"`
	Most    int     `yaml:"most" json:"most" doc:"runs of a cell at the most"`
}

// Limits of a run.
type Limits struct {
	Time  Duration `yaml:"time,omitempty" json:"time,omitempty" doc:"a run that is not through by then has failed (default 2m)"`
	Steal float64  `yaml:"steal,omitempty" json:"steal,omitempty" doc:"a run during which the host was kept from running for more than this part of the time is done again, and both are kept (default 0.05)"`
}

// Defaults of what a file does not say.
const (
	DefaultRuns  = 5
	DefaultSeed  = 1
	DefaultTime  = 2 * time.Minute
	DefaultSteal = 0.05
)

func (f *File) fill() {
	fill(&f.Repetitions.Runs, DefaultRuns)
	fill(&f.Repetitions.Seed, DefaultSeed)
	fill(&f.Limits.Time, Duration(DefaultTime))
	fill(&f.Limits.Steal, DefaultSteal)
	if b := f.Workload.Builtin; b != nil {
		fill(&b.Processes, 1)
	}
}

func fill[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// Error is what is wrong with a file, and where. Line and Column begin at 1; 0
// where it is about the file as a whole.
type Error struct {
	Path         string
	Line, Column int
	Cause        string
	Remedy       string
}

func (e *Error) Error() string {
	at := e.Path
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", e.Path, e.Line, e.Column)
	}
	return fmt.Sprintf("read experiment %s: %s", at, e.Cause)
}

// Hint says what to do about it.
func (e *Error) Hint() string { return e.Remedy }
