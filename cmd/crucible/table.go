package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// table is rows of text; the first has the columns' names.
type table [][]string

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for n, c := range cells {
		row[n] = printable(fmt.Sprint(c))
	}
	*t = append(*t, row)
}

// printTable prints a table to standard output. On a terminal the last column
// is cut off where the line ends; elsewhere nothing is.
func (a *app) printTable(t table) error { return t.write(a.stdout, terminalWidth(a.stdout)) }

// terminalWidth is 0 if it is no terminal.
func terminalWidth(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

func (t table) write(w io.Writer, width int) error {
	var widths []int
	for _, row := range t {
		for n, cell := range row {
			if n == len(widths) {
				widths = append(widths, 0)
			}
			widths[n] = max(widths[n], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for _, row := range t {
		line, at := "", 0
		for n, cell := range row {
			if n == len(row)-1 {
				if width > 0 {
					cell = shorten(cell, max(width-at, 8))
				}
				line += cell
				break
			}
			line += cell + strings.Repeat(" ", widths[n]-utf8.RuneCountInString(cell)+2)
			at += widths[n] + 2
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}
