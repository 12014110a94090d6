package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/filestore"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/host"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/metric/internal/app"
)

// lock keeps a second process off what only one may have: replicas that share a store keep nothing in the home.
func lock(cfg *settings, node home.Home) (unlock func(), err error) {
	if cfg.Store == "" {
		return node.Lock(process)
	}
	_, unlock, err = node.LockReplica(process)
	return unlock, err
}

// store is where the service keeps what it has to remember.
type store struct {
	versions app.Versions
	shared   app.Shared // nil where there can be no other replicas
	host     string
	close    func()
}

func openStore(ctx context.Context, cfg *settings, node home.Home, log *slog.Logger) (store, error) {
	if cfg.Store == "" {
		v, err := filestore.Open(filepath.Join(node.State(process), "version"))
		return store{versions: v, close: func() {}}, err
	}
	id, err := host.ID()
	if err != nil {
		return store{}, err
	}
	s, err := postgres.Open(ctx, cfg.Store, cfg.PasswordFile, log)
	if err != nil {
		return store{}, err
	}
	return store{s, s, id, func() {
		if err := s.Close(); err != nil {
			log.Error("the store could not be closed", logging.Err(err))
		}
	}}, nil
}

// readiness is whether this replica knows what it is asked for: it hears the network, and the store that it shares answers.
type readiness struct {
	set func(bool)

	mu            sync.Mutex
	hears, stored bool
}

func (r *readiness) broker(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hears = up
	r.set(r.hears && r.stored)
}

func (r *readiness) store(ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stored = ok
	r.set(r.hears && r.stored)
}
