package app_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/app"
)

func TestLostGossipIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 12)
		s.silence(true)
		pass(10 * time.Minute)
		for _, n := range nodes {
			// Its neighbours are asked, and tell of others.
			if got := n.svc.Figures(); got.Neighbours < app.DefaultNeighbours || got.Available < 9 {
				t.Errorf("%s has %d of 11 others and %d neighbours after ten minutes without any gossip", n.id, got.Available, got.Neighbours)
			}
		}
	})
}

// Nodes that start together are connected before they know what they can do, and gossip has no mesh yet when they do.
func TestWhoHasNothingToSayYetIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		s.silence(true)
		a, b := s.add(), s.add()
		a.selfless, b.selfless = true, true
		a.start()
		b.start(a)
		pass(time.Second)
		for _, n := range []*node{a, b} {
			if err := n.svc.UpdateSelf(t.Context(), testSelf()); err != nil {
				t.Fatal(err)
			}
		}
		pass(3 * time.Second)
		if !a.knows(b) || !b.knows(a) {
			t.Errorf("after three seconds one knows the other: %v, the other the one: %v", a.knows(b), b.knows(a))
		}
	})
}

// A settled node asks a neighbour about once a minute for what gossip may have lost: it must not have to wait until that is said again.
func TestASettledNodeAsksForWhatGossipLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 60)
		pass(5 * time.Minute)
		s.mu.Lock()
		before := map[string]int{}
		for _, n := range nodes {
			before[n.id] = n.asked
		}
		s.mu.Unlock()
		pass(20 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, n := range nodes {
			// Beside those once a minute it asks one with each announcement, about every two minutes.
			if asked := n.asked - before[n.id]; asked < 15 || asked > 45 {
				t.Errorf("%s has asked %d times in 20 minutes", n.id, asked)
			}
		}
	})
}
