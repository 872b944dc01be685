package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// interrupts are the signals that end a command. They cancel its context until
// the command takes them over, to hand them on to a container's program: none
// is lost on the way, whenever it comes.
type interrupts struct {
	signals chan os.Signal
	taken   chan struct{} // closed when the command wants them
	done    chan struct{} // closed when nothing cancels the context any more
}

// catchInterrupts returns the context that they cancel.
func catchInterrupts(parent context.Context) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancel(parent)
	in := &interrupts{make(chan os.Signal, 8), make(chan struct{}), make(chan struct{})}
	signal.Notify(in.signals, os.Interrupt, unix.SIGTERM)
	go func() {
		defer close(in.done)
		select {
		case s := <-in.signals:
			cancel()
			select {
			case in.signals <- s:
			default: // there are enough of them
			}
		case <-in.taken:
		}
	}()
	return ctx, in
}

// take returns the channel on which they come from now on, with those that
// have come already, and with others besides.
func (in *interrupts) take(others ...os.Signal) chan os.Signal {
	signal.Notify(in.signals, append(others, os.Interrupt, unix.SIGTERM)...)
	close(in.taken)
	<-in.done
	return in.signals
}
