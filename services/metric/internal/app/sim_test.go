package app_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/metric/internal/adapter/memory"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// sim is a network in virtual time in which everybody hears everybody. A hop takes a millisecond.
type sim struct {
	t     *testing.T
	mu    sync.Mutex
	nodes map[string]*node
}

const hop = time.Millisecond

var errUnreachable = errors.New("unreachable")

// node is one provider: its host and its broker's side, and its service while it runs.
type node struct {
	sim      *sim
	id       string
	versions *memory.Versions
	svc      *app.Service
	stop     func()
	load     float64
	said     []saying
	deaf     bool // takes queries, answers none
	nobody   bool // its broker is not there
	queries  int
}

type saying struct {
	at time.Time
	m  domain.Metric
}

func newSim(t *testing.T) *sim { return &sim{t: t, nodes: map[string]*node{}} }

func (s *sim) add() *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &node{sim: s, id: fmt.Sprintf("node%03d", len(s.nodes)), versions: &memory.Versions{}}
	s.nodes[n.id] = n
	return n
}

func (n *node) start() *node {
	svc, err := app.New(context.Background(), app.Config{Host: n, Events: n, Versions: n.versions})
	if err != nil {
		panic(err) // only a shared store fails
	}
	n.sim.mu.Lock()
	n.svc = svc
	n.sim.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := svc.Run(ctx); err != nil {
			n.sim.t.Errorf("Run: %v", err)
		}
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		n.sim.mu.Lock()
		n.svc = nil
		n.sim.mu.Unlock()
	})
	n.sim.t.Cleanup(n.stop)
	return n
}

func network(t *testing.T, size int) (*sim, []*node) {
	s := newSim(t)
	var nodes []*node
	for range size {
		nodes = append(nodes, s.add().start())
	}
	return s, nodes
}

func (n *node) setLoad(load float64) {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	n.load = load
}

func (n *node) Measure(context.Context) domain.Metric {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	return domain.Metric{CPU: domain.CPU{Model: n.id, Cores: 1, Threads: 2, Load: n.load}, Memory: domain.Space{Total: 100, Free: 50, Used: 50}}
}

func (n *node) Whoami(ctx context.Context) (string, error) {
	if n.nobody {
		return "", errUnreachable
	}
	return n.id, nil
}

func travel(ctx context.Context) error {
	select {
	case <-time.After(hop):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) Publish(ctx context.Context, m domain.Metric) error {
	if err := m.Check(); err != nil {
		n.sim.t.Errorf("%s publishes what is not valid: %v", n.id, err)
	}
	n.sim.mu.Lock()
	n.said = append(n.said, saying{time.Now(), m})
	var all []*app.Service
	for _, o := range n.sim.nodes {
		if o.svc != nil {
			all = append(all, o.svc)
		}
	}
	n.sim.mu.Unlock()
	if err := travel(ctx); err != nil {
		return err
	}
	for _, svc := range all {
		svc.HandleMetric("relay", "", m)
	}
	return nil
}

func (n *node) hand(ctx context.Context, id string, f func(*app.Service)) error {
	if err := travel(ctx); err != nil {
		return err
	}
	n.sim.mu.Lock()
	to := n.sim.nodes[id]
	if to == nil || to.svc == nil {
		n.sim.mu.Unlock()
		return errUnreachable
	}
	to.queries++
	svc, deaf := to.svc, to.deaf
	n.sim.mu.Unlock()
	if !deaf {
		f(svc)
	}
	return travel(ctx)
}

func (n *node) SendQuery(ctx context.Context, id, question string) error {
	return n.hand(ctx, id, func(s *app.Service) { s.HandleQuery(n.id, question) })
}

func (n *node) SendMetric(ctx context.Context, id, inReplyTo string, m domain.Metric) error {
	return n.hand(ctx, id, func(s *app.Service) { s.HandleMetric(n.id, inReplyTo, m) })
}

// pass lets virtual time pass, and everything that it sets off happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (n *node) sayings(from time.Time) []saying {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	var out []saying
	for _, s := range n.said {
		if !s.at.Before(from) {
			out = append(out, s)
		}
	}
	return out
}
