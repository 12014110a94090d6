package app_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/memory"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

func TestEverybodyKnowsEverybodyWithinASecond(t *testing.T) {
	for _, size := range []int{2, 3, 5, 10, 30} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, nodes := network(t, size)
				s.silence(size <= 10) // a small network does not even need gossip
				pass(time.Second)
				for _, n := range nodes {
					if !n.knows(nodes...) {
						t.Errorf("%s knows %d of %d others", n.id, n.svc.Figures().Available, size-1)
					}
				}
			})
		})
	}
}

func TestOneBootstrapAddressOfManySuffices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		dead, alive := s.add(), s.add().start()
		dead.deaf = true
		s.part(func(a, b string) bool { return a == dead.id || b == dead.id })
		n := s.add().start(dead, alive)
		pass(100 * time.Millisecond)
		if !n.knows(alive) {
			t.Error("the dead address held up the living one")
		}
		pass(5 * time.Minute)
		if got := n.count(app.CountJoinFailed); got < 8 || got > 40 {
			t.Errorf("the dead address was dialled %d times in 5 minutes", got)
		}
		// It comes back, and is found without anybody's help.
		s.part(nil)
		dead.start()
		pass(time.Minute)
		if !n.knows(dead) || !alive.knows(dead) {
			t.Error("a bootstrap node that came back was not found")
		}
	})
}

func TestAnnouncementsAreAsSeldomAsTheNetworkIsLarge(t *testing.T) {
	for _, size := range []int{3, 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, nodes := network(t, size)
				pass(2 * time.Minute) // settled
				from := time.Now()
				pass(20 * time.Minute)
				mean := app.DefaultPace.Interval(size)
				for _, n := range nodes[:3] {
					said := n.sayings(from)
					want := int(20 * time.Minute / mean)
					if len(said) < want*7/10 || len(said) > want*13/10 {
						t.Errorf("%s announced itself %d times, want about %d", n.id, len(said), want)
					}
					for i, a := range said {
						if a.a.Interval != pace.Stated(mean) {
							t.Errorf("the interval stated is %v, want %v", a.a.Interval, pace.Stated(mean))
						}
						if i > 0 {
							if gap := a.at.Sub(said[i-1].at); gap < mean/2 || gap > pace.Stated(mean)+time.Second {
								t.Errorf("%v between two announcements, want %v to %v", gap, mean/2, pace.Stated(mean))
							}
							if a.a.Version <= said[i-1].a.Version {
								t.Errorf("version %d came after %d", a.a.Version, said[i-1].a.Version)
							}
						}
					}
				}
			})
		})
	}
}

func TestAChangeIsToldAtOnceAndARepetitionIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 3)
		pass(time.Minute)
		from := time.Now()
		self := testSelf()
		if err := nodes[0].svc.UpdateSelf(t.Context(), self); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if said := nodes[0].sayings(from); len(said) != 0 {
			t.Error("a repetition of the same was announced")
		}
		self.Capabilities = append(self.Capabilities, domain.Capability{Type: "wasm"})
		if err := nodes[0].svc.UpdateSelf(t.Context(), self); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Millisecond)
		if p, err := nodes[2].svc.Peer(nodes[0].id); err != nil || !p.Has("wasm") {
			t.Errorf("ten milliseconds later a peer has not heard: %v", err)
		}
	})
}

