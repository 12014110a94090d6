package contenttest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// Harness makes stores for the suite.
type Harness struct {
	Open func(t *testing.T) app.Store
	// Reopen ends the store and opens it again; nil where nothing outlives the process.
	Reopen func(t *testing.T, s app.Store) app.Store
	// Damage changes the block's bytes behind the store's back.
	Damage func(t *testing.T, s app.Store, key string)
}

// Run checks all that content.Store promises.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, Harness)
	}{
		{"blocks", testBlocks}, {"damaged", testDamaged}, {"pins", testPins}, {"pages", testPages}, {"conditional unpin", testConditional},
		{"sweep", testSweep}, {"hold", testHold}, {"touch", testTouch}, {"reopen", testReopen}, {"concurrent", testConcurrent},
		{"cancelled sweep", testCancelled}, {"readers", testReaders},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.f(t, h) })
	}
}

// Data is n bytes that are the same for the same seed.
func Data(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 7})
	_, _ = r.Read(b)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, s app.Store, datas ...[]byte) {
	t.Helper()
	var c app.Change
	for _, d := range datas {
		c.Blocks = append(c.Blocks, Block(d))
	}
	must(t, s.Commit(c))
}

func has(t *testing.T, s app.Store, data []byte) bool {
	t.Helper()
	got, err := s.Get(Key(data))
	if errors.Is(err, content.ErrNotFound) {
		if _, err := s.Size(Key(data)); !errors.Is(err, content.ErrNotFound) {
			t.Fatalf("Get finds nothing and Size says %v", err)
		}
		return false
	}
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Fatal("other bytes came back")
	}
	return true
}

func testBlocks(t *testing.T, h Harness) {
	s := h.Open(t)
	for i, n := range []int{0, 1, 100, 64 << 10, 64<<10 + 1, 256 << 10, 1 << 20, content.MaxBlock} {
		d := Data(uint64(i), n)
		if has(t, s, d) {
			t.Fatalf("%d bytes are there before they were put", n)
		}
		for range 2 { // putting again changes nothing
			commit(t, s, d)
			if !has(t, s, d) {
				t.Fatalf("%d bytes are not there", n)
			}
		}
		if got, err := s.Size(Key(d)); err != nil || got != n {
			t.Fatalf("size %d, %v", got, err)
		}
	}
	var invalid *content.InvalidError
	good := Data(99, 10)
	if err := s.Commit(app.Change{Blocks: []app.Block{Block(good), Block(make([]byte, content.MaxBlock+1))}}); !errors.As(err, &invalid) {
		t.Fatalf("too large a block: %v", err)
	}
	if has(t, s, good) {
		t.Fatal("half of a change was applied")
	}
	// The caller's bytes are the caller's again.
	mine := Data(100, 5000)
	commit(t, s, mine)
	key := Key(mine)
	mine[0]++
	got, err := s.Get(key)
	must(t, err)
	if Key(got) != key {
		t.Fatal("the store kept the caller's slice")
	}
	got[0]++
	if again, err := s.Get(key); err != nil || Key(again) != key {
		t.Fatalf("the store gave its own slice away: %v", err)
	}
}

func testDamaged(t *testing.T, h Harness) {
	s := h.Open(t)
	for _, n := range []int{1000, 300 << 10} {
		bad, good := Data(uint64(n), n), Data(uint64(n+1), n)
		commit(t, s, bad, good)
		h.Damage(t, s, Key(bad))
		var corrupt *content.CorruptError
		if _, err := s.Get(Key(bad)); !errors.As(err, &corrupt) || corrupt.Key != Key(bad) {
			t.Fatalf("damaged: %v", err)
		}
		if !has(t, s, good) {
			t.Fatal("its neighbour is gone")
		}
		commit(t, s, bad)
		if !has(t, s, bad) {
			t.Fatal("putting it again does not mend it")
		}
	}
}

func pin(cid, owner string) content.Pin { return content.Pin{CID: cid, Owner: owner} }

func all(t *testing.T, s app.Store, cid, owner string, limit int) (pins []content.Pin) {
	t.Helper()
	for cursor, pages := "", 0; ; pages++ {
		page, next, err := s.Pins(cid, owner, cursor, limit)
		must(t, err)
		if len(page) > limit || pages > 1000 {
			t.Fatalf("%d pins in a page of %d, page %d", len(page), limit, pages)
		}
		pins = append(pins, page...)
		if cursor = next; next == "" {
			return pins
		}
	}
}

