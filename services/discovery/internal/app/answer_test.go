package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/kit/marks"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// stopSilently ends the service without a goodbye.
func (n *node) stopSilently() {
	n.sim.mu.Lock()
	peers := n.peers
	n.peers = map[string]bool{}
	n.sim.mu.Unlock()
	n.stop()
	n.sim.mu.Lock()
	n.peers = peers
	n.sim.mu.Unlock()
}

// stranger is somebody who speaks to a node's service, with a table of their own making.
func stranger(t *testing.T, s *sim, to *node) (*node, func(types []string, limit int) app.DiscoverResponse) {
	n := s.add()
	answers := make(chan app.DiscoverResponse, 1)
	if _, err := n.Connect(t.Context(), to.id, nil); err != nil {
		t.Fatal(err)
	}
	to.intercept(n.id, answers)
	return n, func(types []string, limit int) app.DiscoverResponse {
		if v := to.svc.HandleDiscover(n.id, app.Question{ID: "question", Types: types, Limit: limit}); v != app.Applied {
			t.Fatalf("HandleDiscover = %v", v)
		}
		return <-answers
	}
}

// A persona wants the announcement of whom it asks, and nothing that it would have to carry over its circuit beside it.
func TestWhoWantsThisNodesOwnGetsNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		n := s.add().start()
		pass(time.Second)
		n.svc.HandleAnnouncement("relay", true, signed(t, good("far", 1)))
		asker := s.add()
		answers := make(chan app.DiscoverResponse, 1)
		if _, err := asker.Connect(t.Context(), n.id, nil); err != nil {
			t.Fatal(err)
		}
		n.intercept(asker.id, answers)
		if v := n.svc.HandleDiscover(asker.id, app.Question{ID: "question", Own: true}); v != app.Applied {
			t.Fatalf("HandleDiscover = %v", v)
		}
		if r := <-answers; len(r.Signed) != 1 || heard(r.Signed[0]).Announcement.PeerID != n.id || r.InReplyTo != "question" {
			t.Errorf("%d announcements", len(r.Signed))
		}
		n.stop()
	})
}

func signed(t *testing.T, a domain.Announcement) app.Heard {
	t.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return app.Heard{Announcement: a, Signed: b}
}

func good(id string, version uint64) domain.Announcement {
	self := testSelf()
	return domain.Announcement{PeerID: id, Version: version, Role: domain.RoleProvider, Capabilities: self.Capabilities, SealingKey: self.SealingKey, Interval: 15 * time.Second}
}

func TestAnswersAreBoundedSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		n := s.add().start()
		pass(time.Second)
		for i := range 100 {
			n.svc.HandleAnnouncement("relay", true, signed(t, good(fmt.Sprintf("far%03d", i), 1)))
		}
		wasm := good("wasmer", 1)
		wasm.Capabilities = []domain.Capability{{Type: "wasm"}}
		n.svc.HandleAnnouncement("relay", true, signed(t, wasm))
		_, ask := stranger(t, s, n)
		for _, c := range []struct {
			types       []string
			limit, want int
		}{{nil, 0, 33}, {nil, 1000, 33}, {nil, 5, 6}, {[]string{"wasm"}, 32, 2}, {[]string{"nobody"}, 32, 1}} {
			r := ask(c.types, c.limit)
			if len(r.Signed) != c.want || heard(r.Signed[0]).Announcement.PeerID != n.id || r.InReplyTo != "question" {
				t.Errorf("types %v, limit %d: %d announcements, want %d with this node's own first", c.types, c.limit, len(r.Signed), c.want)
			}
			if r.Known < 102 {
				t.Errorf("it says it knows %d providers", r.Known)
			}
		}
	})
}

