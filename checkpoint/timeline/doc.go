// Package timeline joins what crucible has measured of a checkpoint or a restore
// with what CRIU's log tells, and draws it.
//
// # Words
//
// A Trace is one checkpoint or restore. It has tracks: the command (and for a
// restore the container's monitor), what ran beside it, CRIU, the questions that
// CRIU asked, and each task. A track has spans, of which one of depth 1 is part of
// the one of depth 0 before it. A span's times count from the start of the command.
//
// # How the times are joined
//
// The times in CRIU's log count from the moment at which CRIU opened it, which
// nobody has measured. But at certain points CRIU asks crucible, and crucible notes
// the time and how long the log is then (criu.Mark). What stands before that
// place was written before the question and the rest after the answer, so the
// opening lies between two bounds, some 0.05 ms from each other (Trace.Margin).
//
// # Example
//
//	trace, err := timeline.Join(&line, log, timeline.Options{Title: "checkpoint web@1"})
//	err = trace.WriteText(os.Stdout, timeline.TextOptions{Width: 80})
//	err = trace.WriteHTML(file)
//	err = trace.WritePerfetto(file)
//
// # What it does not do
//
// It measures nothing: checkpoint.Timeline does. It knows of no lines of CRIU's
// log: criu.Spans does.
package timeline
