package domain

import (
	"fmt"
	"math"
)

// Resources are what a metric says of a node.
type Resources struct {
	Known       bool    // false: nothing is known, and the fields are zero
	MHz         float64 // of the CPU
	Load        float64 // busy share of all threads, 0 to 1
	MemoryTotal int64   // bytes
	MemoryFree  int64   // bytes
	GPUMemory   int64   // bytes, of all GPUs
	Queue       Queue
}

// Contender is another provider that could run the task.
type Contender struct {
	Peer      string
	Resources Resources
}

// Decision says who runs a task: this node, when Contender is negative.
type Decision struct {
	Contender int
	Reason    string // in words, for the task's history
}

var here = Decision{Contender: -1}

// Normalisation of the best-metric score: what counts as 1. Beyond it nothing is gained, so that an invented figure
// does not win more than a good machine would.
const (
	FullGHz       = 5.0
	FullGPUMemory = 80 << 30 // bytes
)

// Score is the best-metric score of a node, 0 to 1:
//
//	0.5 · memory free / memory total
//	0.4 · (1 − load) · min(GHz / 5, 1)
//	0.1 · min(GPU memory / 80 GiB, 1)
//
// with load as the busy share of all threads. What is out of range counts as the nearest that is in it.
func Score(r Resources) float64 {
	if !r.Known {
		return 0
	}
	mem := 0.0
	if r.MemoryTotal > 0 {
		mem = unit(float64(r.MemoryFree) / float64(r.MemoryTotal))
	}
	return 0.5*mem + 0.4*(1-unit(r.Load))*unit(r.MHz/1000/FullGHz) + 0.1*unit(float64(r.GPUMemory)/FullGPUMemory)
}

func unit(v float64) float64 {
	if math.IsNaN(v) || v < 0 {
		return 0
	}
	return min(v, 1)
}

// Busy is how many rounds of work a node has before it: tasks waiting and running, per slot.
func Busy(q Queue) float64 {
	return float64(max(q.Pending, 0)+max(q.Running, 0)) / float64(max(q.Slots, 1))
}

// Local runs everything here.
type Local struct{}

// Name is what configuration calls it.
func (Local) Name() string { return "local" }

// Wants is how many contenders it needs to hear of.
func (Local) Wants() int { return 0 }

// Decide says who runs a task.
func (Local) Decide(Resources, []Contender) Decision { return here }

// BestMetric sends a task to the node with the best score, when it is better than this one's by Margin.
type BestMetric struct{ Margin float64 }

// DefaultMargin keeps two nodes alike from handing tasks to and fro.
const DefaultMargin = 0.05

// Name is what configuration calls it.
func (BestMetric) Name() string { return "best-metric" }

// Wants is how many contenders it needs to hear of.
func (BestMetric) Wants() int { return 16 }

// Decide says who runs a task. A contender with a full queue is not one.
func (b BestMetric) Decide(own Resources, others []Contender) Decision {
	d, best := here, Score(own)
	mine := best
	for i, c := range others {
		if q := c.Resources.Queue; q.Capacity > 0 && q.Pending >= q.Capacity {
			continue
		}
		if s := Score(c.Resources); s > best && s > mine+b.Margin {
			best = s
			d = Decision{Contender: i, Reason: fmt.Sprintf("its score is %.3f, this provider's %.3f", s, mine)}
		}
	}
	return d
}

// TwoChoices runs a task here while a slot is free, or when this node is not busier than the better of two random
// peers by more than Margin rounds of work. That keeps a burst from being herded onto whichever node looked best a
// moment ago.
type TwoChoices struct{ Margin float64 }

// DefaultRounds is the margin of TwoChoices: half a round of work.
const DefaultRounds = 0.5

// Name is what configuration calls it.
func (TwoChoices) Name() string { return "two-choices" }

// Wants is how many contenders it needs to hear of.
func (TwoChoices) Wants() int { return 2 }

// Decide says who runs a task.
func (c TwoChoices) Decide(own Resources, others []Contender) Decision {
	if q := own.Queue; q.Pending == 0 && q.Running < q.Slots {
		return here
	}
	d, mine := here, Busy(own.Queue)
	best := mine - c.Margin
	for i, o := range others[:min(len(others), 2)] {
		if !o.Resources.Known || o.Resources.Queue.Slots <= 0 {
			continue
		}
		if b := Busy(o.Resources.Queue); b < best {
			best = b
			d = Decision{Contender: i, Reason: fmt.Sprintf("it has %.1f rounds of work, this provider %.1f", b, mine)}
		}
	}
	return d
}
