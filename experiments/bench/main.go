package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	dispatch(os.Args)
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	err = run(ctx, o)
	stop()
	exit(err)
}

// dispatch is this program in another part than that of the bench.
func dispatch(args []string) {
	switch {
	case len(args) > 2 && args[1] == "work": // in a container
		exit(work(args[2:]))
	case len(args) > 4 && args[1] == "nest": // on the way into CRIU's
		exit(nest(args[2], args[3], args[4:]))
	}
}

func exit(err error) {
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, o options) error {
	if o.from != "" {
		r, err := load(o.from)
		if err != nil {
			return err
		}
		fmt.Println(machineText(r.Machine))
		return errors.Join(r.tables(os.Stdout, ""), r.write(o))
	}
	if err := o.check(); err != nil {
		return err
	}
	r, err := measureAll(ctx, o)
	if r == nil {
		return err
	}
	r.Machine.LoadAfter = loadNow()
	return errors.Join(err, r.write(o))
}

// measureAll runs the sections and shows each when it is done.
func measureAll(ctx context.Context, o options) (r *results, err error) {
	m, err := describe(ctx, o)
	if err != nil {
		return nil, err
	}
	fmt.Println(machineText(m))
	if err := judgeLoad(m, o.busy); err != nil {
		return nil, err
	}
	for _, n := range notes() {
		fmt.Println(" -", n)
	}
	g, err := newRig(o)
	if err != nil {
		return nil, err
	}
	// Cleaning up is not stopped by Ctrl-C.
	defer func() {
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "bench: cleaning up")
		}
		err = errors.Join(err, g.close())
	}()
	r = &results{Machine: m, Command: os.Args, Quick: o.quick}
	for _, s := range sections() {
		if !o.wants(s.name) {
			continue
		}
		n := s.full
		if o.quick {
			n = s.quick
		}
		if o.rounds > 0 {
			n.count = o.rounds
		}
		if err := s.run(ctx, g, r, n); err != nil {
			return r, fmt.Errorf("%s: %w", s.name, err)
		}
		if err := r.table(os.Stdout, s); err != nil {
			return r, err
		}
	}
	return r, nil
}

// judgeLoad warns of a busy machine, or refuses it.
func judgeLoad(m machine, anyway bool) error {
	load, err := parseLoad(m.Load)
	if err != nil {
		return err
	}
	noisy, worthless := busyness(load, m.Processors)
	if worthless && !anyway {
		return fmt.Errorf("the load average is %.2f on %d processors: the numbers would mean nothing. Wait, or say --busy", load, m.Processors)
	}
	if noisy {
		fmt.Printf("WARNING: the machine is busy (load average %.2f): expect noise\n", load)
	}
	return nil
}

// write writes the files that were asked for.
func (r *results) write(o options) error {
	var errs []error
	if o.json != "" {
		errs = append(errs, r.save(o.json))
	}
	switch o.markdown {
	case "":
	case "-":
		errs = append(errs, r.markdown(os.Stdout))
	default:
		errs = append(errs, r.markdownFile(o.markdown))
	}
	return errors.Join(errs...)
}
