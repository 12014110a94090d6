package crew_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
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
		// While the store is away nobody leads, and each says so once.
		one.set(&shared.away, true)
		<-time.After(time.Minute)
		if a.Leads() || b.Leads() {
			t.Fatal("somebody leads while the store is away")
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
		if b.Leads() {
			t.Error("one that is cut off leads beside another one")
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

// One that is cut off alone stops leading before another one can begin, what it does as the leader ends, and begins again when it is back and nobody has taken its place.
func TestOneThatIsCutOffStepsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &table{there: map[string]time.Time{}}
		one := &member{table: shared, name: "one"}
		l := crew.New(one, crew.Lease, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := run(ctx, l)
		var begun, over atomic.Int32
		doing := make(chan error, 1)
		go func() {
			doing <- l.While(ctx, func(ctx context.Context) error {
				begun.Add(1)
				<-ctx.Done()
				over.Add(1)
				return ctx.Err()
			})
		}()
		<-l.Led()
		synctest.Wait()
		expect := func(leads bool, begins, overs int32) {
			t.Helper()
			synctest.Wait()
			if l.Leads() != leads || begun.Load() != begins || over.Load() != overs {
				t.Fatalf("it leads: %v, it began %d times and ended %d times; want %v, %d, %d", l.Leads(), begun.Load(), over.Load(), leads, begins, overs)
			}
		}
		expect(true, 1, 0)
		<-time.After(crew.Lease) // beats are answered: nothing changes
		expect(true, 1, 0)
		one.set(&one.cut, true)
		shared.mu.Lock()
		free := time.Until(shared.until) // another one may lead from then on
		shared.mu.Unlock()
		<-time.After(free)
		expect(false, 1, 1)
		<-time.After(time.Minute)
		expect(false, 1, 1)
		one.set(&one.cut, false)
		<-time.After(crew.Lease / 2)
		expect(true, 2, 1)
		cancel()
		if err := errors.Join(<-ended, <-doing); err != nil {
			t.Error(err)
		}
		expect(true, 2, 2) // until it leaves
	})
}

// An answer that took longer than the lease says nothing of now.
func TestALateAnswerGivesNoLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &member{table: &table{there: map[string]time.Time{}}, name: "one"}
		slow := &slowMember{member: one, answer: make(chan struct{})}
		l := crew.New(slow, crew.Lease, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := run(ctx, l)
		<-time.After(crew.Lease + time.Millisecond)
		slow.answer <- struct{}{}
		synctest.Wait()
		if l.Leads() {
			t.Error("it leads by an answer to a question that is older than its lease")
		}
		slow.answer <- struct{}{}
		synctest.Wait()
		if !l.Leads() {
			t.Error("it does not lead by an answer that came at once")
		}
		cancel()
		close(slow.answer)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// slowMember's beats are answered when the test says so.
type slowMember struct {
	*member
	answer chan struct{}
}

func (m *slowMember) Beat(ctx context.Context, lease time.Duration) (crew.Pulse, error) {
	p, err := m.member.Beat(ctx, lease)
	<-m.answer
	return p, err
}

func TestWhatFailsWhileItLeadsIsTold(t *testing.T) {
	l := crew.New(nil, crew.Lease, slog.New(slog.DiscardHandler))
	boom := errors.New("boom")
	if err := l.While(t.Context(), func(context.Context) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("it ended with %v", err)
	}
}
