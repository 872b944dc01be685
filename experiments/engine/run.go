package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crucible/container"
	"crucible/experiments/builtin"
	"crucible/experiments/client"
	"crucible/experiments/plan"
	"crucible/experiments/workload"
)

// run is a run under way.
type run struct {
	o      Options
	root   string // the state root of this run alone
	name   string // of its container
	file   *plan.File
	event  func(step string)
	record *Record

	box     *container.Container
	client  *client.Client
	begun   time.Time // of the first step after run
	image   string    // the last one
	killing bool      // what runs now is to be killed, not interrupted, when its time is over
	memory  int64     // available before the run, bytes
	sums    map[string][]float64
}

// lateError is a run that takes too long.
type lateError struct{ limit plan.Duration }

func (e *lateError) Error() string { return fmt.Sprintf("not done after %v", e.limit) }

// do makes the run and cleans up after it, whatever happens.
func (r *run) do(ctx context.Context) {
	start := time.Now()
	r.sums = map[string][]float64{}
	r.memory, _ = available()
	before, tickErr := readTicks()
	traces := lookForTraces()
	limited, cancel := context.WithTimeoutCause(ctx, time.Duration(r.file.Limits.Time), &lateError{r.file.Limits.Time})
	r.steps(limited, r.file.Steps)
	r.finish(limited)
	cancel()
	r.cleanUp(context.WithoutCancel(ctx))
	r.record.Leaks = lookForTraces().beyond(traces, r.name, r.root)
	r.means()
	if after, err := readTicks(); err == nil && tickErr == nil {
		r.record.Noise = after.since(before)
	}
	r.record.Seconds = time.Since(start).Seconds()
}

// means are what the record has of each measure.
func (r *run) means() {
	for name, values := range r.sums {
		sum := 0.0
		for _, v := range values {
			sum += v
		}
		r.record.Measures[name] = sum / float64(len(values))
	}
	r.record.Measures["leaks"] = float64(len(r.record.Leaks))
	r.record.Measures["failed"] = 0
	if r.record.Failure != nil {
		r.record.Measures["failed"] = 1
	}
}

func (r *run) measure(name string, value float64) { r.sums[name] = append(r.sums[name], value) }

func (r *run) seconds(name string, d time.Duration) { r.measure(name, d.Seconds()) }

// steps does steps until one fails.
func (r *run) steps(ctx context.Context, steps []plan.Step) {
	for _, s := range steps {
		if !s.In(r.record.Values) {
			continue
		}
		r.event(s.String())
		if err := r.step(ctx, s); err != nil {
			r.fail(s.String(), s.Line, err)
		}
		if r.record.Failure != nil || r.record.Lacks != "" {
			return
		}
	}
}

func (r *run) fail(step string, line int, err error) {
	var lack *workload.LackError
	switch {
	case r.record.Failure != nil:
		return
	case errors.As(err, &lack):
		r.record.Lacks, r.record.Kind = lack.Error(), Skipped
		return
	}
	f := &Failure{Step: step, Line: line, Error: strings.ReplaceAll(err.Error(), "\n", "; ")}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		f.Hint = hinted.Hint()
	}
	r.record.Failure = f
	r.keepLogs()
	if strings.Contains(f.Hint, r.root) { // which will not be there any more
		f.Hint = ""
	}
}

// finish is what there is to measure when all steps are done.
func (r *run) finish(ctx context.Context) {
	if r.client != nil {
		err := r.clientDone()
		r.client.Close()
		if err != nil {
			r.fail("client", 0, err)
		}
	}
	if r.record.Failure != nil || r.box == nil {
		return
	}
	if r.image != "" {
		r.measure("store-size", diskUsage(container.Root(r.root).Images()))
	}
	if now, err := available(); err == nil {
		r.measure("machine-memory", float64(r.memory-now))
	}
	if o, err := r.command(ctx, "stats", "--json", r.name); err == nil {
		var stats []struct {
			Memory struct {
				Current int64 `json:"current"`
			} `json:"memory"`
		}
		if json.Unmarshal(o.out, &stats) == nil && len(stats) == 1 {
			r.measure("container-memory", float64(stats[0].Memory.Current))
		}
	}
}

// calm is how many answers the client must have had after the last step.
const calm = 50

func (r *run) clientDone() error {
	status, err := r.box.Status()
	if err == nil && status == container.Running && r.record.Failure == nil {
		err = r.client.Enough(time.Now(), calm)
	}
	if err == nil && !r.begun.IsZero() {
		r.seconds("downtime", r.client.Longest(r.begun))
	}
	return err
}

// cleanUp removes all that the run has made.
func (r *run) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	r.event("clean up")
	o, err := r.command(ctx, "list", "--json")
	var all []struct{ Name string }
	if err == nil {
		err = json.Unmarshal(o.out, &all)
	}
	if err == nil && len(all) > 0 {
		args := []string{"delete", "--json", "-f"}
		for _, one := range all {
			args = append(args, one.Name)
		}
		_, err = r.command(ctx, args...)
	}
	if err := errors.Join(err, os.RemoveAll(r.root)); err != nil {
		r.fail("clean up", 0, err)
	}
}

