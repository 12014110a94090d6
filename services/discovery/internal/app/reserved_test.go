package app_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func reservedNetwork(t *testing.T, n int) (*sim, []*node) {
	s := newSim(t)
	s.reserved = true
	return s, s.network(n)
}

// Who asks only whom it knows gets to know everybody all the same, also without gossip.
func TestReservedNodesFindEachOther(t *testing.T) {
	for _, size := range []int{2, 3, 10, 30} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, nodes := reservedNetwork(t, size)
				s.silence(size <= 10)
				pass(2 * time.Second)
				for _, n := range nodes {
					if !n.knows(nodes...) {
						t.Errorf("%s knows %d of %d others", n.id, n.svc.Figures().Available, size-1)
					}
				}
			})
		})
	}
}

// A consumer's persona has no answer and announces nothing. Over Tor each question to one is some seconds of a circuit for nothing.
func TestReservedNodesAskNoConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := reservedNetwork(t, 3)
		pass(time.Minute)
		consumer := s.add() // it has no discovery service
		for _, n := range nodes {
			if _, err := consumer.Connect(t.Context(), n.id, nil); err != nil {
				t.Fatal(err)
			}
		}
		pass(10 * time.Minute)
		for _, n := range nodes {
			s.mu.Lock()
			asked := n.askedOf[consumer.id]
			s.mu.Unlock()
			if asked > 0 {
				t.Errorf("%s asked it %d times", n.id, asked)
			}
			if !n.knows(nodes...) {
				t.Errorf("%s has lost sight of the others", n.id)
			}
		}
	})
}

// A provider that cannot say yet what it does is heard as soon as it can, and then asked.
func TestReservedNodesAskWhoAnnouncesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		s.reserved = true
		a := s.add().start()
		b, far := s.add(), s.add().start()
		s.part(func(x, y string) bool { return x == a.id && y == far.id || x == far.id && y == a.id }) // only b can tell of it
		b.selfless = true
		b.start(a, far)
		pass(time.Minute)
		s.mu.Lock()
		asked := a.askedOf[b.id]
		s.mu.Unlock()
		if asked > 0 || a.state(b) != "unknown" || !b.knows(a, far) {
			t.Errorf("asked %d times, %s", asked, a.state(b))
		}
		s.silence(true)
		if err := b.svc.UpdateSelf(t.Context(), testSelf()); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if !a.knows(b) || a.state(far) == "unknown" {
			t.Error("it was heard, and not asked")
		}
	})
}

// After an absence all connections are new, and those who are known are asked what has happened.
func TestReservedNodesAskAgainAfterAnAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := reservedNetwork(t, 3)
		pass(time.Minute)
		lost := nodes[1]
		s.part(func(x, y string) bool { return x == lost.id || y == lost.id })
		pass(5 * time.Minute)
		s.part(nil)
		s.mu.Lock()
		before := lost.asked
		s.mu.Unlock()
		pass(2 * time.Minute)
		s.mu.Lock()
		after := lost.asked
		s.mu.Unlock()
		if after == before || !lost.knows(nodes...) || !nodes[0].knows(lost) {
			t.Errorf("asked %d times when it was back", after-before)
		}
	})
}
