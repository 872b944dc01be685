package engine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"crucible/experiments/plan"
)

// The files of a results directory.
const (
	FileExperiment = "experiment.yaml"
	FileProvenance = "provenance.json"
	FileRuns       = "runs.jsonl"
	DirLogs        = "logs"
)

// Kind is what a run counts for.
type Kind string

// The kinds: one that counts, one that warms up, one that was disturbed by the host
// and is done again, and one of a case that needs what the kernel lacks.
const (
	Counted Kind = "counted"
	WarmUp  Kind = "warm-up"
	Noisy   Kind = "noisy"
	Skipped Kind = "skipped"
)

// Record is a run, a line of runs.jsonl.
type Record struct {
	Number   int                `json:"number"` // from 1, in the order in which they ran
	Cell     string             `json:"cell"`
	Values   plan.Values        `json:"values"`
	Round    int                `json:"round"` // from 1; 0 and below warms up
	Kind     Kind               `json:"kind"`
	Started  time.Time          `json:"started"`
	Seconds  float64            `json:"seconds"`            // the whole run, cleaning up included
	Measures map[string]float64 `json:"measures"`           // by name, in the measure's unit
	Failure  *Failure           `json:"failure,omitempty"`  // nil: it went as it should
	Lacks    string             `json:"lacks,omitempty"`    // of a skipped run: what is missing
	Leaks    []string           `json:"leaks,omitempty"`    // what was left
	Differs  []string           `json:"differs,omitempty"`  // what --verify found, a line each
	Noise    Noise              `json:"noise"`              // of the host meanwhile
	Repeated bool               `json:"repeated,omitempty"` // a noisy run before this one was the same
}

// Failure is why a run did not come to its end.
type Failure struct {
	Step  string `json:"step"` // as in the file; "clean up" after the last
	Line  int    `json:"line,omitempty"`
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	Logs  string `json:"logs,omitempty"` // directory of what the programs said, in the results
}

func (f *Failure) String() string { return f.Step + ": " + f.Error }

// Results are what a results directory holds.
type Results struct {
	Dir        string
	Plan       *plan.Plan
	Provenance Provenance
	Records    []Record
}

// Load reads a results directory. A last line that was not written to its end,
// because the engine was killed, is no run.
func Load(dir string, flags plan.Flags) (*Results, error) {
	r := &Results{Dir: dir}
	file := filepath.Join(dir, FileExperiment)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, &NoResultsError{dir}
	}
	var err error
	if r.Plan, err = plan.Read(file, flags); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, FileProvenance))
	if err == nil {
		err = json.Unmarshal(data, &r.Provenance)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of results %s: %w", FileProvenance, dir, err)
	}
	f, err := os.Open(filepath.Join(dir, FileRuns))
	if err != nil {
		return nil, fmt.Errorf("read results %s: %w", dir, err)
	}
	defer f.Close()
	if r.Records, err = readRecords(f); err != nil {
		return nil, fmt.Errorf("read %s of results %s: %w", FileRuns, dir, err)
	}
	return r, nil
}

func readRecords(r io.Reader) (all []Record, err error) {
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF { // whatever is behind the last newline
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var one Record
		if err := json.Unmarshal(line, &one); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, one)
	}
}

// NoResultsError is a directory without results.
type NoResultsError struct{ Dir string }

func (e *NoResultsError) Error() string { return "no results of an experiment in " + e.Dir }

// Hint says what to do about it.
func (e *NoResultsError) Hint() string {
	return "crucible experiment run FILE makes such a directory"
}
