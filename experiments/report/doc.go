// Package report turns an experiment's results into what people read: the answer,
// a table, figures, what failed and why, and how to do it again.
//
//	results, err := engine.Load("downtime.results", flags)
//	r := report.New(results)
//	err = r.WriteMarkdown(os.Stdout)
//	os.Exit(r.ExitCode())
//
// A series is all samples of one measure in one cell, of runs that count and did
// not fail. Its centre is the median with a 95 % confidence interval that assumes
// nothing of the distribution (golang.org/x/perf/benchmath; order statistics).
// Quantiles are interpolated between the two nearest samples. Two series are
// compared by the Mann-Whitney U test.
//
// It decides nothing about what to measure, and runs nothing.
package report
