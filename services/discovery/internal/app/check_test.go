package app_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// Where announcements are hours apart, a peer that went without a word is found out by a dial long before its next one is overdue, and one that is
// there stays.
func TestWhoIsSilentForHoursIsLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, all := network(t, 2)
		n := all[0]
		tell := func(id, address string) {
			a := domain.Announcement{PeerID: id, Version: 1, Role: domain.RoleProvider, SealingKey: testSelf().SealingKey, Capabilities: testSelf().Capabilities,
				Addresses: []string{address}, Interval: 12 * time.Hour}
			signed, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			n.svc.HandleAnnouncement("relay", true, app.Heard{Announcement: a, Signed: signed})
		}
		tell("gone", "/sim/gone")
		pass(time.Hour)
		if p, err := n.svc.Peer("gone"); err != nil || p.State != domain.Available {
			t.Fatalf("after an hour it is %v, %v", p.State, err)
		}
		pass(2 * time.Hour)
		if p, err := n.svc.Peer("gone"); err != nil || p.State != domain.Unavailable {
			t.Errorf("after three hours it is %v, %v", p.State, err)
		}
		if !n.knows(all[1]) {
			t.Error("its neighbour is lost")
		}
	})
}
