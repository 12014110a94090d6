package domain

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// maxKeepers is how many a submission may name.
const maxKeepers = 16

// Keepers returns providers that may keep a task's result beside the one that runs it, the better ones first: more than are wanted, since one
// may refuse. They need not execute anything, and may be others than those that may run the task. Like Sample it is random, so
// that not all results come to the same few.
func Keepers(view []*Provider, need *Need, runner string, draw func(n int) int) []*Provider {
	if need.Copies == 0 {
		return nil
	}
	if draw == nil {
		draw = rand.IntN
	}
	var out []*Provider
	for _, p := range view {
		if _, no := need.Excluded[p.PeerID]; no || p.State != StateAvailable || p.PeerID == runner {
			continue
		}
		out = append(out, p)
	}
	for i := len(out) - 1; i > 0; i-- {
		j := draw(i + 1)
		out[i], out[j] = out[j], out[i]
	}
	slices.SortStableFunc(out, func(a, b *Provider) int { return cmp.Compare(faults(a), faults(b)) })
	return out[:min(len(out), int(2*min(need.Copies, maxKeepers)+1), maxKeepers)]
}

// faults puts those first against which nothing is held.
func faults(p *Provider) int {
	if p.Penalty >= refusalWeight {
		return 1
	}
	return 0
}
