package crew_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/kit/crew"
)

// table is a store in memory that replicas share.
type table struct {
	mu     sync.Mutex
	holder string
	until  time.Time
	there  map[string]time.Time
	away   bool
}

type member struct {
	*table
	name string
	cut  bool // from the store
}

var errAway = errors.New("the store is away")

func (m *member) Beat(_ context.Context, lease time.Duration) (crew.Pulse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away || m.cut {
		return crew.Pulse{}, errAway
	}
	now := time.Now()
	if m.holder == m.name || now.After(m.until) {
		m.holder, m.until = m.name, now.Add(lease)
	}
	m.there[m.name] = now.Add(lease)
	n := 0
	for _, until := range m.there {
		if !until.Before(now) {
			n++
		}
	}
	return crew.Pulse{Leads: m.holder == m.name, Replicas: n}, nil
}

func (m *member) Leave(context.Context) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away || m.cut {
		return 0, errAway
	}
	delete(m.there, m.name)
	if m.holder == m.name {
		m.until = time.Time{}
	}
	return len(m.there), nil
}

func (m *member) set(what *bool, to bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*what = to
}

func run(ctx context.Context, l *crew.Lead) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	return ended
}

func TestASingleReplicaLeads(t *testing.T) {
	l := crew.New(nil, crew.Lease, slog.New(slog.DiscardHandler))
	<-l.Led()
	if !l.Leads() || !l.Leave() {
		t.Error("it does not lead, or is not the last")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestTheLeadGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &table{there: map[string]time.Time{}}
		one, two := &member{table: shared, name: "one"}, &member{table: shared, name: "two"}
		log := slog.New(slog.DiscardHandler)
		a, b := crew.New(one, crew.Lease, log), crew.New(two, crew.Lease, log)
		var store []bool
		b.Store = func(ok bool) { store = append(store, ok) }
		ctx, cancel := context.WithCancel(t.Context())
		endA := run(ctx, a)
		<-a.Led()
		ctxB, cancelB := context.WithCancel(t.Context())
		endB := run(ctxB, b)
		<-time.After(time.Minute)
		if b.Leads() {
			t.Fatal("both lead")
		}
		// While the store is away all stays as it is, and each says so once.
		one.set(&shared.away, true)
		<-time.After(time.Minute)
		if !a.Leads() || b.Leads() {
			t.Fatal("the lead changed while the store was away")
		}
		two.set(&two.cut, true)
		one.set(&shared.away, false)
		<-time.After(2 * time.Second) // the first one takes the lead again
		two.set(&two.cut, false)
		<-time.After(time.Minute)
		synctest.Wait()
		if !a.Leads() || b.Leads() {
			t.Fatal("the lead changed though the one that led came back first")
		}
		if len(store) != 3 || !store[0] || store[1] || !store[2] {
			t.Errorf("the store was said to be %v", store)
		}
		// One that leaves is followed at once, where somebody says so.
		cancel()
		if err := <-endA; err != nil {
			t.Error(err)
		}
		if a.Leave() {
			t.Error("the first one to leave was the last")
		}
		began := time.Now()
		b.Kick()
		<-b.Led()
		if took := time.Since(began); took > 0 {
			t.Errorf("the other one leads after %v", took)
		}
		// One that is cut off from the store for longer than its lease is superseded, and ends.
		c := crew.New(one, crew.Lease, log)
		ctxC, cancelC := context.WithCancel(t.Context())
		defer cancelC()
		endC := run(ctxC, c)
		two.set(&two.cut, true)
		<-c.Led()
		if !b.Leads() {
			t.Error("one that is cut off gave up the lead, and nobody knows whether another can take it")
		}
		two.set(&two.cut, false)
		if err := <-endB; !errors.Is(err, crew.ErrSuperseded) {
			t.Errorf("the superseded one ended with %v", err)
		}
		cancelB()
		cancelC()
		if err := <-endC; err != nil {
			t.Error(err)
		}
		if b.Leave() || !c.Leave() {
			t.Error("who is the last is not known")
		}
	})
}
