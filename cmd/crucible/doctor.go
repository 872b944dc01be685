package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"crucible/checkpoint/criu"
	"crucible/container/host"
)

func newDoctorCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether containers can be checkpointed and restored here, and what it costs",
		Long: `Ask the kernel and CRIU for everything that a checkpoint and a restore need.
Each answer is tried out, none is guessed from a version. Nothing on the host
is changed. Run it as root: for anybody else most answers are "unknown".

Exit status: 0 containers can be checkpointed and restored, 1 they cannot.`,
		Example: "  crucible doctor\n  crucible doctor --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			report := a.diagnose(c.Context())
			if err := c.Context().Err(); err != nil {
				return err
			}
			err := a.print(a.json, report, func() error {
				_, err := a.stdout.WriteString(report.text(a.colours()))
				return err
			})
			if err == nil && !report.Works {
				err = &exitError{1}
			}
			return err
		},
	}
	a.jsonFlag(c)
	return c
}

// diagnosis is what `crucible doctor --json` prints.
type diagnosis struct {
	Works bool       `json:"works"` // no row that is required is missing or unknown
	Rows  []host.Row `json:"rows"`
}

func (a *app) diagnose(ctx context.Context) diagnosis {
	rows := a.criuRows(ctx)
	rows = dropTold(append(rows, host.Probe(ctx, host.Options{Root: a.rootDir})...))
	rows = append(rows, labRows(ctx)...)
	works := true
	for _, row := range rows {
		works = works && (!row.Required || row.State == host.Good)
	}
	return diagnosis{Works: works, Rows: rows}
}

// oldestCRIU is the first release that is tested here, and with the kernels
// of today.
func oldestCRIU() criu.Version { return criu.Version{Major: 4, Minor: 2} }

const groupCRIU = "criu"

func (a *app) criuRows(ctx context.Context) []host.Row {
	program := host.Row{
		Group: groupCRIU, Name: "program", Required: true,
		Costs: "no checkpoints, no restores", Remedy: "run scripts/setup",
	}
	works := program
	works.Name = "works with this kernel"
	found, err := a.criu()
	if err != nil {
		program.State, program.Detail = host.Missing, err.Error()
		return []host.Row{program}
	}
	version, err := found.Version(ctx)
	switch {
	case err != nil:
		program.State, program.Detail = host.Missing, err.Error()
		return []host.Row{program}
	case version.Less(oldestCRIU()):
		program.State, program.Detail = host.Missing, fmt.Sprintf("%s is %s, and older than %s", found.Path, version, oldestCRIU())
	default:
		program = goodRow(program, fmt.Sprintf("%s in %s", version, found.Path))
	}
	rows := []host.Row{program, cacheRow(found.Path, host.OnTmpfs)}
	if !mayAsk() {
		return append(rows, notAsked(works)...)
	}
	rows = append(rows, checkRow(ctx, works, found), lockRow(found.Locks(ctx)))
	return append(rows, featureRows(ctx, found)...)
}

func goodRow(row host.Row, detail string) host.Row {
	row.State, row.Detail, row.Costs, row.Remedy = host.Good, detail, "", ""
	return row
}

// checkRow runs `criu check`.
func checkRow(ctx context.Context, row host.Row, found *criu.CRIU) host.Row {
	err := found.Check(ctx)
	switch {
	case err == nil:
		return goodRow(row, "criu check: looks good")
	case ctx.Err() != nil:
		row.State = host.Unknown
	default:
		row.State = host.Missing
	}
	row.Detail = oneLine(err)
	return row
}

// cacheRow looks at the directory in which CRIU keeps what it knows of the
// kernel. It is compiled into CRIU: /run, or what scripts/setup chose and wrote
// down next to it. CRIU writes the file only on a tmpfs, and never again after
// it was interrupted while it did (criu/kerndat.c, kerndat_save_cache).
func cacheRow(path string, onTmpfs func(dir string) (bool, error)) host.Row {
	row := host.Row{
		Group: groupCRIU, Name: "kernel cache", State: host.Missing,
		Costs: "CRIU asks the kernel everything anew at each start: 25 to 40 ms", Remedy: "run scripts/setup",
	}
	dir := "/run"
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "..", "rundir")); err == nil {
		dir = strings.TrimSpace(string(text))
	}
	tmpfs, err := onTmpfs(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		row.Detail = dir + " is not there"
		return row
	case err != nil:
		row.State, row.Detail = host.Unknown, err.Error()
		return row
	case !tmpfs:
		row.Detail = dir + " is not on a tmpfs"
		return row
	}
	// Whoever may write there can tell CRIU lies about the kernel.
	var stat unix.Stat_t
	if err := unix.Lstat(dir, &stat); err != nil {
		row.State, row.Detail = host.Unknown, err.Error()
		return row
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR || stat.Uid != 0 || stat.Mode&0o022 != 0 {
		row.Detail = dir + " is not root's alone"
		row.Remedy = "remove it, and run scripts/setup"
		return row
	}
	half := filepath.Join(dir, "criu.kdat.tmp")
	if _, err := os.Stat(half); err == nil {
		row.Detail, row.Remedy = half+" is left over and in the way", "remove it"
		return row
	}
	return goodRow(row, filepath.Join(dir, "criu.kdat"))
}
