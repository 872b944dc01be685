package conformance

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"time"

	"crucible/experiments/lab"
	"crucible/experiments/workload"
)

// Count says how instructions are counted.
type Count struct {
	Seed   int
	Rounds int    // of each case, after one that is not counted; DefaultRounds if 0
	Plugin string // see lab.BuildPlugin; "" gives only virtual time
}

// DefaultRounds make the error of a mean about 0.3 %: one round of a case differs
// from the next by 0.7 % or so, because the kernel's allocators and the Go
// runtime of the processes are in another state.
const DefaultRounds = 5

func (c *Count) rounds() int { return cmp.Or(c.Rounds, DefaultRounds) }

func (o *Options) counting(ctx context.Context) (*Counting, error) {
	version, err := o.QEMU.Version(ctx)
	return &Counting{o.Count.Seed, o.Count.rounds(), lab.CountCPU, version, o.Count.Plugin != ""}, err
}

// Counting is how a report's counts came about. Where all of it, the kernel and
// the guest's digest are the same, so are the counts.
type Counting struct {
	Seed   int    `json:"seed"`
	Rounds int    `json:"rounds"`
	CPU    string `json:"cpu"`
	QEMU   string `json:"qemu"`   // its version
	Plugin bool   `json:"plugin"` // instructions were counted; else there is virtual time alone
}

// Counts are what the checkpoints and the restores of a case cost the guest.
type Counts struct {
	Guest      string `json:"guest"` // digest of its initramfs
	Checkpoint Cost   `json:"checkpoint"`
	Restore    Cost   `json:"restore"`
}

// Cost has a number for each round: of a round's checkpoints, or restores, all
// together. Kernel and User are the instructions of everything that ran in the
// guest meanwhile, interrupts and other processes included; they are missing
// where there was no plug-in.
type Cost struct {
	Virtual []uint64 `json:"virtual"` // nanoseconds of the guest's clock, waiting included
	Kernel  []uint64 `json:"kernel,omitempty"`
	User    []uint64 `json:"user,omitempty"`
	// Functions are the kernel's, the dearest first, as far as they make up a
	// ten-thousandth of it: there are some 5,000 others.
	Functions []Function `json:"functions,omitempty"`
}

// Function is what a function of the kernel's has cost, without those that it
// called.
type Function struct {
	Name  string `json:"name"`
	Mean  uint64 `json:"mean"`  // instructions a round
	Error uint64 `json:"error"` // standard error of the mean
}

// mean gives the mean of some rounds, and its standard error.
func mean(rounds []uint64) (mean, sem float64) {
	if len(rounds) == 0 {
		return 0, 0
	}
	n := float64(len(rounds))
	for _, x := range rounds {
		mean += float64(x) / n
	}
	if len(rounds) == 1 {
		return mean, 0
	}
	for _, x := range rounds {
		sem += (float64(x) - mean) * (float64(x) - mean)
	}
	return mean, math.Sqrt(sem / (n - 1) / n)
}

// share is the part of a phase's instructions below which a function is not worth
// its line.
const share = 1e-4

// rounds are what the guest says of its rounds: their phases, in order.
type rounds [][]phase

type phase struct {
	Mark    lab.Mark      `json:"mark"`
	Virtual time.Duration `json:"virtual"`
}

// tally puts what the guest says and what the plug-in has counted together, as
// far as that goes without names for addresses.
type tally struct {
	counts *Counts
	blocks map[lab.Mark][]map[uint64]uint64 // for each round: instructions by address
}

func newTally(guest string, said rounds, sections []lab.Section, plugin bool) (*tally, error) {
	t := &tally{counts: &Counts{Guest: guest}, blocks: map[lab.Mark][]map[uint64]uint64{}}
	for n, round := range said {
		for _, mark := range []lab.Mark{lab.MarkCheckpoint, lab.MarkRestore} {
			c := t.cost(mark)
			c.Virtual = append(c.Virtual, 0)
			if plugin {
				c.Kernel, c.User = append(c.Kernel, 0), append(c.User, 0)
				t.blocks[mark] = append(t.blocks[mark], map[uint64]uint64{})
			}
		}
		for _, p := range round {
			c := t.cost(p.Mark)
			if c == nil {
				return nil, fmt.Errorf("there is no phase %d", p.Mark)
			}
			c.Virtual[n] += uint64(p.Virtual)
			if !plugin {
				continue
			}
			if len(sections) == 0 || sections[0].Mark != p.Mark {
				return nil, fmt.Errorf("round %d: the phases that the guest had are not those that were counted", n+1)
			}
			c.Kernel[n] += sections[0].Kernel
			c.User[n] += sections[0].User
			for _, b := range sections[0].Blocks {
				t.blocks[p.Mark][n][b.Address] += b.Instructions
			}
			sections = sections[1:]
		}
	}
	return t, nil
}

func (t *tally) cost(m lab.Mark) *Cost {
	switch m {
	case lab.MarkCheckpoint:
		return &t.counts.Checkpoint
	case lab.MarkRestore:
		return &t.counts.Restore
	}
	return nil
}

// name makes functions of addresses.
func (t *tally) name(symbols lab.Symbols) {
	for mark, rounds := range t.blocks {
		byName := map[string][]uint64{}
		for n, round := range rounds {
			for address, instructions := range round {
				name := symbols.Function(address)
				if byName[name] == nil {
					byName[name] = make([]uint64, len(rounds))
				}
				byName[name][n] += instructions
			}
		}
		total, _ := mean(t.cost(mark).Kernel)
		var all []Function
		for name, counts := range byName {
			m, sem := mean(counts)
			if m < total*share {
				continue
			}
			all = append(all, Function{name, uint64(math.Round(m)), uint64(math.Round(sem))})
		}
		sort.Slice(all, func(i, j int) bool {
			return all[i].Mean > all[j].Mean || all[i].Mean == all[j].Mean && all[i].Name < all[j].Name
		})
		t.cost(mark).Functions = all
	}
}

// symbols asks a machine, which is set up as those of the cases are, where its
// functions are.
func (s *session) symbols(ctx context.Context, t Target) (symbols lab.Symbols, err error) {
	if s.Count == nil || s.Count.Plugin == "" {
		return nil, nil // no addresses, either
	}
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.give()
	m, err := s.newMachine(t, order{Symbols: true})
	if err != nil {
		return nil, err
	}
	m.Handle = func(msg lab.Message) error {
		if msg.Result == nil {
			return nil
		}
		var packed []byte
		if err := json.Unmarshal(bytes.TrimSpace(msg.Result), &packed); err != nil {
			return err
		}
		symbols, err = lab.UnpackSymbols(packed)
		return err
	}
	return symbols, m.Run(ctx)
}

// count takes what was counted of a case, while its machine is still there.
func (p *part) count(m *lab.Machine, said rounds) (err error) {
	var sections []lab.Section
	plugin := p.Count.Plugin != ""
	if plugin {
		if sections, err = m.Sections(); err != nil {
			return err
		}
	}
	p.tally, err = newTally(m.Digest(), said, sections, plugin)
	return err
}

// name gives the counts of the part's case to its outcome, with the names of the
// functions, and tells of it.
func (p *part) name() {
	for i := range p.outcomes {
		o := &p.outcomes[i]
		if p.tally != nil && o.Verdict == workload.Pass {
			if symbols, err := p.symbols(); err == nil {
				p.tally.name(symbols)
			} else {
				p.unnamed = err
			}
			o.Counts = p.tally.counts
		}
		p.tell(Event{Target: p.target, Outcome: o})
	}
}
