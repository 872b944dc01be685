package pack

import (
	"context"
	"sync"
	"sync/atomic"
)

// parallel does a number of things, handed out in their order, each by a function
// that one goroutine has made for itself. The first error ends it; what has been
// handed out is done.
func parallel(ctx context.Context, things, workers int, worker func() func(n int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(things, workers) {
		wg.Go(func() {
			do := worker()
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= things {
					return
				}
				if err := do(n); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