// Who is reached by an onion service alone is in anonymous mode, and believes nobody who names another address: it would be kept, and handed on.
func TestAmongOnionsNoOtherAddressIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		open, hidden := s.add().start(), s.add()
		hidden.onion = true
		hidden.start()
		pass(time.Second)
		at := func(id string, addresses ...string) app.Heard {
			a := good(id, 1)
			a.Addresses = addresses
			return signed(t, a)
		}
		for name, h := range map[string]app.Heard{
			"ip": at("ip", "/ip4/192.0.2.7/tcp/4001"), "both": at("both", "/onion3/both:4001", "/dnsaddr/canary.test"), "behind": at("behind", "/onion3/behind:4001/ip4/192.0.2.7/tcp/1"),
		} {
			if v := hidden.svc.HandleAnnouncement("relay", true, h); v != app.Rejected {
				t.Errorf("%s: %v", name, v)
			}
			if _, err := hidden.svc.Peer(name); err == nil {
				t.Errorf("%s is known", name)
			}
			if v := open.svc.HandleAnnouncement("relay", true, h); v != app.Applied {
				t.Errorf("%s, in open mode: %v", name, v)
			}
		}
		if v := hidden.svc.HandleAnnouncement("relay", true, at("onion", "/onion3/onion:4001")); v != app.Applied {
			t.Errorf("an onion address: %v", v)
		}
	})
}

func TestAnswersLeaveOutWhatTheAskerHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		n := s.add().start()
		pass(time.Second)
		for i := range 20 {
			n.svc.HandleAnnouncement("relay", true, signed(t, good(fmt.Sprintf("far%02d", i), 5)))
		}
		asker := s.add()
		answers := make(chan app.DiscoverResponse, 1)
		if _, err := asker.Connect(t.Context(), n.id, nil); err != nil {
			t.Fatal(err)
		}
		n.intercept(asker.id, answers)
		n.svc.HandleAnnouncement(asker.id, false, signed(t, good(asker.id, 3)))
		q := app.Question{ID: "question", Limit: 32, Has: []uint32{marks.Of("question", asker.id, 3), marks.Of("question", "far00", 4), marks.Of("another", "far01", 5)}}
		for i := 2; i < 20; i++ {
			q.Has = append(q.Has, marks.Of("question", fmt.Sprintf("far%02d", i), 5))
		}
		if v := n.svc.HandleDiscover(asker.id, q); v != app.Applied {
			t.Fatalf("HandleDiscover = %v", v)
		}
		var told []string
		for _, b := range (<-answers).Signed {
			told = append(told, heard(b).Announcement.PeerID)
		}
		slices.Sort(told)
		// Of far00 the asker has an older version, and a mark from another question says nothing of far01.
		if want := []string{"far00", "far01", n.id}; !slices.Equal(told, want) {
			t.Errorf("told of %v, want %v", told, want)
		}
	})
}

func TestAnswersFitAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		n := s.add().start()
		pass(time.Second)
		for i := range 40 {
			h := signed(t, good(fmt.Sprintf("far%03d", i), 1))
			h.Signed = append(h.Signed, make([]byte, 15<<10)...)
			for j := len(h.Signed) - 15<<10; j < len(h.Signed); j++ {
				h.Signed[j] = ' '
			}
			n.svc.HandleAnnouncement("relay", true, h)
		}
		_, ask := stranger(t, s, n)
		size := 0
		for _, b := range ask(nil, 32).Signed {
			size += len(b)
		}
		if size > 200<<10 || size < 150<<10 {
			t.Errorf("an answer has %d bytes of announcements", size)
		}
	})
}

func TestAnswersThatNobodyAskedForAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 2)
		pass(time.Second)
		h := []app.Heard{signed(t, good("planted", 1))}
		if v := nodes[0].svc.HandleDiscoverResponse(nodes[1].id, "guessed", h, 5); v != app.Ignored {
			t.Errorf("verdict %v", v)
		}
		// Nor does the answer of another than the one who was asked count.
		s.mu.Lock()
		nodes[1].deaf = true
		s.mu.Unlock()
		if _, err := nodes[0].svc.Peer("planted"); err == nil {
			t.Error("what nobody asked for is in the table")
		}
	})
}

func TestWatchersGetTheTableThenChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 3)
		pass(time.Second)
		now, w := nodes[0].svc.Watch()
		defer w.Stop()
		if len(now) != 2 {
			t.Errorf("%d peers, want 2", len(now))
		}
		nodes[2].kill()
		pass(10 * time.Second)
		var last domain.Peer
		for len(w.C) > 0 {
			if c := <-w.C; c.Peer.PeerID == nodes[2].id {
				last = c.Peer
			}
		}
		if last.State != domain.Unavailable || last.Connected {
			t.Errorf("the last of its changes is %s, connected %v", last.State, last.Connected)
		}
		pass(2 * time.Hour)
		forgotten := false
		for len(w.C) > 0 {
			c := <-w.C
			forgotten = forgotten || c.Forgotten == nodes[2].id
		}
		if !forgotten {
			t.Error("not told that it was forgotten")
		}
	})
}

func TestASlowWatcherIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add().start()
		_, slow := n.svc.Watch()
		_, quick := n.svc.Watch()
		defer quick.Stop()
		for v := range 1025 {
			n.svc.HandleAnnouncement("relay", true, signed(t, good(fmt.Sprintf("busy%d", v%200), uint64(v+1))))
			<-quick.C
		}
		got := 0
		for range slow.C {
			got++
		}
		if !errors.Is(slow.Err(), app.ErrSlowWatcher) || got != 1024 {
			t.Errorf("the slow watcher got %d changes and then %v", got, slow.Err())
		}
		if quick.Err() != nil {
			t.Errorf("the quick one was cut off: %v", quick.Err())
		}
		slow.Stop() // twice does no harm
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := network(t, 2)
		pass(5 * time.Second)
		if p, _ := nodes[0].svc.Peer(nodes[1].id); p.RTT != 2*hop {
			t.Errorf("the neighbour's round trip is %v, want %v", p.RTT, 2*hop)
		}
		if rtt, err := nodes[0].svc.Ping(t.Context(), nodes[1].id); err != nil || rtt != 2*hop {
			t.Errorf("Ping = %v, %v", rtt, err)
		}
		if _, err := nodes[0].svc.Ping(t.Context(), "nobody"); err == nil {
			t.Error("a ping to nobody succeeded")
		}
		if _, err := nodes[0].svc.Ping(t.Context(), "not/an/id"); err == nil {
			t.Error("a ping to no id succeeded")
		}
	})
}

func TestALostBrokerIsFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := network(t, 3)
		pass(time.Second)
		s.mu.Lock()
		n := nodes[2]
		for id := range n.peers {
			s.cutLocked(n, s.nodes[id])
		}
		close(n.lost)
		n.lost = make(chan struct{})
		s.mu.Unlock()
		pass(100 * time.Millisecond)
		pass(3 * time.Second)
		s.mu.Lock()
		got := len(n.peers)
		s.mu.Unlock()
		if got != 2 || !n.knows(nodes...) || !nodes[0].knows(n) {
			t.Errorf("three seconds later it has %d connections", got)
		}
	})
}

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		a, b := s.add().start(), s.add().start()
		if _, err := a.svc.Join(context.Background(), "/sim/x"); err == nil {
			t.Error("joined an address without an id")
		}
		id, err := a.svc.Join(context.Background(), b.address()+"/p2p/"+b.id)
		if err != nil || id != b.id {
			t.Errorf("Join = %q, %v", id, err)
		}
		pass(time.Second)
		if !a.knows(b) || !b.knows(a) {
			t.Error("joined, and not known")
		}
	})
}

func TestNothingHearsayIsRecommended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		n := s.add().start()
		pass(time.Second)
		n.svc.HandleAnnouncement("talker", false, signed(t, good("ghost", 1)))
		_, ask := stranger(t, s, n)
		if r := ask(nil, 32); len(r.Signed) != 1 {
			t.Errorf("%d announcements: a peer that was never heard is recommended", len(r.Signed))
		}
	})
}
