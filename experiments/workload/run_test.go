package workload

import (
	"testing"
	"time"
)

// TestCases runs every case with this kernel and CRIU.
func TestCases(t *testing.T) {
	o := options(t)
	cases := Cases()
	start := time.Now()
	f, err := Probe(t.Context(), o.CRIU, cases)
	if err != nil {
		t.Fatal(err)
	}
	o.Features = f
	t.Logf("probed in %v; lacks %v", time.Since(start), f.Lacks)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			r := Run(t.Context(), c, o)
			t.Logf("%-24s %s %6.1f ms: checkpoint %5.1f (frozen %5.1f), restore %5.1f; %s", c.Name, r.Verdict, ms(r.Took), ms(r.Checkpoint), ms(r.Frozen), ms(r.Restore), r.Reason)
			if r.Verdict == Fail {
				t.Errorf("%s: %s (%s)", r.Step, r.Reason, r.Hint)
			}
		})
	}
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
