package app_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// hears lets n hear the announcement of each of so many providers once, evenly over d.
func (n *node) hears(providers int, d time.Duration, version uint64) {
	for i := range providers {
		a := domain.Announcement{PeerID: fmt.Sprintf("stranger%04d", i), Version: version, Role: domain.RoleProvider, SealingKey: testSelf().SealingKey,
			Capabilities: testSelf().Capabilities, Addresses: []string{"/sim/stranger"}, Interval: d * 3 / 2}
		n.svc.HandleAnnouncement("relay", true, app.Heard{Announcement: a, Signed: fmt.Append(nil, i)})
		pass(d / time.Duration(providers))
	}
}

// A full table lets go of one for another all the time: were each greeted as a newcomer, every announcement would call for more.
func TestInALargeNetworkNobodyIsGreeted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add().start()
		n.hears(500, 500*time.Second, 1)
		from := time.Now()
		const rounds = 6
		for i := range uint64(rounds) {
			n.hears(500, 500*time.Second, 2+i)
		}
		if said := len(n.sayings(from)); said > rounds+4 {
			t.Errorf("one of 500 providers announced itself %d times while each of the others did %d times", said, rounds)
		}
		if got := n.svc.Figures(); got.Available != app.DefaultMaxPeers || got.Network < 350 || got.Network > 650 {
			t.Errorf("of 500 providers %d are known by name and %d are thought to be there", got.Available, got.Network)
		}
	})
}

// Whoever says again that a peer left, which has come back since, changes nothing.
func TestAnOldGoodbyeIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add().start()
		n.hears(500, 500*time.Second, 10)
		n.hears(500, 500*time.Second, 11)
		before := n.svc.Figures().Network
		for _, p := range n.svc.Peers(t.Context()) {
			p.Version, p.Leaving = 9, true
			n.svc.HandleAnnouncement("relay", true, app.Heard{Announcement: p.Announcement, Signed: []byte("old")})
		}
		if got := n.svc.Figures().Network; got != before {
			t.Errorf("of %d providers %d are thought to be left", before, got)
		}
	})
}
