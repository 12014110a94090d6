package app_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// table is a routing table that all nodes of a simulation share.
type table struct {
	mu    sync.Mutex
	fail  bool
	names map[string][]string // name to node ids, one entry for each time it was said
	asked int
}

// at is the table as one node has it.
type at struct {
	*table
	n *node
}

func (a at) Advertise(_ context.Context, name string) (time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail {
		return 0, errors.New("nobody to tell")
	}
	a.names[name] = append(a.names[name], a.n.id)
	return time.Hour, nil
}

func (a at) Find(_ context.Context, name string, _ int, found func(string, []string)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if a.fail {
		return errors.New("nobody to ask")
	}
	for _, id := range append(slices.Clone(a.names[name]), "stranger") {
		found(id, []string{"/sim/" + id})
	}
	return nil
}

func (t *table) said(name, id string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.names[name] {
		if x == id {
			n++
		}
	}
	return n
}

func (t *table) set(fail bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fail = fail
}

// Providers that were told of nobody find each other in the routing table, and do not look any more once there are enough.
func TestStrangersFindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newSim(t), &table{names: map[string][]string{}}
		s.silence(true)
		third := s.add() // it is connected to all, and has no discovery that could tell of others
		var nodes []*node
		for range 5 {
			n := s.add()
			n.routing = at{shared, n}
			nodes = append(nodes, n.start(third))
		}
		pass(3 * time.Minute)
		for _, n := range nodes {
			if !n.knows(nodes...) {
				t.Errorf("%s knows %d of 4 others", n.id, n.svc.Figures().Available)
			}
			for _, name := range []string{domain.NameProvider, domain.NameOfType("sum")} {
				if shared.said(name, n.id) != 1 {
					t.Errorf("%s has said %s %d times", n.id, name, shared.said(name, n.id))
				}
			}
		}
		shared.mu.Lock()
		before := shared.asked
		shared.mu.Unlock()
		pass(3 * time.Hour)
		shared.mu.Lock()
		asked := shared.asked - before
		shared.mu.Unlock()
		if asked > 0 {
			t.Errorf("the settled network was asked for strangers %d times", asked)
		}
		for _, n := range nodes {
			if got := shared.said(domain.NameProvider, n.id); got < 4 || got > 10 {
				t.Errorf("%s has said its name %d times in three hours", n.id, got)
			}
		}
	})
}

// What cannot be said is tried again, ever more seldom; what is new is said at once, and what is gone no more.
func TestAdvertising(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shared := newSim(t), &table{names: map[string][]string{}, fail: true}
		n := s.add()
		n.routing = at{shared, n}
		n.start(s.add())
		pass(10 * time.Minute)
		if got := n.count(app.CountAdvertiseFailed); got < 8 || got > 60 {
			t.Errorf("two names were tried %d times in ten minutes", got)
		}
		shared.set(false)
		pass(8 * time.Minute)
		if shared.said("type/sum", n.id) != 1 {
			t.Error("it was not said when it could be")
		}
		self := testSelf()
		self.Capabilities = []domain.Capability{{Type: "wasm"}}
		if err := n.svc.UpdateSelf(t.Context(), self); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if shared.said("type/wasm", n.id) != 1 {
			t.Error("a new type was not said at once")
		}
		pass(5 * time.Hour)
		if got := shared.said("type/sum", n.id); got != 1 {
			t.Errorf("a type that is gone was said %d times", got)
		}
		if got := shared.said("type/wasm", n.id); got < 5 {
			t.Errorf("a type was said %d times in five hours", got)
		}
	})
}
