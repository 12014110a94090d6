package consumer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/bounded"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	// payPace is what an evaluation takes an anonymous consumer, also where its machine could do more: a submission leaves when so much time has passed for each one
	// that it took. How many that is is chance, the same at everybody, and so the time from a price to its payment does not tell machines apart.
	payPace = 500 * time.Microsecond
	// payFor is how long one payment is worked on at most.
	payFor = time.Minute
	// paySeen is after how long the user is told.
	paySeen = 2 * time.Second
	// priceHolds is how long what a provider asked for with a refusal is newer than what node was told. It has to be less than a nonce lasts.
	priceHolds = 2 * time.Minute
	// maxPrices bounds the providers of which a price is remembered, by persona.
	maxPrices = 1024
	// priceRefusals is how often a provider may refuse one task for its price. One whose price has risen meanwhile does so once or twice.
	priceRefusals = 3
	// unpriced is how long a provider is left out that has rejected a submission for its price without saying it: node asks for it before the next placement.
	unpriced = 2 * time.Second
	// dearFor is how long a provider is left out that asks for more than is paid.
	dearFor = 30 * time.Second
)

// payer pays what providers ask of strangers.
type payer struct {
	slots chan struct{}
	tasks app.Locks[string] // a task is paid for once at a time

	mu     sync.Mutex
	prices *bounded.Map[releaseTo, price]
}

// price is what a provider has asked for when it refused a task of a persona.
type price struct {
	puzzle domain.Puzzle
	at     time.Time
}

func newPayer() *payer {
	return &payer{slots: make(chan struct{}, max(runtime.NumCPU()/2, 1)), prices: bounded.New[releaseTo, price](maxPrices)}
}

func (p *payer) asked(persona, peer string, puzzle domain.Puzzle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prices.Put(releaseTo{persona, peer}, price{puzzle, time.Now()})
}

// lately is what a provider has asked of a persona for when it refused, nil when that is not known or long ago.
func (p *payer) lately(persona, peer string) *domain.Puzzle {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.prices.Get(releaseTo{persona, peer})
	if !ok || time.Since(x.at) > priceHolds {
		return nil
	}
	return &x.puzzle
}

// due is what a candidate asks for, as far as is known; nil for nothing.
func (p *payer) due(c *app.Candidate) *domain.Puzzle {
	puzzle := p.lately(c.Persona, c.Peer)
	if puzzle == nil {
		puzzle = c.Puzzle
	}
	if puzzle == nil || puzzle.Effort == 0 {
		return nil
	}
	return puzzle
}

// payment is what there is to be said of the price of an attempt.
type payment struct {
	attempt uint32 // that it is for; 0: for any
	dear    uint32 // the effort, where that is more than is paid
}

// pay solves what a candidate asks for a task's next attempt, and puts that into c. It blocks for as long as that takes, a minute at most, and not under the task's
// lock; it ends early when the task wants no provider any more. The caller must call done once when the task is placed.
func (s *Service) pay(ctx context.Context, taskID string, c *app.Candidate) (p payment, done func(), err error) {
	puzzle := s.payer.due(c)
	if puzzle == nil {
		return p, func() {}, nil
	}
	if puzzle.Effort > s.cfg.MaxEffort {
		return payment{dear: puzzle.Effort}, func() {}, nil
	}
	done, err = s.payer.tasks.Lock(ctx, taskID)
	if err != nil {
		return p, func() {}, fault.From(err)
	}
	ctx, cancel := context.WithTimeout(ctx, payFor)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	attempt, pending := s.nextAttempt(taskID)
	if !pending {
		return p, done, nil
	}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		s.whilePending(ctx, taskID, cancel)
	}()
	found, err := s.solve(ctx, taskID, domain.PuzzleText(c.Peer, taskID, attempt), puzzle)
	cancel()
	<-watching
	s.showPaying(taskID, nil)
	if err != nil {
		s.cfg.Metrics.Puzzle("given_up")
		if _, pending := s.nextAttempt(taskID); !pending { // that is why
			return p, done, nil
		}
		return p, done, fault.Unavailable("PUZZLE_UNSOLVED", "the puzzle of a provider was not solved in time: another placement is looked for")
	}
	s.cfg.Metrics.Puzzle("solved")
	c.Paid = found.Bytes()
	return payment{attempt: attempt}, done, nil
}

func (s *Service) nextAttempt(taskID string) (n uint32, pending bool) {
	s.peek(taskID, func(l *live) {
		n, pending = uint32(len(l.task.Attempts))+1, l.task.State == domain.Pending
	})
	return n, pending
}

