package app

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// A task that wants copies of its result is placed with others that may keep it, also when it could not be placed at once.
func TestPlacerNamesWhoKeepsTheResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a, b, c := e.add(), e.add(), e.add()
		placed := &placements{}
		var p *Placer
		joined(t, e, []*station{a, b, c}, func(view *Consumer) { p = NewPlacer(placed, view, discard) }, func(t *testing.T, view *Consumer) {
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			after(10 * time.Second)
			p.Needed(&taskv1.PlacementNeeded{TaskId: "plain", Type: "sum"})
			after(time.Second)
			p.Needed(&taskv1.PlacementNeeded{TaskId: "kept", Type: "sum", Copies: 1, Excluded: map[string]string{b.key.ID: "REFUSED"}})
			after(time.Second)
			p.Needed(&taskv1.PlacementNeeded{TaskId: "alone", Type: "sum", Copies: 1, Excluded: map[string]string{b.key.ID: "REFUSED", c.key.ID: "REFUSED"}})
			after(time.Second)
			got := placed.all()
			if len(got) != 3 || len(got[0].GetReplicas()) != 0 || len(got[1].GetReplicas()) != 1 || len(got[2].GetReplicas()) != 0 {
				t.Fatalf("the placements are %v", got)
			}
			if k := got[1].GetReplicas()[0]; k.GetPeerId() == got[1].GetCandidate().GetPeerId() || k.GetPeerId() == b.key.ID || len(k.GetAddresses()) == 0 {
				t.Errorf("at %s it may be kept by %v", got[1].GetCandidate().GetPeerId(), k)
			}
			if d := got[1].GetDetail(); !strings.Contains(d, "1 of these are to keep the result as well: "+domain.ShortPeer(got[1].GetReplicas()[0].GetPeerId())) {
				t.Errorf("the history says %q", d)
			}
			if d := got[2].GetDetail(); !strings.Contains(d, "no other provider is known that could keep the result") {
				t.Errorf("the history says %q", d)
			}
			cancel()
			<-done
		})
	})
}
