package delivery_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// world is a Hub with a clock, whose Sink writes down what it is told.
type world struct {
	t    *testing.T
	hub  *delivery.Hub
	now  time.Time
	out  map[*delivery.Member][]handed
	done map[string]event.Outcome
	drop map[string]delivery.Drop
	ids  map[*delivery.Member]map[string]uint64
}

type handed struct {
	name  string
	again bool
}

func newWorld(t *testing.T, cfg delivery.Config) *world {
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), out: map[*delivery.Member][]handed{}, done: map[string]event.Outcome{},
		drop: map[string]delivery.Drop{}, ids: map[*delivery.Member]map[string]uint64{}}
	w.hub = delivery.NewHub(cfg, w)
	return w
}

func (w *world) Deliver(m *delivery.Member, id uint64, i *delivery.Item, again bool) {
	name := i.Value.(string)
	w.out[m] = append(w.out[m], handed{name, again})
	if w.ids[m] == nil {
		w.ids[m] = map[string]uint64{}
	}
	w.ids[m][name] = id
}

func (w *world) Done(i *delivery.Item, o event.Outcome) {
	name := i.Value.(string)
	if was, ok := w.done[name]; ok {
		w.t.Errorf("%s is done twice: %v, then %v", name, was, o)
	}
	w.done[name] = o
}

func (w *world) Dropped(i *delivery.Item, why delivery.Drop) { w.drop[i.Value.(string)] = why }

func (w *world) join(group string, max int, want ...event.Type) *delivery.Member {
	return w.hub.Join(group, delivery.Filter{Types: want, Topics: []string{"metrics"}}, max, 10*time.Second, nil, w.now)
}

func (w *world) send(sender, name string) {
	w.hub.Offer(&delivery.Item{Sender: sender, Type: 30, Value: name}, w.now)
}

func (w *world) gossip(name string) {
	w.hub.Offer(&delivery.Item{Sender: "relay", Topic: "metrics", Type: 2, Value: name}, w.now)
}

func (w *world) ack(m *delivery.Member, name string, v delivery.Verdict) {
	w.t.Helper()
	if !w.hub.Ack(m, w.ids[m][name], v, "REASON", w.now) {
		w.t.Errorf("the acknowledgement of %s came too late", name)
	}
}

// pass lets time go by, ticking when the hub asks for it.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for range 1000 {
		at, ok := w.hub.Next()
		if !ok || at.After(end) {
			w.now = end
			return
		}
		if at.After(w.now) {
			w.now = at
		}
		w.hub.Tick(w.now)
	}
	w.t.Fatal("the hub asks for ever more ticks")
}

func (w *world) expect(m *delivery.Member, want ...string) {
	w.t.Helper()
	var got []string
	for _, h := range w.out[m] {
		if h.again {
			h.name += "*"
		}
		got = append(got, h.name)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("the member got %v, want %v", got, want)
	}
	w.out[m] = nil
}

func (w *world) outcome(name string, want event.Status) {
	w.t.Helper()
	if o, ok := w.done[name]; !ok || o.Status != want {
		w.t.Errorf("outcome of %s: %v (done: %v), want status %d", name, o, ok, want)
	}
}

func (w *world) open(name string) {
	w.t.Helper()
	if o, ok := w.done[name]; ok {
		w.t.Errorf("%s is done already: %v", name, o)
	}
}

func TestOneMemberOfEachGroup(t *testing.T) {
	w := newWorld(t, delivery.Config{})
	a1, a2, b := w.join("a", 8, 30), w.join("a", 8, 30), w.join("b", 8, 30)
	other := w.join("c", 8, 31)
	w.send("p", "x")
	w.expect(a1, "x")
	w.expect(a2)
	w.expect(b, "x")
	w.expect(other)
	w.ack(a1, "x", delivery.Applied)
	w.open("x") // b has not answered
	w.ack(b, "x", delivery.Ignored)
	w.outcome("x", event.Acknowledged)
}

