package delivery_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// model checks, whatever happens in whatever order, that every directed event ends exactly once, that it is acknowledged only when a member
// of each group acknowledged it, that no member has more than it takes, and that a member which keeps a sender gets its events in order.
type model struct {
	t       *rapid.T
	hub     *delivery.Hub
	now     time.Time
	members []*member
	open    map[string]bool
	acked   map[string]map[string]bool // by event, the groups that did
	groups  map[string]bool
	sent    int
}

type member struct {
	m     *delivery.Member
	group string
	max   int
	has   map[uint64]*delivery.Item
	last  map[string]int // by sender, the number of the newest first delivery
}

func (w *model) Deliver(m *delivery.Member, id uint64, i *delivery.Item, again bool) {
	mem := m.Value.(*member)
	mem.m = m // the first may come before Join returns
	w.revoke(mem)
	if mem.has[id] = i; len(mem.has) > mem.max {
		w.t.Fatalf("a member that takes %d has %d", mem.max, len(mem.has))
	}
	if i.Topic != "" || again {
		return
	}
	var n int
	_, _ = fmt.Sscanf(i.Value.(string), "e%d", &n)
	if last, ok := mem.last[i.Sender]; ok && n < last {
		w.t.Fatalf("event %d of %s came after %d", n, i.Sender, last)
	}
	mem.last[i.Sender] = n
}

func (w *model) Done(i *delivery.Item, o event.Outcome) {
	name := i.Value.(string)
	if !w.open[name] {
		w.t.Fatalf("%s ended twice or was never sent", name)
	}
	delete(w.open, name)
	if o.Status == event.Acknowledged && len(w.acked[name]) == 0 {
		w.t.Fatalf("%s is acknowledged, and nobody did", name)
	}
}

func (w *model) Dropped(i *delivery.Item, _ delivery.Drop) {
	if i.Topic == "" {
		w.t.Fatalf("the directed event %v was dropped", i.Value)
	}
}

func (w *model) tick() {
	for range 10000 {
		at, ok := w.hub.Next()
		if !ok || at.After(w.now) {
			return
		}
		w.hub.Tick(w.now)
	}
	w.t.Fatal("the hub asks for ever more ticks")
}

// revoke forgets what the hub has taken back from a member.
func (w *model) revoke(m *member) {
	for id := range m.has {
		if !w.hub.Holds(m.m, id) {
			delete(m.has, id)
		}
	}
}

func TestHubProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &model{t: t, now: time.Unix(1e9, 0), open: map[string]bool{}, acked: map[string]map[string]bool{}, groups: map[string]bool{}}
		w.hub = delivery.NewHub(delivery.Config{Linger: 5 * time.Second, Gossip: 3, Parked: 4, IdleLanes: 2, RetryFor: 30 * time.Second}, w)
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				if len(w.members) > 5 {
					return
				}
				m := &member{group: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "group"), max: rapid.IntRange(1, 4).Draw(t, "max"),
					has: map[uint64]*delivery.Item{}, last: map[string]int{}}
				m.m = w.hub.Join(m.group, delivery.Filter{Types: []event.Type{30}, Topics: []string{"metrics"}}, m.max, 10*time.Second, m, w.now)
				w.members = append(w.members, m)
			},
			"leave": func(t *rapid.T) {
				if len(w.members) == 0 {
					return
				}
				i := rapid.IntRange(0, len(w.members)-1).Draw(t, "member")
				m := w.members[i]
				w.members = append(w.members[:i:i], w.members[i+1:]...)
				w.hub.Leave(m.m, w.now)
			},
			"send": func(t *rapid.T) {
				w.sent++
				name := fmt.Sprintf("e%d", w.sent)
				w.open[name] = true
				w.hub.Offer(&delivery.Item{Sender: rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "sender"), Type: 30, Value: name}, w.now)
			},
			"gossip": func(t *rapid.T) {
				w.hub.Offer(&delivery.Item{Sender: "r", Topic: "metrics", Type: 2, Value: "g"}, w.now)
			},
			"ack": func(t *rapid.T) {
				for _, m := range w.members {
					w.revoke(m)
					for _, id := range slices.Sorted(maps.Keys(m.has)) {
						i := m.has[id]
						v := rapid.SampledFrom([]delivery.Verdict{delivery.Applied, delivery.Ignored, delivery.Refused, delivery.Retry, delivery.Misconduct}).Draw(t, "verdict")
						if v == delivery.Applied || v == delivery.Ignored {
							name := i.Value.(string)
							if w.acked[name] == nil {
								w.acked[name] = map[string]bool{}
							}
							w.acked[name][m.group] = true
						}
						delete(m.has, id)
						if !w.hub.Ack(m.m, id, v, "", w.now) {
							t.Fatalf("a delivery that the member has cannot be acknowledged")
						}
						return
					}
				}
			},
			"wait": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 12000).Draw(t, "ms")) * time.Millisecond)
				w.tick()
			},
		})
		// In the end everything ends: nobody answers any more.
		for range 200 {
			w.now = w.now.Add(time.Minute)
			w.tick()
			for _, m := range w.members {
				w.hub.Leave(m.m, w.now)
			}
			w.members = nil
		}
		if len(w.open) > 0 {
			t.Fatalf("%d events have never ended: %v", len(w.open), w.open)
		}
	})
}
