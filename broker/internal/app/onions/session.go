package onions

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
)

const (
	outage        = 30 * time.Second // after a longer one a descriptor that was taken before leads to circuits that are gone
	stale         = 3 * time.Hour    // a directory keeps a descriptor for as long, and tor gives it a new one within two hours
	patienceFirst = 30 * time.Second
	patienceMost  = 5 * time.Minute
)

// serve keeps the services at one session's tor until it ends; the error says how.
func (k *Keeper) serve(ctx context.Context, s Session) error {
	if err := k.look(ctx, s); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for looked := time.Now(); ; {
		select {
		case e := <-s.Events(): // before anything is done: it may be what makes that superfluous
			k.apply(e)
			continue
		default:
		}
		job, due := k.next(time.Now())
		if job != nil {
			if err := job(ctx, s); err != nil {
				return err
			}
			continue
		}
		k.save()
		if next := looked.Add(lookEvery); due.IsZero() || next.Before(due) {
			due = next
		}
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return nil
		case <-s.Done():
			return s.Err()
		case e := <-s.Events():
			k.apply(e)
		case <-k.wake:
		case <-timer.C:
			if time.Since(looked) >= lookEvery {
				if err := k.look(ctx, s); err != nil {
					return err
				}
				looked = time.Now()
			}
		}
	}
}

// look asks tor how things are, once in a while: an event may be lost, and others may end services.
func (k *Keeper) look(ctx context.Context, s Session) error {
	seen, err := s.Look(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.atTor
	k.atTor = make(map[string]string, len(seen.Detached))
	for _, id := range seen.Detached {
		digest := before[id]
		if !k.session {
			digest = k.records[id].Digest
		}
		k.atTor[id] = digest
	}
	first := !k.session
	k.session, k.tried = true, true
	for _, svc := range k.services {
		if first {
			k.adopt(svc)
		} else if _, there := k.atTor[svc.ID]; !there && before[svc.ID] == svc.digest {
			svc.lost()
			k.notify()
		}
	}
	seen.Network.Reason = k.network.Reason // only events tell it
	k.network = seen.Network
	k.version, k.warning = s.Version(), s.Warning()
	k.judge()
	for _, svc := range k.services {
		if !svc.publishedAt.IsZero() && k.tor.State == TorOnline && time.Since(svc.takenAt) > stale {
			k.unpublish(svc)
			k.await(svc)
		}
	}
	if first {
		k.notify()
	}
	return nil
}

// adopt takes a service over that tor has already, of a former session or process. With the lock.
func (k *Keeper) adopt(svc *service) {
	if at, there := k.atTor[svc.ID]; !there || at != svc.digest {
		svc.lost()
		return
	}
	svc.publishedAt, svc.takenAt, svc.uploading = k.records[svc.ID].PublishedAt, time.Now(), true
	k.await(svc)
	k.cfg.Observer.Added("adopted")
}

// unpublish says that nobody has a descriptor that leads anywhere, though tor has the service. With the lock.
func (k *Keeper) unpublish(svc *service) {
	svc.publishedAt, svc.uploads = time.Time{}, 0
	k.records[svc.ID] = Record{Digest: svc.digest}
	k.dirty = true
	k.notify()
}

// lost says that tor does not have the service any more.
func (s *service) lost() {
	s.uploads, s.publishedAt, s.uploading, s.deadline = 0, time.Time{}, false, time.Time{}
}

// await begins the wait for somebody to take the descriptor, where tor is online. With the lock.
func (k *Keeper) await(svc *service) {
	svc.deadline = time.Time{}
	if !svc.publishedAt.IsZero() || k.tor.State != TorOnline {
		return
	}
	svc.patience = max(svc.patience, patienceFirst)
	svc.deadline = time.Now().Add(jitter(svc.patience))
}

// jitter is a fifth more or less, so that what failed together is not tried together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// judge makes tor's state of what is known of its network. With the lock.
func (k *Keeper) judge() {
	was := k.tor.State
	t := TorState{State: TorStarting, Progress: k.network.Progress, Detail: k.network.Detail(), Version: k.version}
	if k.network.Online() {
		k.network.Reason = ""
		t.State, t.Detail = TorOnline, k.warning
	}
	k.setTor(t)
	if t.State != TorOnline {
		if k.offline.IsZero() {
			k.offline = time.Now()
		}
		for _, svc := range k.services {
			svc.deadline = time.Time{}
		}
		return
	}
	if was != TorOnline {
		k.back()
	}
}

// back is when tor is online again, or is seen to be for the first time. With the lock.
func (k *Keeper) back() {
	// Only what tor itself said counts: that it did not answer, as on a machine that is too busy, says nothing of its circuits.
	long := !k.offline.IsZero() && time.Since(k.offline) > outage
	k.offline = time.Time{}
	for _, svc := range k.services {
		if k.stateOf(svc) == ServiceAdding {
			continue
		}
		if long && !svc.publishedAt.IsZero() {
			k.unpublish(svc)
		}
		k.await(svc)
	}
	k.notify()
}

// apply is what an event changes.
func (k *Keeper) apply(e Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch e.Kind {
	case EventUpload, EventUploaded:
		k.upload(e)
		return
	case EventBootstrap:
		k.network.Progress, k.network.Tag, k.network.Reason = e.Progress, e.Tag, e.Reason
	case EventLive:
		k.network.Live = e.Up
	case EventCircuits:
		k.network.Circuits, k.network.Reason = e.Up, e.Reason
	case EventDirectory:
		k.network.Directory = e.Up
	}
	k.judge()
}

func (k *Keeper) upload(e Event) {
	svc := k.services[e.ServiceID]
	if svc == nil || k.stateOf(svc) == ServiceAdding {
		return // of a service of somebody else, or of one that has ended
	}
	if e.Kind == EventUpload {
		svc.uploading = true
		return
	}
	if !svc.uploading {
		return
	}
	svc.uploads++
	svc.takenAt = time.Now()
	k.cfg.Observer.Uploaded()
	if svc.publishedAt.IsZero() {
		svc.publishedAt, svc.deadline, svc.patience = time.Now(), time.Time{}, 0
		k.records[svc.ID] = Record{Digest: svc.digest, PublishedAt: svc.publishedAt}
		k.dirty = true
	}
	k.notify()
}

// save writes the records down where they have changed. A disk that is full must not end a service: then it is made anew after the next restart.
func (k *Keeper) save() {
	k.mu.Lock()
	if !k.dirty {
		k.mu.Unlock()
		return
	}
	k.dirty = false
	records := make(map[string]Record, len(k.records))
	for id, r := range k.records {
		records[id] = r
	}
	k.mu.Unlock()
	if err := k.cfg.Records.Save(records); err != nil {
		k.cfg.Log.Warn("which onion services are kept cannot be written down: after a restart of this process they are made anew", logging.Err(err))
	}
}
