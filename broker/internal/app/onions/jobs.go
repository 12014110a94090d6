package onions

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
)

const (
	addEvery = 200 * time.Millisecond // a burst loses descriptors: each service makes ten circuits and a dozen uploads at once
	// addBefore is how many services may be at a tor that is not online yet: all that it has then begin at the same moment.
	addBefore  = 5
	pauseFirst = 5 * time.Second // after a rejection, growing
	pauseMost  = time.Minute
)

type job func(ctx context.Context, s Session) error

// next is what is to be done now, or when the next thing is; zero when nothing is known to be.
func (k *Keeper) next(now time.Time) (job, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, c := range k.clients {
		if !c.done {
			return k.authorize(id, c), time.Time{}
		}
	}
	if j := k.nextDelete(now); j != nil {
		return j, time.Time{}
	}
	due := k.graceEnd
	if !now.Before(due) {
		due = time.Time{}
	}
	sooner := func(t time.Time) {
		if due.IsZero() || t.Before(due) {
			due = t
		}
	}
	atTor := 0
	for _, svc := range k.services {
		if k.stateOf(svc) != ServiceAdding {
			atTor++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(k.services)) {
		svc := k.services[id]
		if k.stateOf(svc) != ServiceAdding {
			if !svc.deadline.IsZero() {
				sooner(svc.deadline)
			}
			continue
		}
		if k.tor.State != TorOnline && atTor >= addBefore {
			continue // its change wakes the loop
		}
		at := svc.notBefore
		if at.Before(k.nextAdd) {
			at = k.nextAdd
		}
		if !at.After(now) {
			return k.add(svc), time.Time{}
		}
		sooner(at)
	}
	return nil, due
}

// nextDelete finds what is at tor and must not be: withdrawn, asked for otherwise, not published in time, or of a former process and not asked for again.
// With the lock.
func (k *Keeper) nextDelete(now time.Time) job {
	if !now.Before(k.graceEnd) {
		for id := range k.records {
			if k.services[id] == nil {
				k.leaving[id] = struct{}{}
			}
		}
	}
	for id := range k.leaving {
		if _, there := k.atTor[id]; there {
			return k.delete(id)
		}
		delete(k.leaving, id)
		delete(k.records, id)
		k.dirty = true
		k.notify()
	}
	for id, svc := range k.services {
		digest, there := k.atTor[id]
		if !there || svc.notBefore.After(now) {
			continue
		}
		if digest != svc.digest {
			return k.delete(id)
		}
		if !svc.deadline.IsZero() && !svc.deadline.After(now) {
			svc.patience = min(svc.patience*3/2, patienceMost)
			svc.again = true
			k.cfg.Log.Warn("nobody has taken the descriptor of an onion service in time: it is made anew", "next_after", svc.patience.String())
			return k.delete(id)
		}
	}
	return nil
}

func (k *Keeper) delete(id string) job {
	return func(ctx context.Context, s Session) error {
		// ErrUnknown is of one that somebody else has ended, or that is another program's: then adding it collides, and that is told.
		if err := s.Delete(ctx, id); err != nil && !errors.Is(err, ErrUnknown) {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.atTor, id)
		if svc := k.services[id]; svc != nil {
			svc.lost()
		}
		k.notify()
		return nil
	}
}

func (k *Keeper) add(svc *service) job {
	// Before tor has it, so that one that was made just before this process was killed is known to be ours. After what was there before has ended, or the
	// record would be of another request than what is there.
	k.records[svc.ID] = Record{Digest: svc.digest}
	k.dirty = true
	return func(ctx context.Context, s Session) error {
		k.save()
		err := s.Add(ctx, svc.Service)
		k.mu.Lock()
		defer k.mu.Unlock()
		now := time.Now()
		k.nextAdd = now.Add(addEvery)
		var rejected *Rejected
		switch {
		case err == nil:
			k.added(svc)
		case errors.Is(err, ErrCollision):
			if k.atTor[svc.ID] = ""; svc.pause == 0 {
				svc.pause = addEvery // tor may have one of ours that it did not name: end it and try again
			} else {
				svc.reject(fault.FailedPrecondition(ReasonTaken, "another program has an onion service of this key at this tor, so it cannot be kept: end that one; it is tried again"))
			}
			svc.notBefore = now.Add(svc.pause)
		case errors.As(err, &rejected):
			svc.reject(fault.New(codes.FailedPrecondition, ReasonRejected, "tor does not take this onion service (code %d of its control port): its own log says why; it is tried again", rejected.Code))
			svc.notBefore = now.Add(svc.pause)
		default:
			return err
		}
		k.notify()
		return nil
	}
}

// added says that tor has it. With the lock.
func (k *Keeper) added(svc *service) {
	k.atTor[svc.ID] = svc.digest
	why := "new"
	if svc.again {
		why = "again"
	}
	k.cfg.Observer.Added(why)
	svc.again, svc.rejected, svc.pause, svc.notBefore = true, nil, 0, time.Time{}
	if k.services[svc.ID] == svc {
		svc.lost()
		k.await(svc)
	}
}

func (s *service) reject(err error) {
	s.rejected = err
	s.pause = min(max(2*s.pause, pauseFirst), pauseMost)
}

func (k *Keeper) authorize(id string, c *client) job {
	return func(ctx context.Context, s Session) error {
		err := s.Authorize(ctx, id, c.key)
		var rejected *Rejected
		if err != nil && !errors.As(err, &rejected) {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if c.done = true; err != nil {
			c.done, c.rejected = false, fault.InvalidArgument("CLIENT_KEY_INVALID", "tor does not take the client key (code %d of its control port): its own log says why", rejected.Code)
			if k.clients[id] == c {
				delete(k.clients, id)
			}
		}
		k.notify()
		return nil
	}
}
