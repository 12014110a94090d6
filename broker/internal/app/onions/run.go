package onions

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shallot-net/shallot/kit/logging"
)

const (
	retryFirst  = 200 * time.Millisecond // until the second try to connect, growing
	retryMost   = 5 * time.Second        // so that a node is back within seconds after its tor is
	steadyAfter = 10 * time.Second       // of a session that ends later the next tries begin anew: one that always ends at once is no reason to hurry
	lookEvery   = 10 * time.Second       // a tor that hangs, and a service that somebody else ended, is seen by then
	grace       = time.Minute            // for those who ask again after a restart of this process
)

// Run connects to tor, again and again, and does what was asked for until ctx ends. It returns nil then.
func (k *Keeper) Run(ctx context.Context) error {
	records, err := k.cfg.Records.Load()
	if err != nil {
		k.cfg.Log.Warn("what was kept before is not known: services that are asked for are made anew, others that are still at tor stay there until it restarts", logging.Err(err))
	}
	k.mu.Lock()
	for id, r := range records {
		k.records[id] = r
	}
	k.graceEnd = time.Now().Add(grace)
	k.mu.Unlock()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.RandomizationFactor = retryFirst, retryMost, 0.3
	for ctx.Err() == nil {
		opened := time.Now()
		session, err := k.cfg.Tor.Open(ctx)
		if err == nil {
			err = k.serve(ctx, session)
			session.Close()
			if time.Since(opened) >= steadyAfter {
				pause.Reset()
			}
		}
		if ctx.Err() != nil {
			break
		}
		k.down(trouble(err))
		t := time.NewTimer(pause.NextBackOff())
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// down says that there is no session.
func (k *Keeper) down(t *Trouble) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.session {
		k.cfg.Observer.Lost()
	}
	news := k.session || !k.tried
	k.tried, k.session, k.atTor = true, false, nil
	for _, s := range k.services {
		s.deadline = time.Time{}
	}
	for _, c := range k.clients {
		c.done = false
	}
	state := TorUnreachable
	if t.Refused {
		state = TorRefused
	}
	k.setTor(TorState{State: state, Detail: t.Detail})
	if news {
		k.notify() // also where the state was the same
	}
}
