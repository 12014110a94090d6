package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/sqlite"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
)

// lock keeps a second process off what only one may have: replicas that share a store keep nothing in the home.
func lock(cfg *settings, node home.Home) (unlock func(), err error) {
	if cfg.Store == "" {
		return node.Lock(process)
	}
	_, unlock, err = node.LockReplica(process)
	return unlock, err
}

type store interface {
	app.Store
	Close() error
}

// openStore gives what replicas share as well; nil where there can be no others.
func openStore(ctx context.Context, cfg *settings, node home.Home, log *slog.Logger) (store, app.Shared, error) {
	if cfg.Store == "" {
		s, err := sqlite.Open(ctx, filepath.Join(node.State(process), "discovery.db"), log)
		return s, nil, err
	}
	s, err := postgres.Open(ctx, cfg.Store, cfg.PasswordFile, log)
	return s, s, err
}

// readiness is whether this replica is of use: the one that leads while it hears the network, the others while they know the broker and the store.
type readiness struct {
	set   func(bool)
	leads func() bool

	mu        sync.Mutex
	ok, hears bool
}

func (r *readiness) reached(ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ok = ok
	r.tell()
}

func (r *readiness) listens(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hears = up
	r.tell()
}

func (r *readiness) tell() { r.set(r.ok && (r.hears || !r.leads())) }
