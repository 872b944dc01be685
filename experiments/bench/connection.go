package main

import (
	"context"
	"time"

	"crucible/experiments/client"
)

// port of the server in the container.
const port = "7777"

// connection: a client on the host plays ping-pong with a server in the
// container, over the bridge, while that is checkpointed.
func connection(ctx context.Context, r *rig, out *results, n rounds) error {
	for _, leave := range []bool{false, true} {
		var arms []arm
		for _, s := range r.systems() {
			arms = append(arms, arm{s.Name(), func(ctx context.Context) ([]value, error) {
				return connectionOnce(ctx, r, s, leave)
			}})
		}
		if err := out.interleave(ctx, "connection", n, arms); err != nil {
			return err
		}
	}
	return nil
}

func connectionOnce(ctx context.Context, r *rig, s system, leave bool) (values []value, err error) {
	name := r.name()
	p := r.workload(name, "echo", port)
	p.bridge = true
	err = with(ctx, s, name, p, func(b box) error {
		if err := answers(ctx, b, r.socket(name)); err != nil {
			return err
		}
		var c *client.Client
		err := until(ctx, "connect to "+b.Address(), func() (err error) {
			c, err = client.Dial(b.Address() + ":" + port)
			return err
		})
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.Enough(time.Time{}, 100); err != nil {
			return err
		}
		begin := time.Now()
		what := "checkpoint and restore"
		if leave {
			what = "checkpoint that lets it run on"
		}
		_, err = b.Checkpoint(ctx, leave)
		if err == nil && !leave {
			_, err = b.Restore(ctx)
		}
		if err != nil {
			return err
		}
		outage := time.Since(begin)
		if err := c.Enough(time.Now(), 200); err != nil {
			return err
		}
		values = []value{milliseconds(what+": longest pause", c.Longest(begin)), milliseconds(what+": commands", outage)}
		return nil
	})
	return values, err
}