// TestPrices: whoever asks hears what a submission costs now. The announcement follows at its own time, unless the price has changed much, and then not without end.
func TestPrices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 3)
		pass(time.Minute)
		n := nodes[0]
		_, ask := stranger(t, s, n)
		effort := func() uint32 {
			p, err := nodes[2].svc.Peer(n.id)
			if err != nil {
				t.Fatal(err)
			}
			return p.Effort
		}
		price := func(effort uint32) {
			t.Helper()
			if err := n.svc.UpdatePuzzle(t.Context(), domain.Puzzle{Nonce: make([]byte, domain.NonceSize), Effort: effort}); err != nil {
				t.Fatal(err)
			}
			if got := ask(nil, 1).Puzzle.Effort; got != effort {
				t.Errorf("asked, it says %d, not %d", got, effort)
			}
			pass(10 * time.Millisecond)
		}
		if p := ask(nil, 1).Puzzle; len(p.Nonce) != 0 {
			t.Errorf("who has no price says %+v", p)
		}
		price(16)
		if got := effort(); got != 16 {
			t.Errorf("a price where there was none is announced as %d", got)
		}
		from := time.Now()
		price(32)
		price(64)
		if said := n.sayings(from); len(said) != 0 {
			t.Error("a price that has hardly changed was announced")
		}
		for _, e := range []uint32{512, 0, 512, 0, 512, 0, 512, 0} {
			price(e)
		}
		if said := n.sayings(from); len(said) > 4 {
			t.Errorf("%d announcements in a moment", len(said))
		}
		pass(2 * time.Minute)
		if got := effort(); got != 0 {
			t.Errorf("in the end it is known as %d", got)
		}
		for _, bad := range []domain.Puzzle{{Effort: 16}, {Nonce: make([]byte, 15)}, {Nonce: make([]byte, 16), Effort: 3}, {Nonce: make([]byte, 16), Effort: 1 << 25}} {
			if err := n.svc.UpdatePuzzle(t.Context(), bad); fault.From(err).Reason != "SELF_INVALID" {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	})
}

func TestNothingIsAnnouncedBeforeItIsKnownWhatThisNodeDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		a := s.add().start()
		b := s.add()
		b.selfless = true
		b.start(a)
		pass(time.Minute)
		if len(b.sayings(time.Time{})) != 0 || a.state(b) != "unknown" {
			t.Error("a node that cannot do anything yet was announced")
		}
		if !b.knows(a) {
			t.Error("meanwhile it learned nothing")
		}
		if err := b.svc.UpdateSelf(t.Context(), testSelf()); err != nil {
			t.Fatal(err)
		}
		pass(100 * time.Millisecond)
		if !a.knows(b) {
			t.Error("then it was not heard")
		}
	})
}

func TestUpdateSelfRefusesNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add().start()
		err := n.svc.UpdateSelf(t.Context(), app.Self{SealingKey: "AGE-SECRET-KEY-1"})
		if fault.From(err).Reason != "SELF_INVALID" {
			t.Errorf("UpdateSelf = %v", err)
		}
	})
}

func TestVersionsCountUpAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 2)
		pass(time.Minute)
		n := nodes[1]
		last := uint64(0)
		for range 5 {
			for _, said := range n.sayings(time.Time{}) {
				last = max(last, said.a.Version)
			}
			n.kill()
			s.part(nil)
			from := time.Now()
			n.start(nodes[0])
			pass(time.Minute)
			said := n.sayings(from)
			if len(said) == 0 || said[0].a.Version <= last {
				t.Fatalf("after a restart it began with version %v, before it was at %d", said, last)
			}
			if !nodes[0].knows(n) {
				t.Fatal("after a restart nobody listened to it")
			}
		}
	})
}

func TestAVersionIsNotUsedBeforeItsReservationIsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add()
		n.selfless = true
		n.start()
		pass(time.Second)
		n.store.FailAfter(1, errors.New("the disk is full")) // what it is told is written, the reservation is not
		if err := n.svc.UpdateSelf(t.Context(), testSelf()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if said := n.sayings(time.Time{}); len(said) != 0 {
			t.Errorf("announced version %d, which no disk remembers", said[0].a.Version)
		}
		pass(time.Second)
		if said := n.sayings(time.Time{}); len(said) == 0 {
			t.Error("not announced after the disk was back")
		}
	})
}

