// Package engine runs an experiment: every cell of its plan so often, each run on
// a container of its own, and writes down what came of it.
//
//	p, err := plan.Read("downtime.yaml", flags)
//	results, err := engine.Run(ctx, engine.Options{Plan: p, Dir: "downtime.results", Crucible: self})
//
// # What a run is
//
// The steps are crucible's own commands, as a user types them: what is measured
// is the whole command, from fork to exit, beside what the command itself tells. A
// run has a state root that nothing else uses; when it is through, all of it is
// removed, and what the kernel still shows of it is counted as a leak.
//
// Runs go in rounds, each of all cells in an order that the seed decides, so that
// what the machine does meanwhile falls on all cells alike.
//
// # What comes out
//
//	DIR/experiment.yaml    the file, as it was run
//	DIR/provenance.json    what it was run on, and with
//	DIR/runs.jsonl         a line for each run: see [Record]
//	DIR/logs/RUN/          logs of a run that failed
//
// A run that fails is a result like any other. A line is written when its run is
// through: what is interrupted goes on with Options.Resume where it was.
package engine
