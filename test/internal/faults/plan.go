// Package faults says what happens to a network and when: from a seed alone, so that a run can be had again.
package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is what happens.
type Kind string

// Kinds.
const (
	Kill     Kind = "kill"     // SIGKILL of one process
	Silence  Kind = "silence"  // every process of a node stopped (SIGSTOP) for longer than a lease, then continued
	Stall    Kind = "stall"    // one process stopped for longer than an event's acknowledgement may take: what it was told was delivered, and is reported as lost
	Drop     Kind = "drop"     // every connection between two nodes dropped, once
	Cut      Kind = "cut"      // the network in two halves that cannot connect
	Fill     Kind = "fill"     // a node's disk full
	Jump     Kind = "jump"     // the machine's clock set forward, and back at the end
	Blackout Kind = "blackout" // every process of every node killed at once, and all started again
)

// Fault is one thing that happens.
type Fault struct {
	At      time.Duration // since the beginning
	For     time.Duration // 0: at once
	Kind    Kind
	Node    string
	Process string
	Others  []string // Drop: the other node; Cut: the nodes on the other side
	By      time.Duration
}

// String is one line of a trace.
func (f Fault) String() string {
	s := fmt.Sprintf("%6.2fs %s", f.At.Seconds(), f.Kind)
	if f.Node != "" {
		s += " " + f.Node
	}
	if f.Process != "" {
		s += "/" + f.Process
	}
	if len(f.Others) > 0 {
		s += " from " + strings.Join(f.Others, ", ")
	}
	if f.By != 0 {
		s += fmt.Sprintf(" by %v", f.By)
	}
	if f.For > 0 {
		s += fmt.Sprintf(" for %v", f.For.Round(10*time.Millisecond))
	}
	return s
}

// Config of a plan.
type Config struct {
	Seed  uint64
	For   time.Duration // when the last fault begins
	Every time.Duration // between two faults, in the mean
	Lease time.Duration // of the network's consumers
	Ack   time.Duration // how long an event waits for its acknowledgement
	Nodes []string
	// Processes of a node that may be hurt, by name.
	Processes func(node string) []string
	// Filled is a node whose disk can be filled; empty for none.
	Filled string
	Clock  bool
	Kinds  []Kind // empty: all that can be had
}

// Plan returns what happens, in order. Each kind comes up before any comes up again. Faults of one node do not overlap with a Silence of
// it: a stopped process cannot be hurt further. A network that is cut heals before it is cut again.
func Plan(c Config) []Fault {
	rng := rand.New(rand.NewPCG(c.Seed, 0x5a11))
	kinds := c.Kinds
	if len(kinds) == 0 {
		kinds = []Kind{Kill, Kill, Kill, Silence, Stall, Drop, Cut, Blackout}
		if c.Filled != "" {
			kinds = append(kinds, Fill)
		}
		if c.Clock {
			kinds = append(kinds, Jump)
		}
	}
	var plan []Fault
	var bag []Kind
	busy := map[string]time.Duration{}
	for at := c.Every / 2; at < c.For; at += time.Duration((0.5 + rng.Float64()) * float64(c.Every)) {
		if len(bag) == 0 {
			bag = slices.Clone(kinds)
			rng.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		f := c.draw(rng, bag[0], at)
		if f.clashes(busy, c.Nodes) { // something else now, this one next
			if i := slices.IndexFunc(bag, func(k Kind) bool { return k == Kill }); i > 0 {
				bag[0], bag[i] = bag[i], bag[0]
				f = c.draw(rng, Kill, at)
			}
			if f.clashes(busy, c.Nodes) {
				continue
			}
		}
		bag = bag[1:]
		for _, n := range f.touches(c.Nodes) {
			busy[n] = at + f.For + c.Every/4
		}
		plan = append(plan, f)
	}
	return plan
}

func (c Config) draw(rng *rand.Rand, k Kind, at time.Duration) Fault {
	node := c.Nodes[rng.IntN(len(c.Nodes))]
	some := func(least, most time.Duration) time.Duration {
		return least + time.Duration(rng.Float64()*float64(most-least))
	}
	f := Fault{At: at, Kind: k}
	switch k {
	case Kill, Stall:
		f.Node = node
		all := c.Processes(node)
		f.Process = all[rng.IntN(len(all))]
		if k == Stall {
			f.For = some(c.Ack, c.Ack*3/2)
		}
	case Silence:
		f.Node, f.For = node, some(c.Lease*3/2, c.Lease*3)
	case Drop, Cut:
		nodes := slices.Clone(c.Nodes)
		rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		f.Node, f.Others = nodes[0], nodes[1:2]
		if k == Cut {
			f.Others, f.Node, f.For = nodes[:len(nodes)/2], "", some(c.Lease*3/2, c.Lease*3)
		}
	case Fill:
		f.Node, f.For = c.Filled, some(c.Lease, c.Lease*2)
	case Jump:
		f.For, f.By = some(c.Lease, c.Lease*2), []time.Duration{-time.Hour, time.Hour, 26 * time.Hour}[rng.IntN(3)]
	case Blackout:
	}
	return f
}

// touches are the nodes that a fault keeps busy.
func (f Fault) touches(all []string) []string {
	switch f.Kind {
	case Cut, Blackout, Jump:
		return all
	case Drop:
		return append([]string{f.Node}, f.Others...)
	case Kill, Silence, Stall, Fill:
	}
	return []string{f.Node}
}

func (f Fault) clashes(busy map[string]time.Duration, all []string) bool {
	return slices.ContainsFunc(f.touches(all), func(n string) bool { return busy[n] > f.At })
}
