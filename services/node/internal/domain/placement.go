package domain

import (
	"math/rand/v2"
	"slices"
)

// Need is a task that wants a provider.
type Need struct {
	TaskID    string
	Type      string
	Limits    Limits
	Only      []string          // these providers only; empty for all
	Excluded  map[string]string // these not, with the reason
	Copies    uint32            // other providers wanted that keep the result, too
	MayHandOn bool              // its consumer lets the provider that has it find another
	Job       string            // that the task is a shard of; empty for others
	Personas  int               // that the job's shards leave from at one time, at most; 0 for what the node is set to
	// Efforts are what providers have asked for lately when they refused the task, which is newer than what they announce; MaxEffort is the most that is paid, 0 for
	// any.
	Efforts   map[string]uint32
	MaxEffort uint32
	Vouched   bool                   // only those that two peers have told of, or the user has named
	PeerName  func(id string) string // how a Detail calls a peer; nil for ShortPeer
}

// Name is how a text about the task calls a peer.
func (n *Need) Name(id string) string {
	if n.PeerName == nil {
		return ShortPeer(id)
	}
	return n.PeerName(id)
}

// Decision says who gets a task. Chosen is nil when nobody qualifies.
type Decision struct {
	Chosen *Provider
	Other  *Provider // that it was chosen before; nil when there was none
	Known  int       // providers looked at
	Fit    int       // those that qualify
	why    func() *Why
}

// Asked is what became of asking those that were drawn how busy they are.
type Asked struct {
	Keep   []string        // drawn, and known well enough: the choice is between two of these, and others are drawn where they are fewer
	Silent map[string]bool // did not say in time: not drawn, unless nobody else qualifies
	Done   bool            // nobody can be asked any more: of Keep, when there is any, not even one is drawn beside it
}

// Why says why this one, and per other provider why not. The view must not have changed.
func (d Decision) Why() *Why {
	w := d.why()
	w.Known, w.Fit = d.Known, d.Fit
	return w
}

// Place chooses between two random providers that qualify the less busy one: nearly as even as always taking the
// least busy, and safe against everybody choosing the same one from the same old figures. It blocks nothing and
// keeps nothing of view, whose entries must not change while Why may still be called.
func Place(view []*Provider, need *Need, asked Asked, draw func(n int) int) Decision {
	if draw == nil {
		draw = rand.IntN
	}
	first, second, fit := drawTwo(view, need, asked, draw)
	if first < 0 && len(asked.Silent) > 0 {
		asked.Silent = nil
		first, second, fit = drawTwo(view, need, asked, draw)
	}
	d := Decision{Known: len(view), Fit: fit}
	if first < 0 {
		d.why = func() *Why { return need.nobody(view) }
		return d
	}
	d.Chosen = view[first]
	if second >= 0 && need.better(view[second], view[first]) {
		first, second = second, first
		d.Chosen = view[first]
	}
	if d.Chosen.Penalty >= refusalWeight && fit > 2 {
		if i := cleaner(view, need, asked, d.Chosen, draw); i >= 0 {
			first, second = i, first
			d.Chosen = view[first]
		}
	}
	if second >= 0 {
		d.Other = view[second]
	}
	d.why = func() *Why { return need.explain(view, first, second, fit, asked.Silent) }
	return d
}

// drawTwo draws two of those that qualify, each pair as likely as any other, without a list of them: those that are kept before others.
func drawTwo(view []*Provider, need *Need, asked Asked, draw func(n int) int) (first, second, fit int) {
	first, second = -1, -1
	kept, drawn := 0, 0
	var one, two int
	take := func(n int, a, b *int, i int) { // the n-th of which one and two are drawn
		switch j := draw(n); {
		case n == 1:
			*a = i
		case n == 2:
			*b = i
			if j == 0 {
				*a, *b = *b, *a
			}
		case j == 0:
			*a = i
		case j == 1:
			*b = i
		}
	}
	for i, p := range view {
		if !need.fits(p) {
			continue
		}
		fit++
		switch {
		case slices.Contains(asked.Keep, p.PeerID):
			kept++
			take(kept, &first, &second, i)
		case !asked.Silent[p.PeerID]:
			drawn++
			take(drawn, &one, &two, i)
		}
	}
	switch {
	case kept == 0 && drawn > 0:
		first = one
		if drawn > 1 {
			second = two
		}
	case kept == 1 && drawn > 0 && !asked.Done:
		second = one
	}
	return first, second, fit
}

// cleaner finds a provider that is less busy than one against which something is held, by two draws from those against which there is
// nothing; -1: none. Where liars are many, two draws from all would often find two of them.
func cleaner(view []*Provider, need *Need, asked Asked, than *Provider, draw func(n int) int) int {
	var clean []int
	for i, p := range view {
		if p.Penalty < refusalWeight && !asked.Silent[p.PeerID] && need.fits(p) {
			clean = append(clean, i)
		}
	}
	if len(clean) == 0 {
		return -1
	}
	best := clean[draw(len(clean))]
	if other := clean[draw(len(clean))]; need.better(view[other], view[best]) {
		best = other
	}
	if need.better(view[best], than) {
		return best
	}
	return -1
}

// effortOfRound is the effort that weighs as much as a round of work ahead: about a second.
const effortOfRound = 2048

// effort is what a submission costs there, as far as is known.
func (n *Need) effort(p *Provider) uint32 {
	if e, told := n.Efforts[p.PeerID]; told {
		return e
	}
	return p.Effort
}

// cost is how long the task would wait there: for what is to be done before it, and for its price.
func (n *Need) cost(p *Provider) float64 { return p.Busy() + float64(n.effort(p))/effortOfRound }

func (n *Need) better(a, b *Provider) bool { return n.cost(a) < n.cost(b) }

// Sample returns up to n random providers that qualify, in random order.
func Sample(view []*Provider, need *Need, n int, draw func(n int) int) []*Provider {
	if draw == nil {
		draw = rand.IntN
	}
	out := make([]*Provider, 0, n)
	fit := 0
	for _, p := range view {
		if !need.fits(p) {
			continue
		}
		fit++
		if len(out) < n {
			out = append(out, p)
		} else if j := draw(fit); j < n {
			out[j] = p
		}
	}
	for i := len(out) - 1; i > 0; i-- {
		j := draw(i + 1)
		out[i], out[j] = out[j], out[i]
	}
	return out
}

func (n *Need) fits(p *Provider) bool {
	if p.State != StateAvailable {
		return false
	}
	if len(n.Excluded) > 0 {
		if _, no := n.Excluded[p.PeerID]; no {
			return false
		}
	}
	if len(n.Only) > 0 && !slices.Contains(n.Only, p.PeerID) {
		return false
	}
	if n.Vouched && len(n.Only) == 0 && !p.Vouched() {
		return false
	}
	if n.MaxEffort > 0 && n.effort(p) > n.MaxEffort {
		return false
	}
	c := p.Capability(n.Type)
	return c != nil && n.Limits.Exceeds(c.Max) == ""
}