func TestSendersStickToMembers(t *testing.T) {
	w := newWorld(t, delivery.Config{})
	m1, m2 := w.join("g", 8, 30), w.join("g", 8, 30)
	for n := range 3 {
		w.send("p", fmt.Sprint("p", n))
		w.send("q", fmt.Sprint("q", n))
	}
	w.expect(m1, "p0", "p1", "p2")
	w.expect(m2, "q0", "q1", "q2")
	for n := range 3 {
		w.ack(m1, fmt.Sprint("p", n), delivery.Applied)
		w.ack(m2, fmt.Sprint("q", n), delivery.Applied)
	}
	w.send("p", "p3") // also after a pause
	w.expect(m1, "p3")
}

func TestRoomAndOrder(t *testing.T) {
	w := newWorld(t, delivery.Config{})
	m := w.join("g", 2, 30)
	for n := range 4 {
		w.send("p", fmt.Sprint("p", n))
		w.send("q", fmt.Sprint("q", n))
	}
	w.expect(m, "p0", "q0")
	w.ack(m, "p0", delivery.Applied)
	w.expect(m, "p1")
	w.ack(m, "q0", delivery.Applied)
	w.expect(m, "q1") // senders take turns
	w.ack(m, "p1", delivery.Applied)
	w.ack(m, "q1", delivery.Applied)
	w.expect(m, "p2", "q2")
	w.outcome("q1", event.Acknowledged)
	w.open("p3")
}

func TestVerdicts(t *testing.T) {
	w := newWorld(t, delivery.Config{})
	m := w.join("g", 8, 30)
	w.send("p", "bad")
	w.ack(m, "bad", delivery.Refused)
	w.outcome("bad", event.Rejected)
	if got := w.done["bad"].Detail; got != "REASON" {
		t.Errorf("the sender is told %q", got)
	}
	if w.hub.Ack(m, w.ids[m]["bad"], delivery.Applied, "", w.now) {
		t.Error("a second acknowledgement counts")
	}
}

func TestRetryComesBackInOrder(t *testing.T) {
	w := newWorld(t, delivery.Config{RetryFirst: time.Second, RetryMost: 4 * time.Second, RetryFor: 20 * time.Second})
	m := w.join("g", 1, 30)
	w.send("p", "x")
	w.send("p", "y")
	w.expect(m, "x")
	w.ack(m, "x", delivery.Retry)
	w.pass(999 * time.Millisecond)
	w.expect(m) // neither x nor y, which must not overtake it
	w.pass(time.Millisecond)
	w.expect(m, "x*")
	w.ack(m, "x", delivery.Applied)
	w.expect(m, "y")
	w.outcome("x", event.Acknowledged)
	// For ever it does not come back.
	for n := 0; len(w.done) < 2 && n < 50; n++ {
		if len(w.out[m]) > 0 || n == 0 {
			w.out[m] = nil
			w.ack(m, "y", delivery.Retry)
		}
		w.pass(time.Second)
	}
	w.outcome("y", event.TimedOut)
}

func TestRetryGoesToAnother(t *testing.T) {
	w := newWorld(t, delivery.Config{})
	m1 := w.join("g", 8, 30)
	w.send("p", "x")
	m2 := w.join("g", 8, 30)
	w.expect(m1, "x")
	w.ack(m1, "x", delivery.Retry)
	w.pass(time.Second)
	w.expect(m2, "x*")
	w.send("p", "y") // and the sender with it
	w.expect(m2, "y")
}

func TestTimeout(t *testing.T) {
	w := newWorld(t, delivery.Config{})
	m1 := w.join("g", 8, 30)
	w.send("p", "x")
	m2 := w.join("g", 8, 30)
	w.pass(9 * time.Second)
	w.send("p", "y")
	w.expect(m1, "x", "y")
	w.pass(time.Second)
	w.expect(m2, "x*")
	w.send("p", "z")
	w.expect(m2, "z")
	late := w.ids[m1]["x"]
	if w.hub.Ack(m1, late, delivery.Applied, "", w.now) {
		t.Error("the member that was too slow can still acknowledge")
	}
	w.ack(m1, "y", delivery.Applied)
	w.outcome("y", event.Acknowledged)
	w.ack(m2, "x", delivery.Applied)
	w.outcome("x", event.Acknowledged)
	// With nobody else there it ends.
	w.hub.Leave(m1, w.now)
	w.pass(10 * time.Second)
	w.outcome("z", event.TimedOut)
}

