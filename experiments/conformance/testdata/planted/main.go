// Command planted is what a guest of the lab needs of crucible, except that the
// kernel panics when it is asked the case "threads".
package main

import (
	"encoding/json"
	"os"

	"crucible/container"
	"crucible/experiments/conformance"
	"crucible/experiments/lab"
	"crucible/experiments/workload"
	"crucible/restore"
)

func main() {
	container.MaybeInit()
	container.MaybeMonitor(map[string]container.Job{restore.JobName: restore.Job}, func(err error) container.Explanation {
		return container.Explanation{}
	})
	workload.MaybeRun()
	lab.MaybeGuest(map[string]lab.Worker{conformance.JobName: work})
}

func work(args json.RawMessage, g *lab.Guest) error {
	var order map[string]any
	if err := json.Unmarshal(args, &order); err != nil {
		return err
	}
	for _, name := range order["cases"].([]any) {
		if name == "threads" {
			g.Begin("threads")
			if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
				return err
			}
		}
		order["cases"] = []any{name}
		one, err := json.Marshal(order)
		if err != nil {
			return err
		}
		if err := conformance.Work(one, g); err != nil {
			return err
		}
	}
	return nil
}
