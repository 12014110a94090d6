package domain

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func peerID(n int) string {
	return fmt.Sprintf("12D3KooWPeerPeerPeerPeerPeerPeerPeer%09d", n+111111111)
}

func available(n int, types ...string) *Provider {
	p := &Provider{Announcement: Announcement{PeerID: peerID(n), SealingKey: "age1x"}, State: StateAvailable}
	for _, t := range types {
		p.Capabilities = append(p.Capabilities, Capability{Type: t, Max: Limits{Time: time.Minute, Memory: 1 << 30}})
	}
	return p
}

func loaded(p *Provider, pending, running, slots uint32) *Provider {
	p.Load = &Load{Pending: pending, Running: running, Slots: slots}
	return p
}

func seeded() func(int) int { return rand.New(rand.NewPCG(1, 2)).IntN }

func TestPlaceChoosesTheLessBusyOfTwo(t *testing.T) {
	idle, busy := loaded(available(1, "sum"), 0, 0, 4), loaded(available(2, "sum"), 8, 4, 4)
	draw := seeded()
	for range 100 {
		d := Place([]*Provider{busy, idle}, &Need{Type: "sum"}, Asked{}, draw)
		if d.Chosen != idle || d.Fit != 2 || d.Known != 2 {
			t.Fatalf("chose %+v", d)
		}
		if text := d.Why().Detail; !strings.Contains(text, "the less busy of two drawn from 2") || !strings.Contains(text, "not "+ShortPeer(busy.PeerID)+" (3 tasks per slot)") {
			t.Fatalf("it says %q", text)
		}
	}
}

func TestPlaceIsEven(t *testing.T) {
	var view []*Provider
	for i := range 10 {
		view = append(view, available(i, "sum"))
	}
	draw := seeded()
	count := map[string]int{}
	for range 500 { // a burst, of which no metric tells: only this node's own count does
		d := Place(view, &Need{Type: "sum"}, Asked{}, draw)
		d.Chosen.Placed++
		count[d.Chosen.PeerID]++
	}
	for id, n := range count {
		if n > 60 || n < 40 {
			t.Errorf("%s got %d of 500", id, n)
		}
	}
	if len(count) != 10 {
		t.Errorf("%d of 10 got something", len(count))
	}
	// Without any figures each pair is as likely as any other.
	count = map[string]int{}
	for _, p := range view {
		p.Placed = 0
	}
	for range 10_000 {
		count[Place(view, &Need{Type: "sum"}, Asked{}, draw).Chosen.PeerID]++
	}
	for id, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%s was drawn %d times of 10000", id, n)
		}
	}
}

func TestPlaceSaysWhyNot(t *testing.T) {
	wasm, gone, excluded, small := available(1, "wasm"), available(2, "sum"), available(3, "sum"), available(4, "sum")
	gone.State = StateUnavailable
	small.Capabilities[0].Max.Memory = 1 << 20
	view := []*Provider{wasm, gone, excluded, small}
	need := &Need{Type: "sum", Limits: Limits{Memory: 64 << 20}, Excluded: map[string]string{excluded.PeerID: "QUEUE_FULL"}}
	d := Place(view, need, Asked{}, seeded())
	if d.Chosen != nil {
		t.Fatalf("chose %s", d.Chosen.PeerID)
	}
	for _, want := range []string{"none of 4 known providers qualifies", ShortPeer(wasm.PeerID) + ": does not execute sum", ShortPeer(gone.PeerID) + ": unavailable",
		ShortPeer(excluded.PeerID) + ": excluded: QUEUE_FULL", ShortPeer(small.PeerID) + ": limits too high: asked for memory limit 64 MiB, grants 1 MiB"} {
		if !strings.Contains(d.Why().Detail, want) {
			t.Errorf("%q does not say %q", d.Why().Detail, want)
		}
	}
	need = &Need{Type: "sum", Only: []string{excluded.PeerID, peerID(99)}, Excluded: map[string]string{excluded.PeerID: "LEASE_LOST"}}
	text := ""
	if d := Place(view, need, Asked{}, seeded()); d.Chosen == nil {
		text = d.Why().Detail
	}
	for _, want := range []string{ShortPeer(small.PeerID) + ": not one of the named providers", ShortPeer(excluded.PeerID) + ": excluded: LEASE_LOST",
		"the named provider " + ShortPeer(peerID(99)) + " is not known"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
	if d := Place(nil, need, Asked{}, seeded()); d.Chosen != nil || !strings.Contains(d.Why().Detail, "no provider is known yet") {
		t.Errorf("an empty view: %+v", d)
	}
}

func TestPlaceOnlyNamedOnes(t *testing.T) {
	view := []*Provider{available(1, "sum"), available(2, "sum"), available(3, "sum")}
	for range 20 {
		if d := Place(view, &Need{Type: "sum", Only: []string{view[1].PeerID}}, Asked{}, nil); d.Chosen != view[1] || !strings.Contains(d.Why().Detail, "the only one that qualifies") {
			t.Fatalf("chose %s: %s", d.Chosen.PeerID, d.Why().Detail)
		}
	}
}

func TestDetailIsBounded(t *testing.T) {
	var view []*Provider
	for i := range 300 {
		view = append(view, available(i, "sum"))
	}
	if text := Place(view, &Need{Type: "sum"}, Asked{}, nil).Why().Detail; len(text) > 1024 || !strings.Contains(text, "290 more") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

func TestSample(t *testing.T) {
	view := []*Provider{available(0, "wasm")}
	for i := 1; i <= 10; i++ {
		view = append(view, available(i, "sum"))
	}
	draw := seeded()
	count := map[string]int{}
	for range 3000 {
		got := Sample(view, &Need{Type: "sum", Excluded: map[string]string{peerID(1): "sender"}}, 3, draw)
		if len(got) != 3 || got[0] == got[1] || got[1] == got[2] || got[0] == got[2] {
			t.Fatalf("got %v", got)
		}
		for _, p := range got {
			count[p.PeerID]++
		}
	}
	if len(count) != 9 || count[peerID(0)] > 0 || count[peerID(1)] > 0 {
		t.Errorf("drawn were %v", count)
	}
	for id, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%s was drawn %d times of 9000", id, n)
		}
	}
	if got := Sample(view, &Need{Type: "sum"}, 100, draw); len(got) != 10 {
		t.Errorf("%d of 10", len(got))
	}
}

