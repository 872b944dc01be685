// Package plan is the experiment file: what is asked, of which workload, over
// which factors, how often, what is measured, and what must hold.
//
//	question: How long does a container stand still, against its memory?
//	workload:
//	  builtin: {memory: "${memory}", threads: 4}
//	factors:
//	  memory: [1MiB, 64MiB, 256MiB]
//	  leave-running: [true, false]
//	steps:
//	  - run
//	  - checkpoint: {leave-running: "${leave-running}"}
//	  - stop
//	  - restore
//	  - check
//	repetitions: {runs: 10, warm-up: 1}
//	measures: [frozen, checkpoint, restore]
//	hold:
//	  - {measure: frozen, statistic: p95, at-most: 500ms}
//
// # Words
//
// A factor is what is varied; a cell is one value for each of them; a run is
// what happens once in a cell: its steps, on a container of its own. A measure
// is a number that a run yields, a bound is what must hold for it.
//
// "${NAME}" stands for the factor's value wherever it is in the file, so that
// anything can be a factor. The rest is strict: a key that is not known is an
// [Error] with its line, its column and the nearest right name.
//
// It runs nothing: package engine does.
package plan
