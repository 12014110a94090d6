package app

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func TestPlacerFindsAPlaceLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a := e.add()
		a.up = false
		placed := &placements{}
		var p *Placer
		joined(t, e, []*station{a}, func(c *Consumer) {
			p = NewPlacer(placed, c, discard)
			c.Changed = p.Changed
		}, func(t *testing.T, c *Consumer) {
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			for i := range 100 {
				p.Needed(&taskv1.PlacementNeeded{TaskId: fmt.Sprint(i), Type: "sum"})
				p.Needed(&taskv1.PlacementNeeded{TaskId: fmt.Sprint(i), Type: "sum"}) // told again
			}
			after(time.Minute)
			if n := len(placed.whys()); n != 100 {
				t.Errorf("%d reasons were given for 100 tasks", n)
			}
			p.Settled("99") // cancelled
			e.mu.Lock()
			a.up = true
			e.mu.Unlock()
			after(35 * time.Second)
			if n := len(placed.all()); n != 99 || p.Pending() != 0 {
				t.Errorf("%d are placed, %d pending", n, p.Pending())
			}
			if !strings.Contains(placed.all()[0].GetDetail(), "the only one that qualifies") {
				t.Errorf("the reason is %q", placed.all()[0].GetDetail())
			}
			cancel()
			<-done
		})
	})
}

type placements struct {
	mu     sync.Mutex
	done   []*taskv1.PlaceTask
	failed []*taskv1.PlacementFailed
}

func (p *placements) PlaceTask(_ context.Context, m *taskv1.PlaceTask) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, m)
	return nil
}

func (p *placements) PlacementFailed(_ context.Context, m *taskv1.PlacementFailed) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = append(p.failed, m)
	return nil
}

func (p *placements) all() []*taskv1.PlaceTask { p.mu.Lock(); defer p.mu.Unlock(); return p.done }
func (p *placements) whys() []*taskv1.PlacementFailed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}