func testPins(t *testing.T, h Harness) {
	s := h.Open(t)
	end := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	must(t, s.Commit(app.Change{Pins: []content.Pin{pin("a", "x"), pin("a", "xy"), {CID: "b", Owner: "x", ExpiresAt: end}}}))
	must(t, s.Commit(app.Change{Pins: []content.Pin{pin("a", "x")}, Durable: true})) // again
	for _, c := range []struct {
		cid, owner string
		want       int
	}{{"", "", 3}, {"a", "", 2}, {"", "x", 2}, {"", "xy", 1}, {"a", "x", 1}, {"b", "x", 1}, {"b", "xy", 0}, {"", "z", 0}, {"ab", "", 0}} {
		if got := all(t, s, c.cid, c.owner, 10); len(got) != c.want {
			t.Errorf("pins of %q by %q: %v", c.cid, c.owner, got)
		}
	}
	if got := all(t, s, "b", "x", 1)[0]; !got.ExpiresAt.Equal(end) {
		t.Errorf("it ends %v and was to end %v", got.ExpiresAt, end)
	}
	must(t, s.Commit(app.Change{Unpins: []content.Pin{pin("a", "x"), pin("no", "such")}}))
	if got := all(t, s, "", "", 10); len(got) != 2 {
		t.Errorf("after unpin: %v", got)
	}
}

// testReaders: what a pin grants is the pin's, as durable as it is, and another pin of the same content has its own.
func testReaders(t *testing.T, h Harness) {
	s := h.Open(t)
	end := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	want := map[string]content.Pin{
		"x": {CID: "a", Owner: "x", Persona: "p", Readers: []string{"one", "two"}, ExpiresAt: end},
		"y": {CID: "a", Owner: "y", Persona: "", Readers: []string{strings.Repeat("r", content.MaxPeerID)}},
		"z": {CID: "a", Owner: "z"},
	}
	for _, p := range want {
		must(t, s.Commit(app.Change{Pins: []content.Pin{p}, Durable: true}))
	}
	check := func() {
		t.Helper()
		for _, by := range []struct{ cid, owner string }{{"a", ""}, {"", ""}, {"", "x"}} {
			got := all(t, s, by.cid, by.owner, 2)
			if len(got) != len(want) && by.owner == "" {
				t.Fatalf("%d pins of %d", len(got), len(want))
			}
			for _, p := range got {
				if w := want[p.Owner]; p.Persona != w.Persona || !slices.Equal(p.Readers, w.Readers) || !p.ExpiresAt.Equal(w.ExpiresAt) {
					t.Errorf("by %+v: the pin is %+v, and was %+v", by, p, w)
				}
			}
		}
	}
	check()
	if h.Reopen != nil {
		s = h.Reopen(t, s)
		check()
	}
	// A pin that is made again is the new one, and one that is lifted only if it is still the same is compared with its readers.
	old := want["x"]
	renewed := old
	renewed.Readers = []string{"three"}
	want["x"] = renewed
	must(t, s.Commit(app.Change{Pins: []content.Pin{renewed}}))
	check()
	must(t, s.Commit(app.Change{Unpins: []content.Pin{renewed}}))
	if got := all(t, s, "a", "x", 2); len(got) != 0 {
		t.Errorf("a pin with readers was not lifted: %+v", got)
	}
}

func testPages(t *testing.T, h Harness) {
	s := h.Open(t)
	var c app.Change
	for i := range 100 {
		c.Pins = append(c.Pins, pin(fmt.Sprintf("cid%03d", i), fmt.Sprintf("owner%d", i%3)))
	}
	must(t, s.Commit(c))
	for _, limit := range []int{1, 7, 100, 1000} {
		for owner, want := range map[string]int{"": 100, "owner0": 34, "owner1": 33} {
			seen := make(map[string]bool)
			for _, p := range all(t, s, "", owner, limit) {
				if seen[p.CID+p.Owner] {
					t.Fatalf("%v twice", p)
				}
				seen[p.CID+p.Owner] = true
			}
			if len(seen) != want {
				t.Errorf("%d pins by %q in pages of %d", len(seen), owner, limit)
			}
		}
	}
}

func testConditional(t *testing.T, h Harness) {
	s := h.Open(t)
	early, late := time.UnixMilli(1000), time.UnixMilli(2000)
	must(t, s.Commit(app.Change{Pins: []content.Pin{{CID: "a", Owner: "x", ExpiresAt: late}, {CID: "b", Owner: "x"}, {CID: "c", Owner: "x", ExpiresAt: early}}}))
	must(t, s.Commit(app.Change{Unpins: []content.Pin{{CID: "a", Owner: "x", ExpiresAt: early}, {CID: "b", Owner: "x", ExpiresAt: early}, {CID: "c", Owner: "x", ExpiresAt: early}}}))
	if got := all(t, s, "", "", 10); len(got) != 2 {
		t.Fatalf("renewed pins were lifted, or the ended one was not: %v", got)
	}
}

func none(string) bool { return false }

func advance(t *testing.T, s app.Store) app.Generation {
	t.Helper()
	g, err := s.Advance()
	must(t, err)
	return g
}

func sweep(t *testing.T, s app.Store, cutoff app.Generation, keep func(string) bool) app.Swept {
	t.Helper()
	done, err := s.Sweep(t.Context(), cutoff, keep, false)
	must(t, err)
	return done
}

