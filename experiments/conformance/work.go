package conformance

import (
	"context"
	"encoding/json"
	"path"
	"time"

	"crucible/checkpoint/criu"
	"crucible/container"
	"crucible/experiments/lab"
	"crucible/experiments/workload"
)

// JobName is the kind of a guest's job that Work does.
const JobName = "cases"

// order is what a guest is asked to do.
type order struct {
	Cases   []string      `json:"cases"`
	Timeout time.Duration `json:"timeout"` // of each, nanoseconds
}

// Work runs cases in a guest. See lab.MaybeGuest.
func Work(args json.RawMessage, g *lab.Guest) error {
	var o order
	if err := json.Unmarshal(args, &o); err != nil {
		return err
	}
	ctx := context.Background()
	found, err := criu.Find("")
	if err != nil {
		return err
	}
	var cases []workload.Case
	for _, name := range o.Cases {
		c, err := workload.Find(name)
		if err != nil {
			return err
		}
		cases = append(cases, c)
	}
	features, err := workload.Probe(ctx, found, cases)
	if err != nil {
		return err
	}
	for _, c := range cases {
		g.Begin(c.Name)
		result := workload.Run(ctx, c, workload.Options{
			Root: container.Root(container.DefaultRoot), CRIU: found, Features: features,
			Dir: path.Join(lab.Results, "cases"), Timeout: o.Timeout,
		})
		g.Settle() // what the kernel said is this case's
		if err := g.Report(result); err != nil {
			return err
		}
	}
	return nil
}
