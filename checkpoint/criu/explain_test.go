package criu

import (
	"fmt"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	known := "(00.001000) Warn  (criu/a.c:1): hm\n(00.012345) Error (criu/sk-inet.c:1): Can't dump a half closed thing\n" +
		"(00.020000) Error (criu/mem.c:9): Unable to map ANON_VMA: Cannot allocate memory\n(00.03) Error (criu/cr-restore.c:99): Restoring FAILED.\n"
	e, err := Explain(strings.NewReader(known))
	if err != nil || e.Kind != "no-memory" || !strings.Contains(e.Remedy, "overcommit_memory") || len(e.Telling) != 0 {
		t.Errorf("%+v, %v", e, err)
	}

	e, err = Explain(strings.NewReader("(00.001) all is well\n(00.002) Warn  (criu/a.c:1): nearly\n"))
	if err != nil || e.Text != "" || len(e.Telling) != 0 {
		t.Errorf("a log without an error: %+v, %v", e, err)
	}

	// Errors come before warnings, the last before the first; their order stays.
	var log strings.Builder
	for i := range 20 {
		fmt.Fprintf(&log, "(00.1) Warn  (criu/a.c:1): warning %d\n", i)
	}
	for i := range 7 {
		fmt.Fprintf(&log, "(00.2) Error (criu/b.c:2): never seen %d\n", i)
	}
	e, err = Explain(strings.NewReader(log.String()))
	var got []string
	for _, line := range e.Telling {
		got = append(got, line.Text)
	}
	want := "[warning 17 warning 18 warning 19 never seen 0 never seen 1 never seen 2 never seen 3 never seen 4 never seen 5 never seen 6]"
	if err != nil || e.Kind != "" || e.Text != "never seen 0" || fmt.Sprint(got) != want {
		t.Errorf("%+v, %v", e, err)
	}
}
