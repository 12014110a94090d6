package domain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Need is a task that wants a provider.
type Need struct {
	TaskID   string
	Type     string
	Limits   Limits
	Only     []string          // these providers only; empty for all
	Excluded map[string]string // these not, with the reason
	Copies   uint32            // other providers wanted that keep the result, too
}

// Decision says who gets a task. Chosen is nil when nobody qualifies.
type Decision struct {
	Chosen *Provider
	Known  int // providers looked at
	Fit    int // those that qualify
	text   func() string
}

// Detail says in words why this one, and per other provider why not.
func (d Decision) Detail() string { return d.text() }

// maxWhyNot bounds the providers that a Detail names one by one.
const maxWhyNot = 8

// Place chooses between two random providers that qualify the less busy one: nearly as even as always taking the
// least busy, and safe against everybody choosing the same one from the same old figures. It blocks nothing and
// keeps nothing of view, whose entries must not change while Detail may still be called.
func Place(view []*Provider, need *Need, draw func(n int) int) Decision {
	if draw == nil {
		draw = rand.IntN
	}
	first, second, fit := -1, -1, 0
	for i, p := range view { // two of those that qualify, each pair as likely as any other, without a list of them
		if !need.fits(p) {
			continue
		}
		fit++
		switch j := draw(fit); {
		case fit == 1:
			first = i
		case fit == 2:
			second = i
			if j == 0 {
				first, second = second, first
			}
		case j == 0:
			first = i
		case j == 1:
			second = i
		}
	}
	d := Decision{Known: len(view), Fit: fit}
	if first < 0 {
		d.text = func() string { return need.nobody(view) }
		return d
	}
	d.Chosen = view[first]
	if second >= 0 && better(view[second], view[first]) {
		first, second = second, first
		d.Chosen = view[first]
	}
	if d.Chosen.Penalty >= refusalWeight && fit > 2 {
		if i := cleaner(view, need, d.Chosen, draw); i >= 0 {
			first, second = i, first
			d.Chosen = view[first]
		}
	}
	d.text = func() string { return need.explain(view, first, second, fit) }
	return d
}

// cleaner finds a provider that is less busy than one against which something is held, by two draws from those against which there is
// nothing; -1: none. Where liars are many, two draws from all would often find two of them.
func cleaner(view []*Provider, need *Need, than *Provider, draw func(n int) int) int {
	var clean []int
	for i, p := range view {
		if p.Penalty < refusalWeight && need.fits(p) {
			clean = append(clean, i)
		}
	}
	if len(clean) == 0 {
		return -1
	}
	best := clean[draw(len(clean))]
	if other := clean[draw(len(clean))]; better(view[other], view[best]) {
		best = other
	}
	if better(view[best], than) {
		return best
	}
	return -1
}

func better(a, b *Provider) bool { return a.Busy() < b.Busy() }

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
	c := p.Capability(n.Type)
	return c != nil && n.Limits.Exceeds(c.Max) == ""
}

// whyNot is the reason for which a provider does not qualify; "" when it does. What the user said comes first, then
// what lasts, then what may change soon.
func (n *Need) whyNot(p *Provider) string {
	if len(n.Only) > 0 && !slices.Contains(n.Only, p.PeerID) {
		return "not one of the named providers"
	}
	if why, no := n.Excluded[p.PeerID]; no {
		if why == "" {
			return "excluded"
		}
		return "excluded: " + why
	}
	c := p.Capability(n.Type)
	if c == nil {
		return "does not execute " + n.Type
	}
	if why := n.Limits.Exceeds(c.Max); why != "" {
		return "limits too high: asked for " + why
	}
	if p.State != StateAvailable {
		return p.State
	}
	return ""
}

func (n *Need) explain(view []*Provider, chosen, other, fit int) string {
	var b strings.Builder
	c := view[chosen]
	fmt.Fprintf(&b, "chose %s (%s)", ShortPeer(c.PeerID), busy(c))
	if other >= 0 {
		o := view[other]
		how := "the less busy"
		if o.Busy() == c.Busy() {
			how = "as busy as the other, drawn first"
		}
		fmt.Fprintf(&b, ", %s of two drawn from %d that qualify; not %s (%s)", how, fit, ShortPeer(o.PeerID), busy(o))
	} else {
		b.WriteString(", the only one that qualifies")
	}
	n.others(&b, view, func(i int) bool { return i == chosen || i == other })
	return b.String()
}

func (n *Need) others(b *strings.Builder, view []*Provider, skip func(int) bool) {
	named, left := 0, 0
	for i, p := range view {
		if skip(i) {
			continue
		}
		if named == maxWhyNot {
			left++
			continue
		}
		why := n.whyNot(p)
		if why == "" {
			why = "not drawn"
		}
		fmt.Fprintf(b, "; not %s: %s", ShortPeer(p.PeerID), why)
		named++
	}
	if left > 0 {
		fmt.Fprintf(b, "; %d more", left)
	}
}

func (n *Need) nobody(view []*Provider) string {
	var b strings.Builder
	if len(view) == 0 {
		b.WriteString("no provider is known yet")
	} else {
		fmt.Fprintf(&b, "none of %d known providers qualifies", len(view))
		n.others(&b, view, func(int) bool { return false })
	}
	for i, id := range n.Only {
		if i == maxWhyNot {
			break
		}
		if !slices.ContainsFunc(view, func(p *Provider) bool { return p.PeerID == id }) {
			fmt.Fprintf(&b, "; the named provider %s is not known", ShortPeer(id))
		}
	}
	return b.String()
}

func busy(p *Provider) string {
	if p.Load == nil {
		return fmt.Sprintf("load not known, %d tasks from here", p.Placed)
	}
	return fmt.Sprintf("%.2g tasks per slot", p.Busy())
}
