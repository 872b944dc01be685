package main

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	tab := table{{"PID", "NAME", "WHAT"}}
	tab.add(1, "über", "a long text that goes on and on")
	tab.add(12345, "", "short\nline")
	for width, want := range map[int]string{
		0:  "PID    NAME  WHAT\n1      über  a long text that goes on and on\n12345        short?line\n",
		26: "PID    NAME  WHAT\n1      über  a long text …\n12345        short?line\n",
		5:  "PID    NAME  WHAT\n1      über  a long …\n12345        short?l…\n", // some of it is always there
	} {
		var out strings.Builder
		if err := tab.write(&out, width); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("width %d:\n%s\nwant\n%s", width, out.String(), want)
		}
	}
}