// keepLogs copies what the programs said into the results.
func (r *run) keepLogs() {
	to := filepath.Join(DirLogs, fmt.Sprint(r.record.Number))
	patterns := []string{filepath.Join(r.root, "containers", "*", "log"), filepath.Join(r.root, "logs", "*", "*.log")}
	kept := false
	for _, pattern := range patterns {
		files, _ := filepath.Glob(pattern)
		for _, from := range files {
			name := filepath.Base(filepath.Dir(from)) + "-" + filepath.Base(from)
			if copyFile(from, filepath.Join(r.o.Dir, to, name)) == nil {
				kept = true
			}
		}
	}
	if kept {
		r.record.Failure.Logs = to
	}
}

// logLimit is how much of a log is kept, in bytes.
const logLimit = 4 << 20

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, logLimit))
	return errors.Join(err, out.Close())
}

// address is the container's on the bridge.
func (r *run) address() (netip.Addr, error) {
	if err := r.box.Reload(); err != nil {
		return netip.Addr{}, err
	}
	if r.box.State.Attachment == nil {
		return netip.Addr{}, errors.New("the container has no address: container: {net: bridge}")
	}
	return r.box.State.Attachment.Address.Addr(), nil
}

// start starts the container and waits until it is ready.
func (r *run) start(ctx context.Context) error {
	args := []string{"run", "--json", "-d", "--name", r.name}
	args = append(args, r.file.Container.Flags()...)
	program := r.file.Workload.Program
	if b := r.file.Workload.Builtin; b != nil {
		args = append(args, "-v", r.o.Crucible+":"+builtin.Path+":ro")
		program = builtin.Args(*b)
	}
	if name := r.file.Workload.Case; name != "" {
		p, err := workload.ProgramOf(name)
		if err != nil {
			return err
		}
		args = append(args, "-v", r.o.Crucible+":"+p.Path+":ro")
		for _, e := range p.Env {
			args = append(args, "-e", e)
		}
		program = p.Args
	}
	begin := time.Now()
	o, err := r.command(ctx, append(append(args, "--"), program...)...)
	if err != nil {
		return err
	}
	r.seconds("run", o.took)
	if r.box, err = container.Root(r.root).Open(r.name); err != nil {
		return err
	}
	if err := r.awaitReady(ctx); err != nil {
		return fmt.Errorf("the workload does not get ready: %w", err)
	}
	r.seconds("ready", time.Since(begin))
	if r.file.Workload.Client != "" {
		err = r.dial(ctx)
	}
	r.begun = time.Now()
	return err
}

func (r *run) dial(ctx context.Context) error {
	a, err := r.address()
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(a, r.file.Workload.Builtin.Port).String()
	if r.client, err = client.Dial(at); err != nil {
		return err
	}
	return r.client.Enough(time.Time{}, calm)
}

// awaitReady waits for what says that the workload is ready.
func (r *run) awaitReady(ctx context.Context) error {
	ready := r.file.Workload.Ready
	switch {
	case r.file.Workload.Builtin != nil:
		return r.awaitLine(ctx, 0, func(line string) (bool, error) {
			if why, ok := strings.CutPrefix(line, builtin.Failed); ok {
				return false, errors.New(why)
			}
			return line == builtin.Ready, nil
		})
	case r.file.Workload.Case != "":
		return r.awaitLine(ctx, 0, workload.IsReady)
	case ready == nil:
		return nil
	case ready.Log != "":
		return r.awaitLine(ctx, 0, func(line string) (bool, error) { return strings.Contains(line, ready.Log), nil })
	}
	return r.probe(ctx)
}

// answersAgain waits until the workload answers, if it has something to answer
// with.
func (r *run) answersAgain(ctx context.Context) (bool, error) {
	w := r.file.Workload
	if w.Builtin != nil && w.Builtin.Port != 0 && r.file.Container.Get("net") == "bridge" || w.Ready != nil && w.Ready.Log == "" {
		return true, r.probe(ctx)
	}
	return false, nil
}

// pace of looking for what has no event to wait for.
const pace = time.Millisecond

// probe tries the port, or the program, until it succeeds.
func (r *run) probe(ctx context.Context) error {
	for {
		err := r.probeOnce(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pace):
		}
		if s, statusErr := r.box.Status(); statusErr == nil && s == container.Stopped {
			return errors.New("it has ended")
		}
	}
}

func (r *run) probeOnce(ctx context.Context) error {
	w := r.file.Workload
	if w.Ready != nil && len(w.Ready.Exec) > 0 {
		_, err := r.command(ctx, append([]string{"exec", r.name, "--"}, w.Ready.Exec...)...)
		return err
	}
	port := uint16(0)
	if w.Ready != nil {
		port = w.Ready.Port
	} else if w.Builtin != nil {
		port = w.Builtin.Port
	}
	a, err := r.address()
	if err != nil {
		return err
	}
	d := net.Dialer{Timeout: time.Second}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp4", netip.AddrPortFrom(a, port).String())
	if err != nil {
		return err
	}
	return conn.Close()
}
