package domain

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

func candidate(i int, change func(p *Provider)) *Provider {
	p := &Provider{Announcement: Announcement{PeerID: fmt.Sprintf("12D3KooW%08d", i), Capabilities: []Capability{{Type: "sum", Max: Limits{Time: time.Minute}}}}, State: StateAvailable,
		Load: &Load{Slots: 2, Running: uint32(i)}, Named: true}
	if change != nil {
		change(p)
	}
	return p
}

func unfit(n *Need, p *Provider) bool {
	verdict, _ := n.unfit(p)
	return verdict != verdictQualifies
}

// Each provider that was looked at has a verdict, the one that was chosen among them, and the words say the same.
func TestWhyNamesEachProvider(t *testing.T) {
	view := []*Provider{
		candidate(0, func(p *Provider) { p.Capabilities[0].Type = "wasm" }),
		candidate(1, nil), candidate(5, nil),
		candidate(2, func(p *Provider) { p.State = StateUnavailable }),
		candidate(3, func(p *Provider) { p.State = StateLeaving }),
		candidate(4, func(p *Provider) { p.Effort = 1 << 20 }),
		candidate(6, func(p *Provider) { p.Capabilities[0].Max.Time = time.Second }),
		candidate(7, nil),
	}
	need := &Need{Type: "sum", Limits: Limits{Time: 10 * time.Second}, MaxEffort: 1 << 10, Excluded: map[string]string{view[7].PeerID: "REFUSED"}}
	w := Place(view, need, Asked{}, nil).Why()
	got := map[string]string{}
	for _, c := range w.Considered {
		got[c.Peer] = c.Verdict
		if c.Verdict != VerdictChosen && c.Verdict != VerdictBusier && !strings.Contains(w.Detail, ShortPeer(c.Peer)+": "+c.Reason) {
			t.Errorf("the words lack %+v: %s", c, w.Detail)
		}
	}
	want := map[string]string{view[0].PeerID: VerdictType, view[1].PeerID: VerdictChosen, view[2].PeerID: VerdictBusier, view[3].PeerID: VerdictAway, view[4].PeerID: VerdictLeaving,
		view[5].PeerID: VerdictDear, view[6].PeerID: VerdictLimits, view[7].PeerID: VerdictExcluded}
	if !maps.Equal(got, want) || w.Because != BecauseLessBusy || w.Known != 8 || w.Fit != 2 {
		t.Errorf("got %v because %s of %d, %d fit; want %v", got, w.Because, w.Known, w.Fit, want)
	}
	if c := w.Considered; c[0].Verdict != VerdictChosen || c[0].Cost >= c[1].Cost || c[0].Cost != 0.5 {
		t.Errorf("the costs are %v", c)
	}
}

func TestWhyNobody(t *testing.T) {
	for name, c := range map[string]struct {
		view    []*Provider
		need    *Need
		because string
		first   string // verdict
	}{
		"nobody is known":   {nil, &Need{Type: "sum"}, BecauseNobody, ""},
		"nobody can":        {[]*Provider{candidate(1, nil)}, &Need{Type: "other"}, BecauseUnfit, VerdictType},
		"another is named":  {[]*Provider{candidate(1, nil)}, &Need{Type: "sum", Only: []string{"x"}}, BecauseUnfit, VerdictNotNamed},
		"one is not known":  {nil, &Need{Type: "sum", Only: []string{"x"}}, BecauseNobody, VerdictNotKnown},
		"a stranger's word": {[]*Provider{candidate(1, func(p *Provider) { p.Named = false })}, &Need{Type: "sum", Vouched: true}, BecauseUnfit, VerdictUnvouched},
	} {
		w := Place(c.view, c.need, Asked{}, nil).Why()
		first := ""
		if len(w.Considered) > 0 {
			first = w.Considered[0].Verdict
		}
		if w.Because != c.because || first != c.first || w.Detail == "" || w.Fit != 0 {
			t.Errorf("%s: %+v", name, w)
		}
	}
}

func TestWhyIsBounded(t *testing.T) {
	var view []*Provider
	for i := range 4096 {
		view = append(view, candidate(i, nil))
	}
	w := Place(view, &Need{Type: "sum"}, Asked{}, nil).Why()
	if len(w.Considered) != 2+maxWhyNot || w.Considered[2].Verdict != VerdictNotDrawn {
		t.Errorf("%d are named: %+v", len(w.Considered), w.Considered)
	}
	silent := map[string]bool{}
	for _, p := range view[1:] {
		silent[p.PeerID] = true
	}
	if w = Place(view, &Need{Type: "sum"}, Asked{Silent: silent, Done: true}, nil).Why(); w.Because != BecauseAnswered || w.Considered[1].Verdict != VerdictSilent {
		t.Errorf("all but one are silent: %+v", w)
	}
}
