package app

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// A task whose type nobody known takes gets a provider of which only the routing table knows; while nobody has it, the table is asked ever more seldom, and when
// the task is gone, not at all.
func TestConsumerFindsStrangersForAType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		known, stranger := e.add(), e.add()
		stranger.takes = "wasm"
		name := domain.NameOfType("wasm")
		joined(t, e, []*station{known}, nil, func(t *testing.T, c *Consumer) {
			after(time.Second)
			place := func(d time.Duration) (found bool) {
				for until := time.Now().Add(d); time.Now().Before(until); after(500 * time.Millisecond) {
					if p, _ := c.Place(t.Context(), &domain.Need{Type: "wasm"}); p != nil {
						return p.GetPeerId() == stranger.key.ID
					}
				}
				return false
			}
			if place(5 * time.Minute) {
				t.Error("there is a provider before anybody has named it")
			}
			e.mu.Lock()
			asked := e.looked[name]
			stranger.named = name
			e.mu.Unlock()
			if asked < 5 || asked > 15 {
				t.Errorf("the table was asked %d times in five minutes", asked)
			}
			if !place(90 * time.Second) {
				t.Error("the stranger was not found")
			}
			e.mu.Lock()
			asked = e.looked[name]
			e.mu.Unlock()
			after(10 * time.Minute)
			e.mu.Lock()
			defer e.mu.Unlock()
			if again := e.looked[name] - asked; again > 0 {
				t.Errorf("nobody wants it any more, and the table was asked %d times", again)
			}
		})
	})
}

// A consumer that was told of nobody finds providers in the routing table.
func TestConsumerFindsAnybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a := e.add()
		a.named = domain.NameProvider
		for range 3 {
			a.knows = append(a.knows, e.add())
		}
		joined(t, e, nil, nil, func(t *testing.T, c *Consumer) {
			after(lookFirst + time.Second)
			if got := c.availableNow(); got != 4 {
				t.Errorf("it found %d of 4 providers", got)
			}
			e.mu.Lock()
			before := e.looked[domain.NameProvider]
			e.mu.Unlock()
			after(time.Hour)
			e.mu.Lock()
			defer e.mu.Unlock()
			if again := e.looked[domain.NameProvider] - before; again > 0 {
				t.Errorf("with connections enough the table was asked %d times", again)
			}
		})
	})
}

// A task for named providers is not for strangers, and the names that are looked for are bounded.
func TestWhatIsLookedFor(t *testing.T) {
	c := NewConsumer(ConsumerConfig{}, newEther(), discard)
	c.Place(t.Context(), &domain.Need{Type: "wasm", Only: []string{"somebody"}})
	if len(c.missing) != 0 {
		t.Error("strangers are looked for in place of who was named")
	}
	for i := range 1000 {
		c.Place(t.Context(), &domain.Need{Type: string(rune('a' + i))})
	}
	if len(c.missing) != maxMissing {
		t.Errorf("%d names are looked for", len(c.missing))
	}
}
