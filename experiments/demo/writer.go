package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

// writer writes numbered keys over one connection, each as soon as the one
// before was acknowledged, and watches how long it waits.
type writer struct {
	c     *redis
	acked atomic.Int64
	quit  chan struct{}
	ended chan struct{} // closed at the end; then err and longest hold
	err   error

	longest time.Duration // between two acknowledgements
	at      int64         // the key that came after it
}

func startWriter(c *redis) *writer {
	w := &writer{c: c, quit: make(chan struct{}), ended: make(chan struct{})}
	go w.run()
	return w
}

func (w *writer) run() {
	defer close(w.ended)
	last := time.Now()
	for n := int64(1); ; n++ {
		select {
		case <-w.quit:
			return
		default:
		}
		answers, err := w.c.do(encode("SET", key(n), value(n)))
		if err == nil && answers[0] != "OK" {
			err = fmt.Errorf("redis answers %q", answers[0])
		}
		if err != nil {
			w.err = fmt.Errorf("write key %d: %w", n, err)
			return
		}
		now := time.Now()
		if gap := now.Sub(last); gap > w.longest {
			w.longest, w.at = gap, n
		}
		last = now
		w.acked.Store(n)
	}
}

// stop ends the writing and returns how many keys were acknowledged.
func (w *writer) stop() (int64, error) {
	close(w.quit)
	<-w.ended
	return w.acked.Load(), w.err
}

func key(n int64) string   { return fmt.Sprintf("key:%d", n) }
func value(n int64) string { return fmt.Sprintf("value of %d", n) }

// verify asks for the first count keys and compares their values.
func verify(c *redis, count int64) error {
	const batch = 1000
	for first := int64(1); first <= count; first += batch {
		var commands []string
		for n := first; n < first+batch && n <= count; n++ {
			commands = append(commands, encode("GET", key(n)))
		}
		answers, err := c.do(commands...)
		if err != nil {
			return err
		}
		for i, got := range answers {
			if n := first + int64(i); got != value(n) {
				return fmt.Errorf("key %d was acknowledged and is %q, not %q", n, got, value(n))
			}
		}
	}
	return nil
}
