package consumer

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Batching of TaskCollected: nobody waits for it.
const (
	releaseDelay   = 200 * time.Millisecond
	releaseSpread  = 2 * time.Second // over which those of different personas are spread: what is said at one moment is seen to be of one consumer
	releaseBatch   = 64
	releaseTimeout = 30 * time.Second
	releaseRetry   = 30 * time.Second
	releaseTries   = 40 // with growing pauses: about a day
)

// releaser tells providers, in batches, that results have been collected.
type releaser struct {
	s     *Service
	mu    sync.Mutex
	byTo  map[releaseTo]*releaseQueue
	fails map[releaseTo]int   // in a row
	gone  map[domain.Ref]bool // attempts whose replicas are told, because their provider could not be
	timer *time.Timer
	at    time.Time // when the timer goes off
}

type releaseTo struct{ persona, peer string }

type releaseQueue struct {
	refs  []app.ReleaseRow
	after time.Time // not before this
}

func newReleaser(s *Service) *releaser {
	return &releaser{s: s, byTo: make(map[releaseTo]*releaseQueue), fails: make(map[releaseTo]int), gone: make(map[domain.Ref]bool)}
}

// addRelease puts it into the edit's transaction, and into a batch afterwards.
func (s *Service) addRelease(e *edit, a *domain.Attempt) {
	r := app.ReleaseRow{TaskID: e.t.ID, Attempt: a.Number, Persona: a.Persona, Peer: a.Peer, Addresses: a.Addresses}
	e.w.Releases = append(e.w.Releases, r)
	e.after = append(e.after, func() { s.let.add(0, r) })
}

// add queues results to let go, not before the delay has passed.
func (r *releaser) add(delay time.Duration, refs ...app.ReleaseRow) {
	var full []app.Outgoing
	r.mu.Lock()
	for _, ref := range refs {
		to := releaseTo{ref.Persona, ref.Peer}
		q := r.byTo[to]
		if q == nil {
			q = &releaseQueue{}
			if to.persona != "" {
				q.after = time.Now().Add(releaseDelay + rand.N(releaseSpread))
			}
			r.byTo[to] = q
		}
		q.refs = append(q.refs, ref)
		if delay > 0 {
			q.after = time.Now().Add(delay)
		}
		if len(q.refs) >= releaseBatch && !q.after.After(time.Now()) {
			full = append(full, r.take(to, q))
		}
	}
	if len(r.byTo) > 0 {
		r.wake(max(delay, releaseDelay))
	}
	r.mu.Unlock()
	if len(full) > 0 {
		r.s.cfg.Pusher.Push(context.Background(), app.Reply{Outbox: full})
	}
}

// wake has what waits looked at in a while, or before: what one provider is given does not wait for another that cannot be reached. r.mu is held.
func (r *releaser) wake(in time.Duration) {
	at := time.Now().Add(in)
	if r.timer != nil {
		if !at.Before(r.at) {
			return
		}
		r.timer.Stop() // one that is at work already finds less to do
	}
	r.at, r.timer = at, time.AfterFunc(in, r.flush)
}

// take empties a queue into an event. r.mu is held.
func (r *releaser) take(to releaseTo, q *releaseQueue) app.Outgoing {
	n := min(len(q.refs), 1024)
	refs := q.refs[:n:n]
	if q.refs = q.refs[n:]; len(q.refs) == 0 {
		delete(r.byTo, to)
	}
	return r.s.outbox.OnceRefs(app.Address{Persona: to.persona, Peer: to.peer, Addresses: refs[0].Addresses}, refs, releaseTimeout)
}

func (r *releaser) flush() {
	var out []app.Outgoing
	next := time.Hour
	r.mu.Lock()
	now := time.Now()
	for to, q := range r.byTo {
		if d := q.after.Sub(now); d > 0 {
			next = min(next, d)
			continue
		}
		for len(q.refs) > 0 {
			out = append(out, r.take(to, q))
		}
	}
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if len(r.byTo) > 0 {
		r.wake(next)
	}
	r.mu.Unlock()
	if len(out) > 0 {
		r.s.cfg.Pusher.Push(context.Background(), app.Reply{Outbox: out})
	}
}

// failed queues again what did not arrive, or gives it up: the provider lets it go by itself when its time is over.
func (r *releaser) failed(refs []app.ReleaseRow) {
	if len(refs) == 0 {
		return
	}
	to := releaseTo{refs[0].Persona, refs[0].Peer}
	r.mu.Lock()
	r.fails[to]++
	tries := r.fails[to]
	if tries > releaseTries {
		delete(r.fails, to)
	}
	r.mu.Unlock()
	r.providerGone(refs)
	if tries > releaseTries {
		r.mu.Lock()
		r.forgetGone(refs)
		r.mu.Unlock()
		r.s.cfg.Store.Later(&app.Writes{Released: refs})
		return
	}
	r.add(min(releaseRetry<<min(tries-1, 6), time.Hour), refs...)
}

// arrived forgets what the provider has let go.
func (r *releaser) arrived(refs []app.ReleaseRow) {
	if len(refs) == 0 {
		return
	}
	r.mu.Lock()
	delete(r.fails, releaseTo{refs[0].Persona, refs[0].Peer})
	r.forgetGone(refs)
	r.mu.Unlock()
	r.s.cfg.Store.Later(&app.Writes{Released: refs})
}

func (r *releaser) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}
