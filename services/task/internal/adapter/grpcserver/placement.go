package grpcserver

import (
	"context"
	"math"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// GetPlacement implements shallot.task.v1.
func (s *Service) GetPlacement(ctx context.Context, r *taskv1.GetPlacementRequest) (*taskv1.GetPlacementResponse, error) {
	if s.cfg.Consumer == nil {
		return nil, onlyAt("consumer")
	}
	if _, err := s.get(ctx, r.GetTaskId()); err != nil {
		return nil, err
	}
	list, err := s.cfg.Consumer.Placement(ctx, r.GetTaskId())
	if err != nil {
		return nil, err
	}
	m := &taskv1.GetPlacementResponse{}
	for i := range list {
		m.Attempts = append(m.Attempts, toPlacement(&list[i]))
	}
	return m, nil
}

// thousandths is the unit in which a cost is kept.
const thousandths = 1000

func toPlacement(p *app.PlacementView) *taskv1.PlacementAttempt {
	m := &taskv1.PlacementAttempt{Attempt: p.Attempt, PeerId: p.Chosen, At: timestamp(p.At), Ended: p.Ended}
	if p.Peer != p.Chosen {
		m.Provider = p.Peer
	}
	if c := p.Choice; c != nil {
		m.ChosenBecause, m.Known, m.Qualified = c.Because, c.Known, c.Qualified
		for _, x := range c.Considered {
			m.Considered = append(m.Considered, &taskv1.Considered{PeerId: x.Peer, Score: float64(x.Cost) / thousandths, Verdict: x.Verdict, Reason: x.Reason})
		}
	}
	return m
}

func fromChoice(c *taskv1.Choice) *domain.Choice {
	if c == nil {
		return nil
	}
	out := &domain.Choice{Because: c.GetBecause(), Known: c.GetKnown(), Qualified: c.GetQualified()}
	for _, x := range c.GetConsidered()[:min(len(c.GetConsidered()), domain.MaxConsidered)] {
		cost := x.GetScore()
		if !(cost >= 0 && cost < math.MaxInt32) {
			cost = math.MaxInt32
		}
		out.Considered = append(out.Considered, domain.Considered{Peer: x.GetPeerId(), Cost: int64(cost * thousandths), Verdict: x.GetVerdict(), Reason: x.GetReason()})
	}
	return out
}
