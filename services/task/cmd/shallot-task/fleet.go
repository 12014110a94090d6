package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/services/task/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// replicaName is this replica's among those that share a store. It stays the same over restarts, so that a replica that was killed finds what it had without waiting for its own lease.
func replicaName(dir string) (string, error) {
	path := filepath.Join(dir, "replica")
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 32 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fault.FailedPrecondition("HOME_UNUSABLE", "cannot read %s: check its permissions", path).Because(err)
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	name := hex.EncodeToString(id[:])
	if err := renameio.WriteFile(path, []byte(name), 0o600); err != nil {
		return "", fault.FailedPrecondition("HOME_UNUSABLE", "cannot write %s: check its permissions and the room on its file system", path).Because(err)
	}
	return name, nil
}

// fleet is nil where no other replica can have the store.
func (p *parts) fleet() (provider.Fleet, error) {
	store, ok := p.store.(*postgres.Store)
	if !ok {
		return nil, nil
	}
	name, err := replicaName(p.dir)
	if err != nil {
		return nil, err
	}
	return &watchedFleet{Fleet: store.Fleet(name), lease: consumerLease, answered: time.Now(), tell: p.ready.store}, nil
}

// watchedFleet tells whether the store answers: its beat is what asks it all the time.
type watchedFleet struct {
	provider.Fleet
	lease    time.Duration
	answered time.Time
	tell     func(ok bool)
}

// Beat is the fleet's. It is called by one goroutine at a time.
func (w *watchedFleet) Beat(ctx context.Context, slots int, keep func() []domain.EntryKey, lease time.Duration) (provider.Pulse, error) {
	p, err := w.Fleet.Beat(ctx, slots, keep, lease)
	if err == nil {
		w.answered = time.Now()
	}
	w.tell(time.Since(w.answered) <= w.lease)
	return p, err
}

// readiness is whether this process can take and run tasks: its broker is there, and a store that it shares answers.
type readiness struct {
	set func(bool)

	mu              sync.Mutex
	reached, stored bool
}

func (r *readiness) broker(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reached = up
	r.set(r.reached && r.stored)
}

func (r *readiness) store(ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stored == ok {
		return
	}
	r.stored = ok
	r.set(r.reached && r.stored)
}

const consumerLease = 6 * time.Second

// nothing is what a consumer claims.
func nothing() []domain.EntryKey { return nil }

// alone waits until no other process has the consumer's tasks: their keys and clocks are in one process's memory, their files in one home. It is kept so until p is closed, when nothing of
// this process commits any more. The function that it gives ends with an error when another process has them.
func (p *parts) alone(ctx context.Context) (func(context.Context) error, error) {
	f, err := p.fleet()
	if err != nil || f == nil {
		return func(ctx context.Context) error { <-ctx.Done(); return nil }, err
	}
	said := false
	for {
		pulse, err := f.Beat(ctx, 0, nothing, consumerLease)
		if err == nil && pulse.Leads {
			break
		}
		if !said {
			p.log.Warn("another process has this consumer's tasks, or the store is away; this one waits", logging.Err(err))
			said = true
		}
		t := time.NewTimer(consumerLease / 8)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		}
	}
	lost := make(chan error, 1)
	beats, stop := context.WithCancel(context.WithoutCancel(ctx)) // what is under way when the process is told to end still commits
	var beating sync.WaitGroup
	beating.Go(func() {
		over := false
		_ = every(beats, consumerLease/4, func() {
			if pulse, err := f.Beat(beats, 0, nothing, consumerLease); err == nil && !pulse.Leads {
				over = true
				lost <- fault.Unavailable("NOT_LEADING", "another process has this consumer's tasks now, because this one did not answer for longer than its lease")
			}
		}, func() bool { return over })
	})
	p.closers = append(p.closers, func() {
		stop()
		beating.Wait()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := f.Leave(ctx); err != nil {
			p.log.Info("another process takes over when the lease of this one is over", logging.Err(err))
		}
	})
	return func(ctx context.Context) error {
		select {
		case err := <-lost:
			return err
		case <-ctx.Done():
			return nil
		}
	}, nil
}
