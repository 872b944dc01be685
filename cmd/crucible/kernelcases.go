package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"crucible/experiments/workload"
)

// caseRow is a case in `crucible kernel cases --json`.
type caseRow struct {
	Name     string   `json:"name"`
	Question string   `json:"question"`
	Needs    []string `json:"needs,omitempty"` // features, as `crucible doctor` names them
	Known    string   `json:"known,omitempty"` // what every CRIU loses
}

func newKernelCasesCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "cases [flags]",
		Short: "List the conformance cases with their questions",
		Long: `List the conformance cases. Each asks one thing that checkpoint and restore stand
on, by a program in a container that compares what it has before and after.

Exit status: 0.`,
		Example: "  crucible kernel cases\n  crucible kernel cases --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			var rows []caseRow
			for _, c := range workload.Cases() {
				row := caseRow{Name: c.Name, Question: c.Question, Needs: c.Needs}
				if c.Known != nil {
					row.Known = c.Known.Why
				}
				rows = append(rows, row)
			}
			return a.print(a.json, rows, func() error { return a.caseTable(rows) })
		},
	}
	a.jsonFlag(c)
	return c
}

func (a *app) caseTable(rows []caseRow) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CASE\tQUESTION\tNEEDS")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.Question, strings.Join(r.Needs, ", "))
	}
	return w.Flush()
}
