package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// save writes the samples and the machine's description.
func (r *results) save(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

func load(file string) (*results, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return &r, nil
}

// machineText is the machine in a few lines.
func machineText(m machine) string {
	var versions []string
	for name, v := range m.Versions {
		versions = append(versions, name+" "+v)
	}
	slices.Sort(versions)
	load := "load " + m.Load + " at the start"
	if m.LoadAfter != "" {
		load += ", " + m.LoadAfter + " at the end"
	}
	return fmt.Sprintf("%s\nLinux %s, %d x %s, %d MiB, images on %s\n%s\n%s", m.When.Format("2006-01-02 15:04 MST"),
		m.Kernel, m.Processors, m.CPU, m.MemoryMiB, m.Filesystem, strings.Join(versions, ", "), load)
}

// tables prints the sections, one after the other.
func (r *results) tables(out io.Writer, only string) error {
	for _, s := range sections() {
		if only != "" && s.name != only {
			continue
		}
		if err := r.table(out, s); err != nil {
			return err
		}
	}
	return nil
}

// table prints a section: for each quantity its systems, crucible first.
func (r *results) table(out io.Writer, sec section) error {
	var whats []string
	for _, s := range r.Series {
		if s.Section == sec.name && s.What != "" && !slices.Contains(whats, s.What) {
			whats = append(whats, s.What)
		}
	}
	failures := r.failures(sec.name)
	if len(whats) == 0 && len(failures) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\n%s: %s\n", sec.name, sec.title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  \tsystem\tmedian\tquartiles\tn\tcrucible / it (95 %)\t")
	for _, what := range whats {
		first := what
		for _, s := range r.Series {
			if s.Section != sec.name || s.What != what {
				continue
			}
			sum := summarise(s.Samples)
			fmt.Fprintf(w, "  %s\t%s\t%s %s\t%s .. %s\t%d\t%s\t\n", first, s.System, number(sum.Median), s.Unit,
				number(sum.Lower), number(sum.Upper), sum.N, r.compared(s))
			first = ""
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range failures {
		fmt.Fprintf(out, "  %s\n", f)
	}
	return nil
}

func (r *results) failures(section string) []string {
	var out []string
	for _, s := range r.Series {
		if s.Section == section && s.Failure != "" {
			out = append(out, fmt.Sprintf("%s failed: %s", s.System, s.Failure))
		}
	}
	return out
}

// compared is crucible's median as a part of another system's.
func (r *results) compared(s series) string {
	own := r.find(s.Section, s.What, nameCrucible)
	if own == nil || s.System == nameCrucible {
		return ""
	}
	return ratioOf(own.Samples, s.Samples).String()
}

func (x ratio) String() string {
	return fmt.Sprintf("%.2f (%.2f .. %.2f)", x.Value, x.Low, x.High)
}

// number has three digits, as far as they mean something.
func number(x float64) string {
	switch size := math.Abs(x); {
	case size < 10:
		return fmt.Sprintf("%.2f", x)
	case size < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}
