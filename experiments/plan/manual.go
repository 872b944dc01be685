package plan

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
)

// example is what the manual begins with; a test reads it.
const example = `question: How long does a container stand still, against its memory?
workload:
  builtin: {memory: "${memory}"}
factors:
  memory: [1MiB, 64MiB]
steps: [run, checkpoint, restore, check]
repetitions: {runs: 10, warm-up: 1}
measures: [frozen, checkpoint, restore]
hold:
  - {measure: frozen, statistic: p95, at-most: 500ms}
`

// WriteManual writes what can be in an experiment file, for people.
func WriteManual(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "AN EXPERIMENT FILE\n\n%s\nKEYS\n\n\"${FACTOR}\" may stand for any value. Sizes are 4096, 64KiB, 1.5MiB, 2GiB; times\nare 500ms, 2s, 1m30s.\n\n", indent(example))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, key := range allKeys(reflect.TypeFor[File](), "") {
		fmt.Fprintf(t, "  %s\t%s\n", key[0], key[1])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nSTEPS\n\n")
	for _, v := range Verbs() {
		what := v.What
		if v.Command != "" {
			what += "; options: the flags of crucible " + v.Command
		}
		fmt.Fprintf(t, "  %s\t%s\n", v.Name, what)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n  {VERB: ..., where: {FACTOR: VALUE}} is done in cells with that value only.\n")
	fmt.Fprintf(out, "\nMEASURES\n\n")
	for _, m := range Measures() {
		unit := string(m.Unit)
		if unit == "" {
			unit = "number"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s; source: %s\n", m.Name, unit, m.What, m.Source)
	}
	fmt.Fprintf(t, "  phase:COMMAND/NAME\ts\ta phase of checkpoint or restore, by its name in their --json\n")
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nSTATISTICS\n\n  %s\n", strings.Join(Statistics(), ", "))
	return out.Flush()
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n  ") + "\n"
}

// allKeys are the keys of a section and those in it, with what they are for.
func allKeys(t reflect.Type, prefix string) (all [][2]string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[Step]() || t == reflect.TypeFor[Factor]() || t == reflect.TypeFor[Option]() || t == reflect.TypeFor[Value]() {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		all = append(all, [2]string{prefix + name, f.Tag.Get("doc")})
		all = append(all, allKeys(f.Type, prefix+name+".")...)
	}
	return all
}
