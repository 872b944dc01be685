package conformance

import (
	"fmt"
	"strings"
)

// String says how it was counted.
func (c *Counting) String() string {
	what := "instructions counted"
	if !c.Plugin {
		what = "virtual time"
	}
	return fmt.Sprintf("%s, mean of %d after a warm-up, seed %d, -cpu %s, QEMU %s", what, c.Rounds, c.Seed, c.CPU, c.QEMU)
}

// countLines are a case's counts, a line for each phase.
func (o *Outcome) countLines() []string {
	if o.Counts == nil {
		return nil
	}
	return []string{"checkpoint: " + o.Counts.Checkpoint.String(), "restore: " + o.Counts.Restore.String()}
}

// String is a cost in one line: means, the standard error of the kernel's, and
// the dearest functions.
func (c *Cost) String() string {
	virtual, _ := mean(c.Virtual)
	if c.Kernel == nil {
		return amount(virtual, VirtualTime)
	}
	kernel, sem := mean(c.Kernel)
	user, _ := mean(c.User)
	kernel = max(kernel, 1)
	text := fmt.Sprintf("%s ± %.1f %%, %.2f M of programs", amount(kernel, KernelInstructions), 100*sem/kernel, user/1e6)
	for _, f := range c.Functions[:min(3, len(c.Functions))] {
		text += fmt.Sprintf(", %s %.1f %%", f.Name, 100*float64(f.Mean)/kernel)
	}
	return text
}

func amount(x float64, u Unit) string {
	if u == VirtualTime {
		return fmt.Sprintf("%.2f ms of virtual time", x/1e6)
	}
	return fmt.Sprintf("%.2f M %s", x/1e6, u)
}

// shownFunctions is how many of a difference's functions are for people.
const shownFunctions = 8

// String is a line for the difference and one for each of the functions that
// changed most.
func (d Difference) String() string {
	from, to := amount(d.Before, d.Unit), amount(d.After, d.Unit)
	if d.Before == 0 {
		return fmt.Sprintf("%s: %s: %s, then %s", d.Case, d.Phase, from, to)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: ", d.Case, d.Phase)
	if d.Unit == KernelInstructions {
		fmt.Fprintf(&b, "%+.2f %% by functions that changed (%d); in all ", d.Changed, len(d.Functions))
	}
	from, _, _ = strings.Cut(from, " ")
	fmt.Fprintf(&b, "%+.1f ± %.1f %%, %s -> %s", d.Percent, d.Error, from, to)
	for _, f := range d.Functions[:min(shownFunctions, len(d.Functions))] {
		fmt.Fprintf(&b, "\n  %+7.3f M  %s, %.3f -> %.3f M", f.more()/1e6, f.Name, float64(f.Before)/1e6, float64(f.After)/1e6)
	}
	return b.String()
}
