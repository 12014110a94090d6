package app

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/logging"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// Dialer connects to peers.
type Dialer interface {
	// Connect dials a peer, unless there is a connection, and returns its id.
	Connect(ctx context.Context, peer string, addresses []string) (string, error)
}

const (
	maxCandidates = 64
	maxAsked      = 4             // of one submission's candidates at once; of a longer list the others are told of as they are known
	twoChoices    = "two-choices" // the evaluator that hands nothing on while a slot is free
)

// Candidates are random other providers that could run a task, as many as the task service wants. Those of whom nothing was heard lately are
// asked first how busy they are, unless the task will stay here anyway; in place of one that does not answer another is drawn, once. That takes
// 600 ms at most, and no time where metrics are fresh.
func (p *Provider) Candidates(ctx context.Context, need *domain.Need) []*taskv1.Candidate {
	p.mu.Lock()
	want := int(min(p.self.GetCandidatesWanted(), maxCandidates))
	if want == 0 || len(p.rows) == 0 {
		p.mu.Unlock()
		return nil
	}
	ask := p.self.GetEvaluator() != twoChoices || p.queue.GetPending() > 0 || p.queue.GetRunning() >= p.queue.GetSlots()
	if need.Excluded == nil {
		need.Excluded = map[string]string{}
	}
	need.Excluded[p.ownID] = "this node"
	if ask {
		p.excludeSilent(need)
	}
	view := make([]*domain.Provider, 0, len(p.rows))
	for _, r := range p.rows {
		view = append(view, r)
	}
	var drawn []domain.Provider // copies: the rows change meanwhile
	for _, r := range domain.Sample(view, need, want+maxAsked, nil) {
		drawn = append(drawn, *r)
	}
	p.mu.Unlock()
	list := drawn[:min(want, len(drawn))]
	if ask {
		list = p.freshen(ctx, list, drawn[len(list):])
	}
	out := make([]*taskv1.Candidate, 0, len(list))
	for i := range list {
		if c := candidateOf(&list[i]); c != nil {
			out = append(out, c)
		}
	}
	return out
}

func candidateOf(r *domain.Provider) *taskv1.Candidate {
	signed, ok := r.Signed.(*eventv1.Event)
	if !ok {
		return nil // without it the consumer could not be told where its task went
	}
	c := &taskv1.Candidate{PeerId: r.PeerID, SealingKey: r.SealingKey, Addresses: r.Addresses, Announcement: signed}
	if r.Load != nil {
		if m, ok := r.Load.Metric.(*eventv1.Metric); ok {
			c.Metric, c.MetricAge = m, durationpb.New(time.Since(r.Load.At))
		}
	}
	return c
}

// excludeSilent leaves out those that have not answered lately. p.mu is held.
func (p *Provider) excludeSilent(need *domain.Need) {
	now := time.Now()
	for id, until := range p.silent {
		if until.After(now) {
			need.Excluded[id] = "did not say how busy it is"
		} else {
			delete(p.silent, id)
		}
	}
}

// freshen asks those of the list of whom nothing was heard lately, and puts spare ones in the place of those that do not answer, once.
func (p *Provider) freshen(ctx context.Context, list, spare []domain.Provider) []domain.Provider {
	for round := 1; round <= freshRounds; round++ {
		var asked []*domain.Provider
		for i := range list {
			r := &list[i]
			if len(asked) < maxAsked && (r.Load == nil || time.Since(r.Load.At) > freshEnough) {
				asked = append(asked, r)
			}
		}
		if len(asked) == 0 {
			break
		}
		silent := p.askAll(ctx, asked)
		kept := make([]domain.Provider, 0, len(list))
		for _, r := range list {
			switch {
			case !silent[r.PeerID]:
				kept = append(kept, r)
			case round < freshRounds && len(spare) > 0:
				kept, spare = append(kept, spare[0]), spare[1:]
			}
		}
		if list = kept; len(silent) == 0 {
			break
		}
	}
	return list
}

// askAll asks providers for their metrics, side by side, and returns who did not answer.
func (p *Provider) askAll(ctx context.Context, asked []*domain.Provider) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	answers := make([]*metricv1.KnownMetric, len(asked))
	unknown := make([]bool, len(asked))
	var asks sync.WaitGroup
	for i, r := range asked {
		asks.Go(func() {
			if !r.Connected {
				if _, err := p.dialer.Connect(ctx, r.PeerID, r.Addresses); err != nil {
					p.log.Debug("a candidate could not be connected to", logging.Peer(r.PeerID), logging.Err(err))
					return
				}
			}
			m, err := p.metrics.Refresh(ctx, r.PeerID, freshWithin)
			if err != nil && ctx.Err() == nil { // this node's own metric service does not answer: that says nothing of the peer
				p.log.Debug("the metric service could not ask a candidate", logging.Err(err))
				unknown[i] = true
				return
			}
			answers[i] = m
		})
	}
	asks.Wait()
	silent := map[string]bool{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range asked {
		switch m := answers[i]; {
		case m != nil:
			l := loadOf(m.GetMetric(), m.GetAge().AsDuration(), m.GetMetric().GetInterval().AsDuration(), time.Now())
			r.Load = &l
			if row := p.rows[r.PeerID]; row != nil {
				row.Load = &l
			}
		case !unknown[i]:
			silent[r.PeerID] = true
			if len(p.silent) < maxSnapshot {
				p.silent[r.PeerID] = time.Now().Add(silentFor)
			}
		}
	}
	return silent
}