func TestALostStoreCountsOnFromWhatPeersRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 3)
		n := nodes[2]
		pass(10 * time.Minute)
		n.kill()
		n.store = &memory.Store{}
		s.part(nil)
		n.start(nodes[0])
		pass(5 * time.Second)
		for _, other := range nodes[:2] {
			p, err := other.svc.Peer(n.id)
			if err != nil || p.State != domain.Available || p.Version < n.sayings(time.Time{})[0].a.Version {
				t.Errorf("%s does not listen to it: %+v, %v", other.id, p.State, err)
			}
		}
		said := n.sayings(time.Time{})
		if v := said[len(said)-1].a.Version; v <= 1 {
			t.Errorf("it is at version %d", v)
		}
	})
}

func TestAPeerThatDiesIsUnavailableThenForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 4)
		pass(time.Minute)
		nodes[3].kill()
		// Its neighbours dial it twice, and do not wait for three intervals.
		pass(5 * time.Second)
		for _, n := range nodes[:3] {
			if got := n.state(nodes[3]); got != domain.Unavailable {
				t.Errorf("%s: five seconds later it is %s", n.id, got)
			}
		}
		pass(59 * time.Minute)
		if got := nodes[0].state(nodes[3]); got != domain.Unavailable {
			t.Errorf("before an hour it is %s", got)
		}
		pass(2 * time.Minute)
		if got := nodes[0].state(nodes[3]); got != "unknown" {
			t.Errorf("after an hour it is %s", got)
		}
	})
}

func TestASilentServiceIsUnavailableAfterThreeStatedIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 3)
		pass(time.Minute)
		// The broker stays connected, the service hangs: age alone tells.
		s.mu.Lock()
		nodes[2].deaf = true
		s.mu.Unlock()
		nodes[2].stopSilently()
		synctest.Wait()
		last, err := nodes[0].svc.Peer(nodes[2].id)
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Until(last.LastSeen.Add(3*last.Interval)) - time.Second)
		if got := nodes[0].state(nodes[2]); got != domain.Available {
			t.Errorf("within three intervals it is %s", got)
		}
		pass(5 * time.Second)
		if got := nodes[0].state(nodes[2]); got != domain.Unavailable {
			t.Errorf("after three intervals it is %s", got)
		}
	})
}

func TestGoodbyeIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 3)
		pass(time.Minute)
		nodes[2].stop()
		synctest.Wait()
		for _, n := range nodes[:2] {
			if got := n.state(nodes[2]); got != domain.Leaving {
				t.Errorf("%s: after its goodbye it is %s", n.id, got)
			}
		}
		nodes[2].start(nodes[0])
		pass(time.Second)
		if !nodes[0].knows(nodes[2]) {
			t.Error("it came back and is not available")
		}
	})
}

func TestNeighboursAreBoundedInALargeNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 40)
		pass(2 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		total := 0
		for _, n := range nodes {
			total += len(n.peers)
			if len(n.peers) < app.DefaultNeighbours {
				t.Errorf("%s has %d neighbours, want at least %d", n.id, len(n.peers), app.DefaultNeighbours)
			}
		}
		// Everybody dials the bootstrap node; apart from it each has what it dialled and what dialled it.
		if mean := total / len(nodes); mean > 2*app.DefaultNeighbours+4 {
			t.Errorf("%d neighbours on average", mean)
		}
	})
}

func TestANewcomerIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 40)
		pass(3 * time.Minute)
		from := time.Now()
		late := s.add().start(nodes[0])
		pass(2 * time.Second)
		total := 0
		for _, n := range nodes {
			total += len(n.sayings(from))
		}
		// Nobody greets it, and what was due anyway is said: by 40 nodes, each once in 80 s.
		if total > 8 {
			t.Errorf("one newcomer made 40 nodes say %d announcements in 2 s", total)
		}
		if got := late.svc.Figures().Available; got < 32 {
			t.Errorf("the newcomer knows %d", got)
		}
	})
}
