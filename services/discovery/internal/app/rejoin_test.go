package app_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestARestartedNodeRejoinsWithItsBootstrapNodeGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 5)
		pass(time.Minute)
		nodes[4].kill()
		nodes[0].kill()
		s.part(func(a, b string) bool { return a == nodes[0].id || b == nodes[0].id })
		pass(3 * time.Hour)
		nodes[4].start(nodes[0])
		pass(5 * time.Second)
		if !nodes[4].knows(nodes[1:4]...) || !nodes[1].knows(nodes[4]) {
			t.Error("it did not find those that it knew before")
		}
	})
}

func TestANetworkCutInTwoFindsItselfAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 8)
		pass(time.Minute)
		half := func(id string) bool { return slices.IndexFunc(nodes, func(n *node) bool { return n.id == id }) < 4 }
		s.part(func(a, b string) bool { return half(a) != half(b) })
		pass(30 * time.Minute)
		if nodes[0].knows(nodes[7]) {
			t.Error("the halves are not apart")
		}
		s.part(nil)
		pass(6 * time.Minute) // the longest wait between two dials, and jitter
		for _, n := range nodes {
			if !n.knows(nodes...) {
				t.Errorf("%s knows %d of 7 others after the cut", n.id, n.svc.Figures().Available)
			}
		}
	})
}

// Each half is a whole network of its own: enough neighbours, nobody missed, and the other half long forgotten. The bootstrap
// node is gone for good.
func TestALargeNetworkFindsItselfAgainAfterEveryTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 25)
		pass(3 * time.Minute)
		nodes[0].kill()
		nodes = nodes[1:]
		half := func(id string) bool { return slices.IndexFunc(nodes, func(n *node) bool { return n.id == id }) < 12 }
		dead := func(id string) bool { return id == "node000" }
		s.part(func(a, b string) bool { return dead(a) || dead(b) || half(a) != half(b) })
		pass(3 * time.Hour)
		if got := nodes[0].state(nodes[23]); got != "unknown" {
			t.Fatalf("after three hours apart a peer of the other half is %s", got)
		}
		nodes[23].kill() // one restarts meanwhile: what it had forgotten is on disk
		s.part(func(a, b string) bool { return dead(a) || dead(b) || half(a) != half(b) })
		nodes[23].start()
		pass(time.Minute)
		s.part(func(a, b string) bool { return dead(a) || dead(b) })
		pass(10 * time.Minute)
		for _, n := range nodes {
			if !n.knows(nodes...) {
				t.Errorf("%s knows %d of 23 others after the cut", n.id, n.svc.Figures().Available)
			}
		}
	})
}

// Two that began as islands, each with enough neighbours of its own, become one by the bootstrap addresses that they have.
func TestIslandsJoinThroughABootstrapAddressThatComesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		apart := true
		var left, right []*node
		isLeft := map[string]bool{}
		for i := range 12 {
			n := s.add()
			if i < 6 {
				left, isLeft[n.id] = append(left, n), true
			} else {
				right = append(right, n)
			}
		}
		s.part(func(a, b string) bool { return apart && isLeft[a] != isLeft[b] })
		for _, n := range left {
			n.start(left[0])
		}
		for _, n := range right {
			n.start(right[0], left[0])
		}
		pass(time.Hour)
		if !right[5].knows(right...) || right[5].knows(left[0]) {
			t.Fatal("the islands are not two")
		}
		s.mu.Lock()
		apart = false
		s.mu.Unlock()
		pass(10 * time.Minute)
		for _, n := range append(left, right...) {
			if !n.knows(append(left, right...)...) {
				t.Errorf("%s knows %d of 11 others", n.id, n.svc.Figures().Available)
			}
		}
	})
}
