package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// Sidecar is the broker as it tells who this node is and whom it is connected to.
type Sidecar interface {
	Self(ctx context.Context) (*brokerv1.SelfResponse, error)
	// Watch tells opened when the stream stands, then every connected peer, then changes; it returns when the stream broke.
	Watch(ctx context.Context, opened func(), changed func(peer string, connected bool)) error
}

// IdentitySinks are told of changes; none may block, and nil ones are left out.
type IdentitySinks struct {
	Self      func(*brokerv1.SelfResponse)
	Online    func(bool)
	Lost      func() // the broker is gone, and every connection with it
	Connected func(peer string, on bool)
}

// Identity follows who this node is on the network, whom it is connected to, and whether it can reach anybody.
type Identity struct {
	sidecar Sidecar
	sinks   IdentitySinks
	log     *slog.Logger

	mu   sync.Mutex
	last *brokerv1.SelfResponse
	look chan struct{}
}

// NewIdentity makes one; Run it.
func NewIdentity(s Sidecar, sinks IdentitySinks, log *slog.Logger) *Identity {
	return &Identity{sidecar: s, sinks: sinks, log: log, look: make(chan struct{}, 1)}
}

const (
	lookEvery   = 5 * time.Second
	lookTimeout = time.Second
	lookSettle  = 50 * time.Millisecond // changes of connections come in bunches
)

// Run follows the broker until ctx ends.
func (i *Identity) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { again(ctx, i.log, "the broker's watch", i.watch) })
	defer wg.Wait()
	for {
		kicked, ok := waitKick(ctx, lookEvery, i.look)
		if !ok {
			return nil
		}
		if _, err := i.Now(ctx); err != nil && ctx.Err() == nil {
			i.log.Debug("the broker did not say who it is", logging.Err(err))
		}
		if kicked {
			sleep(ctx, lookSettle)
		}
	}
}

func (i *Identity) watch(ctx context.Context) error {
	err := i.sidecar.Watch(ctx, func() { kick(i.look) }, func(peer string, on bool) {
		if i.sinks.Connected != nil {
			i.sinks.Connected(peer, on)
		}
		kick(i.look)
	})
	if i.sinks.Lost != nil {
		i.sinks.Lost()
	}
	i.set(nil)
	return err
}

// Now asks the broker; where it does not answer, the last answer comes with the error.
func (i *Identity) Now(ctx context.Context) (*brokerv1.SelfResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s, err := i.sidecar.Self(ctx)
	if err != nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.last, err
	}
	i.set(s)
	return s, nil
}

// set notes an answer; nil says that the broker is gone: the node is offline, but still who it was.
func (i *Identity) set(s *brokerv1.SelfResponse) {
	i.mu.Lock()
	if s != nil {
		i.last = s
	}
	i.mu.Unlock()
	if s != nil && i.sinks.Self != nil {
		i.sinks.Self(s)
	}
	if i.sinks.Online != nil {
		i.sinks.Online(s.GetOnline())
	}
}