// whilePending calls stop when the task wants no provider any more, and returns then or when ctx ends.
func (s *Service) whilePending(ctx context.Context, taskID string, stop func()) {
	news, end := s.watch.Watch(taskID)
	defer end()
	for {
		if _, pending := s.nextAttempt(taskID); !pending {
			stop()
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}

// solve tries one after the other from a random one on.
func (s *Service) solve(ctx context.Context, taskID string, text []byte, p *domain.Puzzle) (domain.Payment, error) {
	pay := domain.Payment{Effort: p.Effort, Nonce: p.Nonce}
	_, _ = rand.Read(pay.Found[:]) // never fails
	began, shown := time.Now(), time.Time{}
	select {
	case s.payer.slots <- struct{}{}:
	case <-ctx.Done():
		return pay, ctx.Err()
	}
	first, tries := binary.BigEndian.Uint64(pay.Found[8:]), uint64(0)
	err := ctx.Err()
	for ; err == nil; err = ctx.Err() {
		binary.BigEndian.PutUint64(pay.Found[8:], first+tries)
		tries++
		if domain.Pays(s.cfg.Puzzle(text, p.Nonce, pay.Found), p.Effort) {
			break
		}
		if now := time.Now(); now.Sub(began) > paySeen && now.Sub(shown) > paySeen/2 {
			shown = now
			s.showPaying(taskID, &domain.Progress{Fraction: 1 - math.Exp(-float64(tries)/float64(p.Effort)), At: now, // how likely it was to be solved by now
				Text: fmt.Sprintf("pays the provider's price: a puzzle of effort %d", p.Effort)})
		}
	}
	<-s.payer.slots
	if err != nil || !s.cfg.Anonymous {
		return pay, err
	}
	pause := time.NewTimer(time.Until(began.Add(time.Duration(tries) * payPace)))
	defer pause.Stop()
	select {
	case <-pause.C:
		return pay, nil
	case <-ctx.Done():
		return pay, ctx.Err()
	}
}

// showPaying tells whoever looks at a task that it is being paid for; nil: no longer.
func (s *Service) showPaying(taskID string, p *domain.Progress) {
	s.peek(taskID, func(l *live) { l.paying = p })
}

// unpaid is the payment of a task that costs nothing: in anonymous mode as long as any other, and random.
func (s *Service) unpaid() []byte {
	if !s.cfg.Anonymous {
		return nil
	}
	var p domain.Payment
	_, _ = rand.Read(p.Nonce[:]) // never fails
	_, _ = rand.Read(p.Found[:])
	return p.Bytes()
}

// tooDear looks for another provider, since this one asks for more than is paid.
func (s *Service) tooDear(e *edit, peer string, effort uint32) error {
	s.cfg.Metrics.Puzzle("too_dear")
	end := domain.End{What: "TOO_DEAR", Reason: "PUZZLE_TOO_HARD", RetryAfter: dearFor,
		Message: fmt.Sprintf("it asks strangers for a puzzle of effort %d, and this node pays %d at most (consumer.max_effort)", effort, s.cfg.MaxEffort)}
	if err := e.t.Avoid(e.now, peer, end); err != nil {
		return err
	}
	e.reply.Placement = s.needed(e.t, e.now)
	return e.unplaced()
}

// priced is a refusal for the price, as the end of an attempt: the provider may be chosen again at once, unless it asks for more than is paid or has refused
// this task for its price too often.
func (s *Service) priced(t *domain.Task, from string, b *domain.RefusedEvent, end domain.End) domain.End {
	a := t.Attempt(b.Attempt)
	if b.Reason != app.ReasonPuzzleRequired || b.Puzzle == nil || a == nil || a.Peer != from {
		return end
	}
	end.Message = fmt.Sprintf("it asks strangers for a puzzle of effort %d", b.Puzzle.Effort)
	end.RetryAfter = dearFor
	if b.Puzzle.Effort > s.cfg.MaxEffort {
		end.Message += fmt.Sprintf(", and this node pays %d at most (consumer.max_effort)", s.cfg.MaxEffort)
		return end
	}
	refused := 0
	for i := range t.Attempts {
		if o := &t.Attempts[i]; o.Peer == from && o.Ended == "REFUSED" {
			refused++
		}
	}
	if refused < priceRefusals {
		end.Again = true
		s.payer.asked(a.Persona, from, *b.Puzzle)
	}
	return end
}

// efforts are what providers have asked for lately when they refused a task.
func (s *Service) efforts(t *domain.Task) map[string]uint32 {
	var out map[string]uint32
	for i := range t.Attempts {
		a := &t.Attempts[i]
		if a.Ended != "REFUSED" {
			continue
		}
		if p := s.payer.lately(a.Persona, a.Peer); p != nil {
			if out == nil {
				out = make(map[string]uint32, 1)
			}
			out[a.Peer] = p.Effort
		}
	}
	return out
}
