package app

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/broker/internal/domain/conduct"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// questionsPerSecond is how many questions a peer may ask. Nodes ask each other for news every second or so, and for every task of theirs once after
// an absence, which is what the burst is for.
const (
	questionsPerSecond = 200
	questionsBurst     = 1000
)

// tempo is how fast one peer's directed events are taken in. What is faster waits: the stream is not read meanwhile, so the peer's own
// broker has to wait, and nobody else does.
type tempo struct {
	events    *rate.Limiter
	bytes     *rate.Limiter
	questions *rate.Limiter
}

func newTempo(l *Limits) *tempo {
	return &tempo{
		events:    rate.NewLimiter(rate.Limit(l.InPerSecond), 2*l.InPerSecond),
		bytes:     rate.NewLimiter(rate.Limit(l.InBytesPerSecond), max(2*l.InBytesPerSecond, 2*event.MaxSize)),
		questions: rate.NewLimiter(questionsPerSecond, questionsBurst),
	}
}

// delay takes the tokens for one event and says how long it has to wait for them.
func (t *tempo) delay(e *event.Event, size int, now time.Time) (wait time.Duration, hurried bool) {
	wait = max(t.events.ReserveN(now, 1).DelayFrom(now), t.bytes.ReserveN(now, size).DelayFrom(now))
	if e.Type.Question() {
		if d := t.questions.ReserveN(now, 1).DelayFrom(now); d > 0 {
			return max(wait, d), true
		}
	}
	return wait, false
}

// hold waits until an event may be taken in. A peer that asks faster than anybody has to is slowed, and charged when it goes on.
func (in *inStream) hold(e *event.Event, size int) error {
	r := in.remote
	wait, hurried := r.tempo.delay(e, size, time.Now())
	if hurried {
		r.persona.broker.charge(r.persona, r.peer, conduct.Hurried)
	}
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-in.stopped:
		return errClosed
	}
}
