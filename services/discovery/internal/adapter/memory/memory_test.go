package memory_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/adapter/memory"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/app/storetest"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Store {
		s := &memory.Store{}
		return storetest.Store{Store: s, Reopen: func() app.Store { return s }}
	}, func(n int) domain.Peer {
		return domain.Peer{Announcement: domain.Announcement{PeerID: fmt.Sprint("peer", n), Version: uint64(n), SealingKey: "age1sealed"},
			Signed: []byte{1, 2, 3}, State: domain.Available, FirstSeen: time.Unix(1, 0), LastSeen: time.Unix(2, 0)}
	})
}
