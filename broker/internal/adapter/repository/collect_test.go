package repository

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/fault"
)

func collect(t *testing.T, s *Store, times int) (total app.Swept) {
	t.Helper()
	for range times {
		swept, err := s.Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total.Blocks += swept.Blocks
		total.Expired += swept.Expired
	}
	return total
}

func TestPinsAndCollections(t *testing.T) {
	now := time.Now()
	s := newStore(t, func(c *Config) { c.Now = func() time.Time { return now } })
	kept, dropped, timed := randomBytes(1, 3<<20), randomBytes(2, 3<<20), randomBytes(3, 1000)
	keptCID, droppedCID := put(t, s, kept, "user"), put(t, s, dropped, "task:1")
	cids, err := s.PutMany([]Small{{Data: timed, Pin: PinFor{Owner: "task:2", Keep: time.Hour}}})
	if err != nil {
		t.Fatal(err)
	}
	timedCID := cids[0].String()
	for range 2 { // idempotent
		if size, err := s.Pin(t.Context(), droppedCID, PinFor{Owner: "user"}, Source{}); err != nil || size != uint64(len(dropped)) {
			t.Fatal(size, err)
		}
	}
	collect(t, s, 3)
	for c, d := range map[string][]byte{keptCID: kept, droppedCID: dropped, timedCID: timed} {
		mustGet(t, s, c, Source{Local: true}, d)
	}
	if err := s.Unpin([]content.Pin{{CID: droppedCID, Owner: "user"}}); err != nil {
		t.Fatal(err)
	}
	collect(t, s, 3)
	mustGet(t, s, droppedCID, Source{Local: true}, dropped) // the task still has it
	if err := s.Unpin([]content.Pin{{CID: droppedCID, Owner: "task:1"}, {CID: keptCID, Owner: "task:1"}}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	if pins, _, err := s.Pins("", "", 10); err != nil || len(pins) != 1 {
		t.Errorf("pins %v, %v", pins, err)
	}
	if total := collect(t, s, 3); total.Blocks != 5 || total.Expired != 1 {
		t.Errorf("collected %+v", total)
	}
	mustGet(t, s, keptCID, Source{Local: true}, kept)
	for _, c := range []string{droppedCID, timedCID} {
		_, err := get(s, c, Source{Local: true})
		wantFault(t, err, codes.NotFound, ReasonNotFound)
	}
}

// Content lives for one interval at least, so that a Put without a pin and the Pin that follows it are safe.
func TestYoungContentStays(t *testing.T) {
	s := newStore(t)
	data := randomBytes(1, 2<<20)
	collect(t, s, 2)
	c := put(t, s, data, "")
	collect(t, s, 1)
	mustGet(t, s, c, Source{Local: true}, data)
	if _, err := s.Pin(t.Context(), c, PinFor{Owner: "user"}, Source{}); err != nil {
		t.Fatal(err)
	}
	collect(t, s, 4)
	mustGet(t, s, c, Source{Local: true}, data)
}

// When what is pinned cannot be walked, nothing is removed: what hangs on it cannot be known.
func TestCollectStopsAtDamage(t *testing.T) {
	s := newStore(t)
	data, loose := randomBytes(1, 3<<20), randomBytes(2, 1000)
	c, looseCID := put(t, s, data, "user"), put(t, s, loose, "")
	root, err := s.blocks.Get(keyOf(mustParse(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	damageFile(t, s.cfg.Dir, root)
	for range 4 {
		if _, err := s.Collect(t.Context()); err == nil || !strings.Contains(err.Error(), c) {
			t.Fatalf("it goes on: %v", err)
		}
	}
	mustGet(t, s, looseCID, Source{Local: true}, loose)
}

func TestCollectLoop(t *testing.T) {
	s := newStore(t, func(c *Config) { c.CollectEvery = 20 * time.Millisecond })
	c := put(t, s, randomBytes(1, 1000), "")
	waitFor(t, func() bool {
		_, err := get(s, c, Source{Local: true})
		return fault.From(err) != nil && fault.From(err).Reason == ReasonNotFound
	})
}
