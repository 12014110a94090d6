package domain

import (
	"fmt"
	"slices"
	"strings"
)

// Why is how a provider was chosen, or why none was.
type Why struct {
	Detail     string // all of it in words
	Because    string // UPPER_SNAKE
	Considered []Considered
	Known, Fit int // providers looked at, and those that qualify
}

// Considered is one provider that was looked at.
type Considered struct {
	Peer    string
	Cost    float64 // how long the task would wait there, in rounds of work
	Verdict string  // UPPER_SNAKE
	Reason  string  // in words
}

// Why a provider was chosen, or none.
const (
	BecauseLessBusy  = "LESS_BUSY" // of two that were drawn
	BecauseCheaper   = "CHEAPER"
	BecauseFirst     = "DRAWN_FIRST" // as busy as the other
	BecauseOnlyOne   = "ONLY_ONE"    // that qualifies
	BecauseAnswered  = "ONLY_ANSWERED"
	BecauseNobody    = "NOBODY_KNOWN"
	BecauseUnfit     = "NOBODY_QUALIFIES"
	BecauseNotYet    = "NOT_YET" // it is looked for right after the task is made
	BecauseLost      = "UNREACHABLE"
	BecauseNoPersona = "NO_PERSONA"
)

// What was thought of one provider.
const (
	VerdictChosen     = "CHOSEN"
	VerdictBusier     = "BUSIER"
	VerdictDearer     = "DEARER"
	VerdictEqual      = "DRAWN_SECOND"
	VerdictNotDrawn   = "NOT_DRAWN"
	VerdictSilent     = "SILENT"
	VerdictNotNamed   = "NOT_NAMED"
	VerdictUnvouched  = "UNVOUCHED"
	VerdictExcluded   = "EXCLUDED"
	VerdictType       = "WRONG_TYPE"
	VerdictLimits     = "LIMITS_TOO_HIGH"
	VerdictDear       = "TOO_DEAR"
	VerdictAway       = "UNAVAILABLE"
	VerdictLeaving    = "LEAVING"
	VerdictNotKnown   = "NOT_KNOWN" // the task names it
	verdictQualifies  = ""
	maxWhyNot         = 8 // providers that are named beside those that were drawn
	notDrawn          = "not drawn"
	notDrawnForSilent = "did not say in time how busy it is"
)

// unfit is the reason for which a provider does not qualify; verdictQualifies when it does. What the user said comes first, then what lasts, then what may change soon.
func (n *Need) unfit(p *Provider) (verdict, reason string) {
	if len(n.Only) > 0 && !slices.Contains(n.Only, p.PeerID) {
		return VerdictNotNamed, "not one of the named providers"
	}
	if n.Vouched && len(n.Only) == 0 && !p.Vouched() {
		return VerdictUnvouched, "only one peer has told of it, who may have made it up: name it with --provider to use it"
	}
	if why, no := n.Excluded[p.PeerID]; no {
		if why == "" {
			return VerdictExcluded, "excluded"
		}
		return VerdictExcluded, "excluded: " + why
	}
	c := p.Capability(n.Type)
	if c == nil {
		return VerdictType, "does not execute " + n.Type
	}
	if why := n.Limits.Exceeds(c.Max); why != "" {
		return VerdictLimits, "limits too high: asked for " + why
	}
	if e := n.effort(p); n.MaxEffort > 0 && e > n.MaxEffort {
		return VerdictDear, fmt.Sprintf("too dear: it asks strangers for a puzzle of effort %d, and this node pays %d at most (consumer.max_effort)", e, n.MaxEffort)
	}
	switch p.State {
	case StateAvailable:
		return verdictQualifies, ""
	case StateLeaving:
		return VerdictLeaving, p.State
	}
	return VerdictAway, p.State
}

func (n *Need) explain(view []*Provider, chosen, other, fit int, silent map[string]bool) *Why {
	var b strings.Builder
	c := view[chosen]
	busy := n.busy(c)
	w := &Why{Because: BecauseOnlyOne, Considered: []Considered{{c.PeerID, n.cost(c), VerdictChosen, busy}}}
	fmt.Fprintf(&b, "chose %s (%s)", n.Name(c.PeerID), busy)
	switch {
	case other >= 0:
		o := view[other]
		how, verdict := "the less busy", VerdictBusier
		w.Because = BecauseLessBusy
		switch {
		case n.cost(o) == n.cost(c):
			how, verdict, w.Because = "as busy as the other, drawn first", VerdictEqual, BecauseFirst
		case o.Busy() <= c.Busy():
			how, verdict, w.Because = "the cheaper", VerdictDearer, BecauseCheaper
		}
		busy := n.busy(o)
		w.Considered = append(w.Considered, Considered{o.PeerID, n.cost(o), verdict, busy})
		fmt.Fprintf(&b, ", %s of two drawn from %d that qualify; not %s (%s)", how, fit, n.Name(o.PeerID), busy)
	case fit > 1:
		w.Because = BecauseAnswered
		fmt.Fprintf(&b, ", the only one drawn from %d that qualify that said in time how busy it is", fit)
	default:
		b.WriteString(", the only one that qualifies")
	}
	if len(silent) > 0 {
		fmt.Fprintf(&b, "; %d did not say in time how busy they are", len(silent))
	}
	n.others(&b, w, view, silent, func(i int) bool { return i == chosen || i == other })
	w.Detail = b.String()
	return w
}

func (n *Need) others(b *strings.Builder, w *Why, view []*Provider, silent map[string]bool, skip func(int) bool) {
	named, left := 0, 0
	for i, p := range view {
		if skip(i) {
			continue
		}
		if named == maxWhyNot {
			left++
			continue
		}
		verdict, why := n.unfit(p)
		switch {
		case verdict != verdictQualifies:
		case silent[p.PeerID]:
			verdict, why = VerdictSilent, notDrawnForSilent
		default:
			verdict, why = VerdictNotDrawn, notDrawn
		}
		w.Considered = append(w.Considered, Considered{p.PeerID, n.cost(p), verdict, why})
		fmt.Fprintf(b, "; not %s: %s", n.Name(p.PeerID), why)
		named++
	}
	if left > 0 {
		fmt.Fprintf(b, "; %d more", left)
	}
}

func (n *Need) nobody(view []*Provider) *Why {
	var b strings.Builder
	w := &Why{Because: BecauseUnfit}
	if len(view) == 0 {
		w.Because = BecauseNobody
		b.WriteString("no provider is known yet")
	} else {
		fmt.Fprintf(&b, "none of %d known providers qualifies", len(view))
		n.others(&b, w, view, nil, func(int) bool { return false })
	}
	for i, id := range n.Only {
		if i == maxWhyNot {
			break
		}
		if !slices.ContainsFunc(view, func(p *Provider) bool { return p.PeerID == id }) {
			fmt.Fprintf(&b, "; the named provider %s is not known", n.Name(id))
			w.Considered = append(w.Considered, Considered{Peer: id, Verdict: VerdictNotKnown, Reason: "the task names it, and it is not known"})
		}
	}
	w.Detail = b.String()
	return w
}

func (n *Need) busy(p *Provider) string {
	price := ""
	if e := n.effort(p); e > 0 {
		price = fmt.Sprintf(", a puzzle of effort %d", e)
	}
	if p.Load == nil {
		return fmt.Sprintf("load not known, %d tasks from here%s", p.Placed, price)
	}
	return fmt.Sprintf("%.2g tasks per slot%s", p.Busy(), price)
}
