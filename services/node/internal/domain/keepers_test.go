package domain

import (
	"fmt"
	"testing"
)

func TestKeepersAreOthersThatAreThere(t *testing.T) {
	var view []*Provider
	for i := range 20 {
		view = append(view, &Provider{Announcement: Announcement{PeerID: fmt.Sprintf("peer%02d", i)}, State: StateAvailable})
	}
	view[3].State = StateUnavailable
	view[4].Penalty = faultWeight
	for copies, want := range map[uint32]int{0: 0, 1: 3, 3: 7, 7: 15, 1 << 31: 16} {
		seen := map[string]bool{}
		for range 50 {
			got := Keepers(view, &Need{Copies: copies, Only: []string{"peer00"}, Excluded: map[string]string{"peer01": "by the submission"}}, "peer02", nil)
			if len(got) != want {
				t.Fatalf("%d copies: %d are named, want %d", copies, len(got), want)
			}
			once := map[string]bool{}
			for i, p := range got {
				if once[p.PeerID] || p.PeerID == "peer01" || p.PeerID == "peer02" || p.PeerID == "peer03" || p.PeerID == "peer04" && i < 15 {
					t.Fatalf("%s is named in place %d", p.PeerID, i)
				}
				once[p.PeerID], seen[p.PeerID] = true, true
			}
		}
		if copies == 1 && len(seen) < 12 {
			t.Errorf("only %d providers were ever named", len(seen))
		}
	}
}
