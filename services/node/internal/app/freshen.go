package app

import (
	"context"
	"errors"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

const (
	// How old what is known of a candidate's load may be. A connected one is asked regularly, so that the first task after a while need not wait
	// for an answer that would hardly differ.
	freshEnough = 10 * time.Second
	freshIdle   = 30 * time.Second
	freshWithin = 300 * time.Millisecond // for two questions side by side, a dial included
	freshRounds = 2                      // then it is chosen among those that have answered
	silentFor   = 10 * time.Second       // for which who did not answer is not asked again
	maxFreshAsk = 64                     // candidates that are being asked; past it a choice is made by what is known
)

// Place chooses a provider from the view. The candidates of whom it does not know lately how busy they are it asks first, side by side; who does
// not answer is passed over for another. That takes 600 ms at most, and no time at all where metrics are fresh.
func (c *Consumer) Place(ctx context.Context, need *domain.Need) (*taskv1.Candidate, *domain.Why) {
	c.mu.Lock()
	defer c.mu.Unlock()
	began := time.Now()
	fresh := freshEnough
	if began.Sub(c.placedAt) > placingSpan {
		fresh = freshIdle
	}
	c.placedAt = began
	asked := domain.Asked{Silent: c.silentNow(began)}
	for round := 1; ; round++ {
		d := domain.Place(c.dir.View(), need, asked, nil)
		if d.Chosen == nil {
			if len(need.Only) == 0 {
				c.miss(need.Type)
			}
			return nil, d.Why()
		}
		unknown := c.unknown(d, fresh)
		if len(unknown) == 0 || asked.Done || ctx.Err() != nil {
			p := d.Chosen
			out := &taskv1.Candidate{PeerId: p.PeerID, SealingKey: p.SealingKey, Addresses: p.Addresses}
			if nonce := c.dir.Nonce(p.PeerID); nonce != nil && !c.cfg.Aloof { // a persona is told its own
				out.Puzzle = &eventv1.Puzzle{Nonce: nonce, Effort: p.Effort}
			}
			return out, d.Why()
		}
		asked.Keep = nil
		for _, p := range []*domain.Provider{d.Chosen, d.Other} {
			if p != nil {
				asked.Keep = append(asked.Keep, p.PeerID)
			}
		}
		c.freshen(ctx, unknown)
		asked.Silent = c.silentNow(time.Now())
		keep := asked.Keep[:0]
		for _, id := range asked.Keep {
			if !asked.Silent[id] {
				keep = append(keep, id)
			}
		}
		asked.Keep, asked.Done = keep, round == freshRounds
	}
}

// unknown are those of the two drawn that have to be asked. Where there is no choice, nobody is.
func (c *Consumer) unknown(d domain.Decision, fresh time.Duration) []target {
	if d.Other == nil && d.Fit == 1 || c.cfg.Aloof {
		return nil
	}
	now := time.Now()
	var out []target
	for _, p := range []*domain.Provider{d.Chosen, d.Other} {
		if p == nil || c.silent[p.PeerID].After(now) || len(c.loadAsks) >= maxFreshAsk {
			continue
		}
		most := freshEnough
		if p.Connected {
			most = fresh
		}
		if p.Load == nil || now.Sub(p.Load.At) > most {
			out = append(out, target{peer: p.PeerID, addresses: p.Addresses})
		}
	}
	return out
}

// silentNow are those that have not answered lately.
func (c *Consumer) silentNow(now time.Time) map[string]bool {
	out := make(map[string]bool, len(c.silent))
	for id, until := range c.silent {
		if until.After(now) {
			out[id] = true
		} else {
			delete(c.silent, id)
		}
	}
	return out
}

// freshen asks providers for their metrics and waits for the answers, not for long. Who did not answer is noted as silent. c.mu is held, but not
// while it waits.
func (c *Consumer) freshen(ctx context.Context, peers []target) {
	answers := make([]*loadAsk, len(peers))
	for i, t := range peers {
		answers[i] = c.askLoad(t)
	}
	c.mu.Unlock()
	timer := time.NewTimer(freshWithin)
	defer timer.Stop()
	late := false
	for _, a := range answers {
		if late {
			break
		}
		select {
		case <-a.done:
		case <-timer.C:
			late = true
		case <-ctx.Done():
			late = true
		}
	}
	c.mu.Lock()
	for i, t := range peers {
		if !answers[i].answered && ctx.Err() == nil {
			c.silent[t.peer] = time.Now().Add(silentFor)
		}
	}
}

// loadAsk is a provider that is being asked for its metric because a task may go there.
type loadAsk struct {
	done     chan struct{} // closed when it has answered, or could not be asked
	answered bool
}

// askLoad asks a provider, or joins who is asking it already. c.mu is held.
func (c *Consumer) askLoad(t target) *loadAsk {
	if a := c.loadAsks[t.peer]; a != nil {
		return a
	}
	a := &loadAsk{done: make(chan struct{})}
	if c.ended {
		close(a.done)
		return a
	}
	c.loadAsks[t.peer] = a
	connected := c.conns[t.peer] != nil
	c.fresh.Go(func() { // it may outlast the placement: the answer is worth something to the next one
		ctx, cancel := context.WithTimeout(c.life, c.cfg.AskTimeout)
		defer cancel()
		defer c.loadAsked(t.peer, a, false)
		if !connected {
			if _, err := c.net.Connect(ctx, t.peer, t.addresses); err != nil {
				c.log.Debug("a candidate could not be connected to", logging.Peer(t.peer), logging.Err(err))
				if !errors.Is(err, context.Canceled) {
					c.Unreachable(t.peer)
				}
				return
			}
		}
		if c.ask(ctx, t.peer, eventv1.EventType_EVENT_TYPE_METRIC_QUERY, &eventv1.MetricQuery{}) != nil {
			return
		}
		select {
		case <-a.done:
		case <-ctx.Done():
		}
	})
	return a
}

func (c *Consumer) loadAsked(peer string, a *loadAsk, answered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loadAskedLocked(peer, a, answered)
}

func (c *Consumer) loadAskedLocked(peer string, a *loadAsk, answered bool) {
	if a != nil && c.loadAsks[peer] == a {
		a.answered = answered
		delete(c.loadAsks, peer)
		close(a.done)
	}
}