func TestBusy(t *testing.T) {
	p := available(1, "sum")
	if p.Placed = 2; p.Busy() != 1 {
		t.Errorf("two tasks at a provider of which nothing is known make %v", p.Busy())
	}
	loaded(p, 1, 1, 4)
	if p.Busy() != 0.5 {
		t.Errorf("two of four slots make %v", p.Busy())
	}
	if p.PlacedSince = 2; p.Busy() != 1 {
		t.Errorf("with two placed since, %v", p.Busy())
	}
	if p.Penalty = 4; p.Busy() != 3 { // what is held against it does not weigh less for its slots
		t.Errorf("with a penalty of four, %v", p.Busy())
	}
	if loaded(p, 1, 0, 0).Busy() < 1 {
		t.Error("no slots at all make it look free")
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, n := range []int{3, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var view []*Provider
			for i := range n {
				view = append(view, loaded(available(i, "sum", "wasm"), 1, 2, 4))
			}
			need := &Need{Type: "wasm"}
			b.ReportAllocs()
			for b.Loop() {
				if d := Place(view, need, Asked{}, nil); d.Why().Detail == "" {
					b.Fatal("no words")
				}
			}
		})
	}
}

// TestPlaceWeighsPrices: a price is as bad as work ahead, what was said with a refusal counts more than what was announced, and more than is paid is too much.
func TestPlaceWeighsPrices(t *testing.T) {
	t.Parallel()
	priced := func(p *Provider, effort uint32) *Provider {
		p.Effort = effort
		return p
	}
	for name, c := range map[string]struct {
		a, b *Provider
		need Need
		want int // 0: nobody
		says string
	}{
		"the cheaper of two as busy": {priced(loaded(available(1, "sum"), 0, 1, 4), 4096), priced(loaded(available(2, "sum"), 0, 1, 4), 16), Need{}, 2, "the cheaper of two"},
		"a price is little":          {priced(loaded(available(1, "sum"), 0, 0, 4), 64), loaded(available(2, "sum"), 4, 4, 4), Need{}, 1, "the less busy of two"},
		"a price is much":            {priced(loaded(available(1, "sum"), 0, 0, 4), 1<<14), loaded(available(2, "sum"), 4, 4, 4), Need{}, 2, "a puzzle of effort 16384"},
		"it is higher than it was":   {loaded(available(1, "sum"), 0, 1, 4), loaded(available(2, "sum"), 0, 2, 4), Need{Efforts: map[string]uint32{peerID(1): 4096}}, 2, "the cheaper of two"},
		"it is lower than it was":    {priced(loaded(available(1, "sum"), 0, 1, 4), 4096), loaded(available(2, "sum"), 0, 2, 4), Need{Efforts: map[string]uint32{peerID(1): 0}}, 1, "the less busy"},
		"one is too dear":            {priced(loaded(available(1, "sum"), 0, 0, 4), 128), loaded(available(2, "sum"), 100, 4, 4), Need{MaxEffort: 64}, 2, "too dear: it asks strangers for a puzzle of effort 128, and this node pays 64"},
		"both are": {priced(available(1, "sum"), 128), available(2, "sum"), Need{MaxEffort: 64, Efforts: map[string]uint32{peerID(2): 256}}, 0,
			"none of 2 known providers qualifies"},
	} {
		need := c.need
		need.Type = "sum"
		d := Place([]*Provider{c.a, c.b}, &need, Asked{}, seeded())
		if want := []*Provider{nil, c.a, c.b}[c.want]; d.Chosen != want || !strings.Contains(d.Why().Detail, c.says) {
			t.Errorf("%s: %s", name, d.Why().Detail)
		}
	}
}
