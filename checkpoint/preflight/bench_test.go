package preflight

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkInspect also reports the processor time: on a busy machine the
// other one says little.
func BenchmarkInspect(b *testing.B) {
	for _, thing := range []string{"nothing", "listener and clients", "many processes"} {
		b.Run(strings.ReplaceAll(thing, " ", "_"), func(b *testing.B) {
			box := startBox(b, thing)
			s := box.subject()
			b.ReportAllocs()
			before := processorTime(b)
			n := 0
			for b.Loop() {
				if _, err := Inspect(b.Context(), s); err != nil {
					b.Fatal(err)
				}
				n++
			}
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(n), "cpu-µs/op")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
