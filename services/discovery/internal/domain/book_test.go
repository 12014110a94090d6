package domain_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

func TestBookIsBoundedAndForgets(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	peer := func(n int) domain.Peer {
		return domain.Peer{Announcement: domain.Announcement{PeerID: fmt.Sprint("p", n), Addresses: []string{"/a"}}, LastSeen: now.Add(time.Duration(n) * time.Hour), Connected: true, State: domain.Available}
	}
	b := domain.NewBook(4)
	if got := b.Add(domain.Peer{Announcement: domain.Announcement{PeerID: "nowhere"}}); got != "nowhere" || b.Len() != 0 {
		t.Error("a peer without an address was entered: nobody can dial it")
	}
	for n := range 4 {
		if got := b.Add(peer(n)); got != "" {
			t.Errorf("%s had to make room in a book that has some", got)
		}
	}
	if got := b.Add(peer(2)); got != "" || b.Len() != 4 {
		t.Errorf("entered again, a peer put out %q", got)
	}
	if got := b.Add(peer(9)); got == "" || got == "p9" || b.Len() != 4 || b.Has(got) {
		t.Errorf("a full book put out %q and has %d", got, b.Len())
	}
	if p, ok := b.Get("p9"); !ok || p.State != domain.Forgotten || p.Connected {
		t.Errorf("a peer of the book is %+v", p)
	}
	gone := b.Expire(now.Add(9 * time.Hour))
	if len(gone) != 3 || b.Len() != 1 || !b.Has("p9") {
		t.Errorf("%v expired, %d are left", gone, b.Len())
	}
	b.Remove("p9")
	if len(b.All()) != 0 {
		t.Error("a peer that was struck out is still there")
	}
}
