package provider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Price says what strangers pay for a submission. Where identities are free, limits of one peer mean nothing: what all strangers together may do is bounded, by price.
type Price struct {
	Work  app.PuzzleWork // nil: nobody pays
	Rules domain.TollRules
	Free  []string // peers that pay nothing
	// FreeAllowed: nobody on Policy.Allow does.
	FreeAllowed bool
	// Epoch is how long a nonce lasts; as long again it is still taken. 5 minutes: what a persona was told two minutes ago has to hold.
	Epoch time.Duration
	// Told is how many submissions in a second are refused with an event that tells the price, of which five times as many may come at once; 100. Others that pay too
	// little are rejected, which costs no event.
	Told int
}

// maxSpent are solutions that are remembered of one nonce. When there are more, the next nonce comes early: each has been paid for.
const maxSpent = 1 << 16

// toll is the price of a submission, and who has paid it.
type toll struct {
	price    Price
	checks   chan struct{} // slots for evaluations: half the processors, so that a flood of false solutions leaves room for the rest
	refusals *rate.Limiter

	mu     sync.Mutex
	moves  *domain.Toll
	nonces [2]domain.Nonce // this one, and the one before
	spent  [2]map[spentKey]spender
	turns  time.Time // when the next nonce comes
}

// spentKey is an attempt of a task, and spender whose it was: a consumer's own repeats pay once, and nobody else can use what it has solved.
type (
	spentKey [16]byte
	spender  [16]byte
)

func newToll(p Price, now time.Time) *toll {
	if p.Work == nil {
		return nil
	}
	if p.Epoch <= 0 {
		p.Epoch = 5 * time.Minute
	}
	if p.Told <= 0 {
		p.Told = 100
	}
	t := &toll{price: p, checks: make(chan struct{}, max(runtime.NumCPU()/2, 1)), refusals: rate.NewLimiter(rate.Limit(p.Told), 5*p.Told), moves: domain.NewToll(p.Rules, now)}
	t.turn(now)
	return t
}

// turn makes the next nonce. t.mu is held.
func (t *toll) turn(now time.Time) {
	t.nonces[1], t.spent[1] = t.nonces[0], t.spent[0]
	_, _ = rand.Read(t.nonces[0][:]) // never fails
	t.spent[0] = make(map[spentKey]spender)
	t.turns = now.Add(t.price.Epoch)
}

// tick moves the price and the nonce, and tells whether either has changed.
func (t *toll) tick(now time.Time, q domain.Queue) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := t.moves.Tick(now, q)
	if !now.Before(t.turns) || len(t.spent[0]) >= maxSpent {
		t.turn(now)
		changed = true
	}
	return changed
}

func (t *toll) puzzle() *domain.Puzzle {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &domain.Puzzle{Nonce: t.nonces[0], Effort: t.moves.Effort()}
}

// What became of the price of a submission.
const (
	tollNothing = "nothing_asked"
	tollFree    = "free"
	tollPaid    = "paid"
	tollUnpaid  = "unpaid"
	tollLittle  = "too_little"
	tollStale   = "stale" // for a nonce that is over, or of somebody else
	tollBad     = "bad"   // it says that it is a solution and is none, or somebody else's
)

// look finds out whether a submission pays. Only a payment that says that it is enough, for a nonce that is this provider's, costs an evaluation.
func (t *toll) look(ctx context.Context, o *offer) (what string, err error) {
	pay, _ := domain.ParsePayment(o.sub.Paid) // the decoder has refused what is none
	key, who := spentOf(o)
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	want := t.moves.Enough(now)
	old := pay.Nonce == t.nonces[1] && t.spent[1] != nil
	switch {
	case want == 0:
		t.moves.Took()
		return tollNothing, nil
	case pay.Effort == 0 || len(o.path) > 0: // who hands a task on has solved nothing for this provider
		what = tollUnpaid
	case pay.Nonce != t.nonces[0] && !old:
		what = tollStale
	case pay.Effort < want:
		what = tollLittle
	}
	if what != "" {
		t.moves.Turned()
		return what, nil
	}
	spent := t.spent[0]
	if old {
		spent = t.spent[1]
	}
	if by, used := spent[key]; used {
		if by != who {
			return tollBad, nil
		}
		return tollPaid, nil
	}
	t.mu.Unlock()
	good, err := t.check(ctx, o, pay)
	t.mu.Lock()
	if err != nil || !good {
		return tollBad, err
	}
	if by, used := spent[key]; used && by != who { // of two at the same time
		return tollBad, nil
	}
	spent[key] = who
	t.moves.Took()
	return tollPaid, nil
}

func (t *toll) check(ctx context.Context, o *offer, pay domain.Payment) (bool, error) {
	select {
	case t.checks <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-t.checks }()
	return domain.Pays(t.price.Work(domain.PuzzleText(o.d.OwnPeer, o.sub.TaskID, o.sub.Attempt), pay.Nonce, pay.Found), pay.Effort), nil
}

func spentOf(o *offer) (k spentKey, w spender) {
	task := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(o.sub.TaskID), o.sub.Attempt))
	consumer := sha256.Sum256([]byte(o.consumer))
	return spentKey(task[:16]), spender(consumer[:16])
}

// paid stops a submission whose sender does not pay what strangers have to. It is the first thing that is done with one that is new here.
func (s *Service) paid(ctx context.Context, o *offer) (app.Reply, bool) {
	t := s.toll
	if t == nil {
		return app.Reply{}, false
	}
	if from := o.d.From; slices.Contains(t.price.Free, from) || t.price.FreeAllowed && slices.Contains(s.cfg.Policy.Allow, from) {
		s.cfg.Metrics.Puzzle(tollFree)
		return app.Reply{}, false
	}
	if o.d.OwnPeer == "" { // node does not know yet who it is, and so not what was solved
		return verdict(app.Again, ""), true
	}
	what, err := t.look(ctx, o)
	if err != nil {
		return verdict(app.Again, ""), true
	}
	s.cfg.Metrics.Puzzle(what)
	switch {
	case what == tollNothing, what == tollPaid:
		o.sub.Paid = nil
		return app.Reply{}, false
	case what == tollBad:
		return verdict(app.Misconduct, "PUZZLE_INVALID"), true
	case !t.refusals.Allow():
		return verdict(app.Rejected, reasonPuzzle), true
	}
	return s.refuse(o, &refusal{Reason: reasonPuzzle, Message: "this provider asks strangers to solve a puzzle", puzzle: t.puzzle()}), true
}

// reasonPuzzle is why a submission is refused that pays too little.
const reasonPuzzle = app.ReasonPuzzleRequired

// Puzzle is what a stranger's submission costs now; nil where nobody is ever asked for anything.
func (s *Service) Puzzle() *domain.Puzzle {
	if s.toll == nil {
		return nil
	}
	return s.toll.puzzle()
}

// Effort is that of Puzzle, for people who look at figures.
func (s *Service) Effort() uint32 {
	if p := s.Puzzle(); p != nil {
		return p.Effort
	}
	return 0
}

// tolling moves the price until ctx ends.
func (s *Service) tolling(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if s.toll.tick(now, s.Queue()) {
				s.described.Add(1)
				s.watch.Tell(queueKey)
			}
		case <-ctx.Done():
			return
		}
	}
}
