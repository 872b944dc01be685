package main

import (
	"fmt"
	"strings"

	"crucible/container/host"
)

// text is the diagnosis for people: a table, with what it costs and what to do
// below each row that is not good, and the verdict.
func (d diagnosis) text(colours bool) string {
	var b strings.Builder
	width := 0
	for _, row := range d.Rows {
		width = max(width, len(row.Name))
	}
	group := ""
	for _, row := range d.Rows {
		if row.Group != group {
			group = row.Group
			fmt.Fprintf(&b, "%s\n", strings.ToUpper(group))
		}
		line := fmt.Sprintf("%-*s  %s", width, row.Name, row.Detail)
		fmt.Fprintf(&b, "  %s  %s\n", paint(row, colours), strings.TrimRight(line, " "))
		for _, more := range []struct{ what, text string }{{"costs", row.Costs}, {"remedy", row.Remedy}} {
			if more.text != "" {
				fmt.Fprintf(&b, "  %-7s  %*s  %s: %s\n", "", width, "", more.what, more.text)
			}
		}
	}
	b.WriteString("\n" + d.verdict() + "\n")
	return b.String()
}

// paint is the state's word, seven columns wide on paper.
func paint(row host.Row, colours bool) string {
	word := fmt.Sprintf("%-7s", row.State)
	if !colours {
		return word
	}
	const green, yellow, red = 32, 33, 31
	colour := green
	if row.State != host.Good {
		colour = yellow
		if row.Required {
			colour = red
		}
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, word)
}

func (d diagnosis) verdict() string {
	if d.Works {
		return "Containers can be checkpointed and restored here."
	}
	names := map[host.State][]string{}
	for _, row := range d.Rows {
		if row.Required {
			names[row.State] = append(names[row.State], row.Group+"/"+row.Name)
		}
	}
	if missing := names[host.Missing]; missing != nil {
		return "Containers cannot be checkpointed and restored here. Missing: " + strings.Join(missing, ", ") + "."
	}
	return "Could not tell whether containers can be checkpointed and restored here, for: " + strings.Join(names[host.Unknown], ", ") + "."
}