func testSweep(t *testing.T, h Harness) {
	s := h.Open(t)
	var old [][]byte
	for i := range 1000 {
		old = append(old, Data(uint64(i), 100+i*20))
	}
	commit(t, s, old...)
	cutoff := advance(t, s)
	fresh := Data(5000, 200<<10)
	commit(t, s, fresh, old[1])
	kept := map[string]bool{Key(old[0]): true}
	done := sweep(t, s, cutoff, func(k string) bool { return kept[k] })
	if done.Blocks != 998 || done.Kept != 3 {
		t.Errorf("swept %+v", done)
	}
	for i, d := range old {
		if has(t, s, d) != (i < 2) {
			t.Fatalf("block %d", i)
		}
	}
	if !has(t, s, fresh) {
		t.Fatal("a young block is gone")
	}
	commit(t, s, old[500])
	if !has(t, s, old[500]) {
		t.Fatal("what was swept cannot be put again")
	}
}

func testHold(t *testing.T, h Harness) {
	s := h.Open(t)
	before := Data(1, 1000)
	commit(t, s, before)
	advance(t, s)
	release := s.Hold()
	during := Data(2, 1000)
	commit(t, s, during)
	advance(t, s)
	cutoff := advance(t, s)
	sweep(t, s, cutoff, none)
	if has(t, s, before) || !has(t, s, during) {
		t.Fatal("a hold keeps what came after it, and no more")
	}
	release()
	release()
	sweep(t, s, advance(t, s), none)
	if has(t, s, during) {
		t.Fatal("nobody holds it any more")
	}
}

func testTouch(t *testing.T, h Harness) {
	s := h.Open(t)
	a, b, c := Data(1, 1000), Data(2, 100<<10), Data(3, 1000)
	commit(t, s, a, b)
	cutoff := advance(t, s)
	missing, err := s.Touch([]string{Key(a), Key(c)})
	must(t, err)
	if len(missing) != 1 || missing[0] != Key(c) {
		t.Fatalf("missing %x", missing)
	}
	sweep(t, s, cutoff, none)
	if !has(t, s, a) || has(t, s, b) {
		t.Fatal("what was touched is young again, and nothing else")
	}
}

func testReopen(t *testing.T, h Harness) {
	if h.Reopen == nil {
		t.Skip("nothing outlives this store")
	}
	s := h.Open(t)
	small, large := Data(1, 1000), Data(2, 1<<20)
	must(t, s.Commit(app.Change{Blocks: []app.Block{Block(small), Block(large)}, Pins: []content.Pin{pin("a", "x")}}))
	s = h.Reopen(t, s)
	if !has(t, s, small) || !has(t, s, large) || len(all(t, s, "", "", 10)) != 1 {
		t.Fatal("something did not outlive the process")
	}
	// Generations go on, so that old content can be told from new.
	cutoff := advance(t, s)
	fresh := Data(3, 1000)
	commit(t, s, fresh)
	sweep(t, s, cutoff, none)
	if has(t, s, small) || !has(t, s, fresh) {
		t.Fatal("after reopening, old and new are confused")
	}
}

// testConcurrent puts, pins and reads while collections run: what a writer has put under a hold and pinned is never gone.
func testConcurrent(t *testing.T, h Harness) {
	s := h.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	var writers, collector sync.WaitGroup
	collector.Go(func() {
		col := app.NewCollector(app.CollectorConfig{Store: s, Now: time.Now,
			Links: func(cid string, _ func(string) ([]byte, error)) (app.Node, error) {
				key, err := hex.DecodeString(cid)
				return app.Node{Key: string(key)}, err
			}})
		for ctx.Err() == nil {
			if _, err := col.Collect(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	for w := range 4 {
		writers.Go(func() {
			for i := range 60 {
				d := Data(uint64(w*1000+i%20), 500+i%20*8000) // each three times over
				name := hex.EncodeToString([]byte(Key(d)))
				release := s.Hold()
				err := s.Commit(app.Change{Blocks: []app.Block{Block(d)}, Durable: i%20 == 0})
				if err == nil {
					err = s.Commit(app.Change{Pins: []content.Pin{pin(name, "w")}})
				}
				release()
				if err == nil {
					_, err = s.Get(Key(d))
				}
				if err == nil && i%3 == 0 {
					err = s.Commit(app.Change{Unpins: []content.Pin{pin(name, "w")}})
				}
				if err != nil {
					t.Errorf("writer %d, round %d: %v", w, i, err)
					return
				}
			}
		})
	}
	writers.Wait()
	cancel()
	collector.Wait()
	for _, p := range all(t, s, "", "", 100) {
		key, _ := hex.DecodeString(p.CID)
		if _, err := s.Get(string(key)); err != nil {
			t.Errorf("pinned: %v", err)
		}
	}
}

func testCancelled(t *testing.T, h Harness) {
	s := h.Open(t)
	d := Data(1, 100)
	commit(t, s, d)
	cutoff := advance(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Sweep(ctx, cutoff, none, true); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled sweep returns %v", err)
	}
	if !has(t, s, d) {
		t.Fatal("it removed something")
	}
}
