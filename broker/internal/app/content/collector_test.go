package content_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/app/content/contenttest"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// A test's block lists the names of its children: "n1 n2 l7". Names that begin with l are leaves.
type world struct {
	store *contenttest.Memory
	named map[string]app.Block
	now   time.Time
}

func newWorld() *world {
	return &world{store: contenttest.NewMemory(), named: make(map[string]app.Block), now: time.UnixMilli(1e12)}
}

func (w *world) collector() *app.Collector {
	return app.NewCollector(app.CollectorConfig{Store: w.store, Links: w.links, Now: func() time.Time { return w.now }})
}

func (w *world) links(cid string, read func(string) ([]byte, error)) (app.Node, error) {
	b, ok := w.named[cid]
	if !ok {
		return app.Node{}, fmt.Errorf("no %s", cid)
	}
	n := app.Node{Key: b.Key}
	if cid[0] == 'l' {
		return n, nil
	}
	data, err := read(b.Key)
	if err != nil {
		return n, err
	}
	for _, c := range strings.Fields(string(data))[1:] {
		if c[0] == 'l' {
			n.Leaves = append(n.Leaves, w.named[c].Key)
		} else {
			n.Inner = append(n.Inner, c)
		}
	}
	return n, nil
}

func (w *world) put(name string, children ...string) error {
	b := contenttest.Block([]byte(name + ": " + strings.Join(children, " ")))
	w.named[name] = b
	return w.store.Commit(app.Change{Blocks: []app.Block{b}})
}

func (w *world) has(name string) bool {
	_, err := w.store.Get(w.named[name].Key)
	return err == nil
}

func (w *world) pin(name, owner string, end time.Time) error {
	return w.store.Commit(app.Change{Pins: []content.Pin{{CID: name, Owner: owner, ExpiresAt: end}}})
}

func ok(t interface{ Fatal(...any) }, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever is put, pinned, unpinned and collected in whatever order: what is pinned is there whole, and what has not been for two
// collections is gone.
func TestCollectorModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		col := w.collector()
		children := make(map[string][]string)
		pins := make(map[string]bool)
		unused := make(map[string]int) // collections since it was reachable or young
		var names []string
		reach := func() map[string]bool {
			seen := make(map[string]bool)
			var visit func(string)
			visit = func(n string) {
				if !seen[n] {
					seen[n] = true
					for _, c := range children[n] {
						visit(c)
					}
				}
			}
			for n := range pins {
				visit(n)
			}
			return seen
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				kind := rapid.SampledFrom([]string{"l", "n"}).Draw(t, "kind")
				name := fmt.Sprint(kind, len(names))
				var kids []string
				for _, c := range names {
					if kind == "n" && w.has(c) && rapid.IntRange(0, 3).Draw(t, "link") == 0 {
						kids = append(kids, c)
					}
				}
				ok(t, w.put(name, kids...))
				children[name], names = kids, append(names, name)
				unused[name] = 0
			},
			"pin": func(t *rapid.T) {
				if len(names) == 0 {
					t.Skip()
				}
				n := rapid.SampledFrom(names).Draw(t, "name")
				var keys []string
				whole := true
				var visit func(string)
				visit = func(n string) {
					whole = whole && w.has(n)
					keys = append(keys, w.named[n].Key)
					for _, c := range children[n] {
						visit(c)
					}
				}
				visit(n)
				if !whole {
					t.Skip()
				}
				_, err := w.store.Touch(keys)
				ok(t, err)
				ok(t, w.pin(n, "x", time.Time{}))
				pins[n] = true
			},
			"unpin": func(t *rapid.T) {
				if len(names) == 0 {
					t.Skip()
				}
				n := rapid.SampledFrom(names).Draw(t, "name")
				ok(t, w.store.Commit(app.Change{Unpins: []content.Pin{{CID: n, Owner: "x"}}}))
				delete(pins, n)
			},
			"collect": func(t *rapid.T) {
				_, err := col.Collect(t.Context())
				ok(t, err)
				live := reach()
				for _, n := range names {
					if live[n] {
						unused[n] = 0
						continue
					}
					unused[n]++
				}
			},
			"": func(t *rapid.T) {
				for n := range reach() {
					if !w.has(n) {
						t.Fatalf("%s is pinned and gone", n)
					}
				}
				for n, c := range unused {
					// The approximate marks may keep a dead block by chance, in one of a thousand times.
					if c > 4 && w.has(n) {
						t.Fatalf("%s has not been needed for %d collections", n, c)
					}
				}
			},
		})
	})
}

func TestCollectorExpires(t *testing.T) {
	w := newWorld()
	col := w.collector()
	ok(t, w.put("l1"))
	ok(t, w.put("n2", "l1"))
	ok(t, w.pin("n2", "x", w.now.Add(time.Hour)))
	for range 4 {
		_, err := col.Collect(t.Context())
		ok(t, err)
	}
	if !w.has("n2") || !w.has("l1") {
		t.Fatal("it is gone before its time")
	}
	w.now = w.now.Add(time.Hour)
	expired := int64(0)
	for range 3 {
		done, err := col.Collect(t.Context())
		ok(t, err)
		expired += done.Expired
	}
	if w.has("n2") || w.has("l1") || expired != 1 {
		t.Fatalf("its time is up; %d pins have ended", expired)
	}
}

func TestCollectorStops(t *testing.T) {
	w := newWorld()
	col := w.collector()
	ok(t, w.put("l1"))
	ok(t, w.put("n2", "l1"))
	ok(t, w.put("l3"))
	ok(t, w.pin("n2", "x", time.Time{}))
	w.store.Damage(w.named["n2"].Key)
	for range 4 {
		var corrupt *content.CorruptError
		if _, err := col.Collect(t.Context()); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "n2") {
			t.Fatalf("it goes on: %v", err)
		}
	}
	if !w.has("l1") || !w.has("l3") {
		t.Fatal("something was removed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := col.Collect(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
