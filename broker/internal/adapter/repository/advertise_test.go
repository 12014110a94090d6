package repository

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// table is a routing table that remembers what it was told.
type table struct {
	mu   sync.Mutex
	told map[cid.Cid]int
}

func (r *table) Provide(_ context.Context, c cid.Cid, _ bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told[c]++
	return nil
}

func (r *table) FindProvidersAsync(context.Context, cid.Cid, int) <-chan peer.AddrInfo { return nil }

func (r *table) distinct() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.told)
}

// What was put while nobody could be told is advertised soon after somebody can be, however much it was and however long it took.
func TestAdvertiseAfterTimeAlone(t *testing.T) {
	for _, alone := range []time.Duration{10 * time.Second, 6 * time.Hour} {
		t.Run(alone.String(), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				r := &table{told: make(map[cid.Cid]int)}
				s, err := New(Config{Dir: dir, CollectEvery: -1, Advertise: UserOwner, Routing: func(string) Routing { return r }})
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					_ = s.Close()
					time.Sleep(time.Minute) //nolint:forbidigo // virtual; its index drains a pool after it was closed
				}()
				const many = 20
				for i := range many {
					if _, _, err := s.Put(t.Context(), bytes.NewReader(fmt.Append(nil, "content ", i)), PinFor{Owner: UserOwner}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(alone) //nolint:forbidigo // in a bubble, where time is virtual
				join := func(p map[string]*persona) {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.personas = p
				}
				join(map[string]*persona{"": {routing: r}})
				defer join(nil)                  // it has no host that Close could leave
				time.Sleep(2 * advertiseLongest) //nolint:forbidigo // the same
				if n := r.distinct(); n != many {
					t.Errorf("%d of %d are advertised", n, many)
				}
			})
		})
	}
}
