package libp2p

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shallot-net/shallot/kit/fault"
)

func someone(i int) peer.ID { return peer.ID(fmt.Sprint("peer ", i)) }

// Dials that never end keep no others waiting than those of their own trust.
func TestDialsUnderWayHaveABoundByTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDials(anonymous().dials)
		total := 0
		for as := range trusts {
			n := cap(d.of[as].underWay)
			var ends []func()
			for i := range n {
				end, err := d.begin(t.Context(), someone(i+100*int(as)), as)
				if err != nil {
					t.Fatalf("dial %d of %d, of trust %d: %v", i, n, as, err)
				}
				ends = append(ends, end)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := d.begin(ctx, someone(99+100*int(as)), as); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("one more of trust %d: %v", as, err)
			}
			cancel()
			if as != hearsay { // the last ones stay under way
				ends[0]()
				end, err := d.begin(t.Context(), someone(98+100*int(as)), as)
				if err != nil {
					t.Errorf("after one has ended, of trust %d: %v", as, err)
				}
				end()
			}
			total += n
		}
		if total > 16 { // that a transport dials side by side
			t.Errorf("%d may be under way", total)
		}
	})
}

// Each trust has a rate of its own. Whom others have told of is refused, the rest waits for its turn.
func TestDialsHaveARateByTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budgets := *anonymous().dials
		d := newDials(&budgets)
		dial := func(i int, as trust) error {
			end, err := d.begin(t.Context(), someone(i), as)
			if err == nil {
				end()
			}
			return err
		}
		next := 0
		for as := range trusts {
			began := time.Now()
			for range budgets[as].atOnce {
				if err := dial(next, as); err != nil {
					t.Fatal(err)
				}
				next++
			}
			if d := time.Since(began); d > 0 {
				t.Errorf("%d at once of trust %d took %v", budgets[as].atOnce, as, d)
			}
			err := dial(next, as)
			next++
			switch took := time.Since(began); {
			case as == hearsay && (err == nil || fault.From(err).Reason != "DIAL_BUDGET"):
				t.Errorf("one that others have told of, too many: %v", err)
			case as != hearsay && (err != nil || took != budgets[as].every):
				t.Errorf("one more of trust %d after %v: %v", as, took, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), budgets[vouched].every/2)
		defer cancel()
		if _, err := d.begin(ctx, someone(next+10), vouched); err == nil || fault.From(err).Reason != "DIAL_BUDGET" {
			t.Errorf("whose turn does not come in time: %v", err)
		}
		// Who was named once is dialled again as such, whoever has something for it.
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		for i := range budgets[hearsay].atOnce {
			_ = dial(next+100+i, hearsay)
		}
		if err := dial(next-1, hearsay); err != nil { // it was typed
			t.Errorf("who was typed before: %v", err)
		}
		var none *dials
		if end, err := none.begin(t.Context(), someone(0), hearsay); err != nil || end == nil {
			t.Errorf("without budgets: %v", err)
		}
	})
}