func TestLeaveHandsOver(t *testing.T) {
	w := newWorld(t, delivery.Config{})
	m1 := w.join("g", 2, 30)
	for n := range 4 {
		w.send("p", fmt.Sprint("p", n))
	}
	w.expect(m1, "p0", "p1")
	m2 := w.join("g", 8, 30)
	w.hub.Leave(m1, w.now)
	w.hub.Leave(m1, w.now) // again changes nothing
	w.expect(m2, "p0*", "p1*", "p2", "p3")
}

func TestRestartOfTheOnlyMember(t *testing.T) {
	w := newWorld(t, delivery.Config{Linger: 5 * time.Second})
	m1 := w.join("g", 8, 30)
	w.send("p", "x")
	w.hub.Leave(m1, w.now)
	w.send("p", "y")
	w.pass(4 * time.Second)
	m2 := w.join("g", 8, 30)
	w.expect(m2, "x*", "y")
	w.hub.Leave(m2, w.now)
	w.pass(5 * time.Second)
	w.outcome("x", event.NoSubscriber)
	w.outcome("y", event.NoSubscriber)
}

func TestNobodySubscribes(t *testing.T) {
	w := newWorld(t, delivery.Config{Linger: 5 * time.Second, Parked: 2})
	w.send("p", "x")
	w.pass(time.Second)
	w.send("p", "y")
	w.send("p", "z")
	w.outcome("z", event.Busy)
	w.pass(4 * time.Second)
	w.outcome("x", event.NoSubscriber)
	w.join("other", 8, 31)
	m := w.join("g", 8, 30)
	w.expect(m, "y")
	w.gossip("g1")
	w.hub.Leave(m, w.now)
}

func TestGossipIsSharedAndBounded(t *testing.T) {
	w := newWorld(t, delivery.Config{Gossip: 2})
	w.gossip("nobody")
	if w.drop["nobody"] != delivery.DropNoSubscriber {
		t.Errorf("gossip that nobody wants: %q", w.drop["nobody"])
	}
	m1, m2 := w.join("g", 2, 30), w.join("g", 2, 30)
	for n := range 5 {
		w.gossip(fmt.Sprint("m", n))
	}
	w.expect(m1, "m0")
	w.expect(m2, "m1") // half of what each takes
	if w.drop["m2"] != delivery.DropOverflow || len(w.drop) != 2 {
		t.Errorf("dropped: %v", w.drop)
	}
	w.send("p", "x") // there is room for what is directed
	w.expect(m1, "x")
	w.ack(m2, "m1", delivery.Applied)
	w.expect(m2, "m3")
	w.pass(10 * time.Second) // nobody answers: m0 is tried once more, where there is room
	w.pass(30 * time.Second)
	if w.drop["m0"] != delivery.DropTimeout {
		t.Errorf("dropped: %v", w.drop)
	}
	if _, ok := w.done["m0"]; ok {
		t.Error("gossip has no outcome")
	}
}

func TestGossipIsBoundedInBytes(t *testing.T) {
	w := newWorld(t, delivery.Config{GossipSize: 100})
	m := w.join("g", 2, 30)
	for n := range 5 {
		w.hub.Offer(&delivery.Item{Topic: "metrics", Type: 2, Size: 40, Value: fmt.Sprint("m", n)}, w.now)
	}
	w.expect(m, "m0")
	if len(w.drop) != 2 || w.drop["m1"] != delivery.DropOverflow || w.drop["m2"] != delivery.DropOverflow {
		t.Errorf("dropped: %v", w.drop)
	}
}

func TestMembersThatWantDifferentTypes(t *testing.T) {
	w := newWorld(t, delivery.Config{})
	old, fresh := w.join("g", 8, 30), w.join("g", 8, 30, 31)
	w.hub.Offer(&delivery.Item{Sender: "p", Type: 31, Value: "new"}, w.now)
	w.expect(old)
	w.expect(fresh, "new")
	w.send("p", "x")
	w.expect(fresh, "x")
}

func TestIdleSendersAreForgotten(t *testing.T) {
	w := newWorld(t, delivery.Config{IdleLanes: 4})
	m := w.join("g", 8, 30)
	for n := range 100 {
		name := fmt.Sprint(n)
		w.send(name, name)
		w.ack(m, name, delivery.Applied)
	}
	if n := w.hub.Lanes(); n > 5 {
		t.Errorf("%d senders are remembered", n)
	}
}
