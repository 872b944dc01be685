// Command demo shows what crucible is for, on one screen: a redis-server in a
// container is checkpointed, which ends it, and restored, while one client
// writes to it over one TCP connection all the time; then three clones of it
// answer at addresses of their own.
//
// Everything it says it has checked, also that it leaves nothing behind. Its
// exit status is 0 only if all of it held. It drives the built program as a
// user would, and does not use the packages behind it.
//
//	make demo
//	go run ./experiments/demo --crucible ./crucible
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	os.Exit(exitStatus(err))
}

// exitStatus is as crucible's own.
func exitStatus(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errInterrupted):
		return 130
	}
	return 1
}

func run(ctx context.Context, args []string, out *os.File) error {
	o := options{Crucible: "./crucible", Clones: 3, Before: time.Second, After: time.Second}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.StringVar(&o.Crucible, "crucible", o.Crucible, "the program to show")
	flags.StringVar(&o.Redis, "redis", "", "the redis-server to use (default: the one in PATH)")
	flags.IntVar(&o.Clones, "clones", o.Clones, "how many clones to make")
	flags.DurationVar(&o.Before, "before", o.Before, "how long to write before the checkpoint")
	flags.DurationVar(&o.After, "after", o.After, "how long to write after the restore")
	if err := flags.Parse(args); err != nil {
		return err
	}
	fancy := term.IsTerminal(int(out.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return show(ctx, o, newScreen(out, fancy))
}
