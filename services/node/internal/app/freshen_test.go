package app

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// crowded is a consumer with 30 providers, most of which it is not connected to.
func crowded(t *testing.T, prepare func(i int, s *station), f func(t *testing.T, e *ether, c *Consumer)) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		first := e.add()
		for i := range 29 {
			s := e.add()
			prepare(i, s)
			first.knows = append(first.knows, s)
		}
		joined(t, e, []*station{first}, nil, func(t *testing.T, c *Consumer) {
			after(time.Minute)
			if n := c.availableNow(); n != 30 {
				t.Fatalf("it knows %d of 30 providers", n)
			}
			f(t, e, c)
		})
	})
}

func timed(t *testing.T, c *Consumer, need *domain.Need) (at, detail string, took time.Duration) {
	t.Helper()
	began := time.Now()
	p, why := c.Place(t.Context(), need)
	if p == nil {
		t.Fatalf("no place: %s", why.Detail)
	}
	return p.GetPeerId(), why.Detail, time.Since(began)
}

// Among strangers half of which are busy, a busy one is chosen as often as both that were drawn are busy, and not every other time.
func TestPlaceAsksThoseThatItHasDrawn(t *testing.T) {
	crowded(t, func(i int, s *station) { s.running = uint32(i % 2 * 8) }, func(t *testing.T, e *ether, c *Consumer) {
		busy := 0
		const tasks = 300
		for range tasks {
			at, _, took := timed(t, c, &domain.Need{Type: "sum"})
			e.mu.Lock()
			busy += min(int(e.providers[at].running), 1)
			e.mu.Unlock()
			if took > 10*time.Millisecond {
				t.Fatalf("asking providers that answer at once took %v", took)
			}
			after(time.Second)
		}
		if busy > tasks*32/100 { // 24 in 100, give or take 2.5
			t.Errorf("%d of %d tasks went to a busy provider", busy, tasks)
		}
	})
}

func TestWhereMetricsAreFreshNobodyIsAskedAndNothingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a := e.add()
		a.knows = []*station{e.add(), e.add()}
		joined(t, e, []*station{a}, nil, func(t *testing.T, c *Consumer) {
			after(time.Minute)
			for range 50 {
				e.mu.Lock()
				asked := e.questions[eventv1.EventType_EVENT_TYPE_METRIC_QUERY]
				e.mu.Unlock()
				_, _, took := timed(t, c, &domain.Need{Type: "sum"})
				e.mu.Lock()
				if now := e.questions[eventv1.EventType_EVENT_TYPE_METRIC_QUERY]; took > 0 || now > asked {
					t.Errorf("a placement took %v and %d questions", took, now-asked)
				}
				e.mu.Unlock()
				after(7 * time.Second)
			}
		})
	})
}

func TestWhoDoesNotAnswerIsPassedOver(t *testing.T) {
	crowded(t, func(i int, s *station) { s.mum = i%3 > 0 }, func(t *testing.T, e *ether, c *Consumer) {
		mum := 0
		for range 50 {
			at, _, took := timed(t, c, &domain.Need{Type: "sum"})
			e.mu.Lock()
			if e.providers[at].mum {
				mum++
			}
			e.mu.Unlock()
			if took > freshRounds*freshWithin {
				t.Errorf("a placement took %v", took)
			}
			after(time.Second)
		}
		if mum > 10 { // where all of the four that were asked are
			t.Errorf("%d of 50 tasks went to a provider that does not answer, though others do", mum)
		}
	})
}

// A task is never left without a provider because nobody says how busy it is, and it is not asked again for each task.
func TestWhereNobodyAnswersOneIsChosenAllTheSame(t *testing.T) {
	crowded(t, func(_ int, s *station) { s.mum = true }, func(t *testing.T, _ *ether, c *Consumer) {
		var all time.Duration
		for range 100 {
			_, detail, took := timed(t, c, &domain.Need{Type: "sum"})
			if took > freshRounds*freshWithin {
				t.Errorf("a placement took %v", took)
			}
			if all += took; took > 0 && !strings.Contains(detail, "did not say in time") {
				t.Errorf("the reason is %q", detail)
			}
		}
		if all > 16*freshRounds*freshWithin {
			t.Errorf("a hundred tasks one after the other waited for %v", all)
		}
	})
}

// asker is a metric service, and the dialler.
type asker struct {
	MetricTable
	mu    sync.Mutex
	mum   map[string]bool
	asked []string
}

func (a *asker) Connect(_ context.Context, peer string, _ []string) (string, error) { return peer, nil }

func (a *asker) Refresh(ctx context.Context, peer string, within time.Duration) (*metricv1.KnownMetric, error) {
	a.mu.Lock()
	a.asked = append(a.asked, peer)
	mum := a.mum[peer]
	a.mu.Unlock()
	if mum {
		sleep(ctx, within)
		return nil, nil //nolint:nilnil // the port's word for no answer
	}
	return &metricv1.KnownMetric{Metric: &eventv1.Metric{PeerId: peer, Version: 2, Interval: durationpb.New(time.Hour), Queue: &eventv1.Queue{Slots: 4, Running: 3}}}, nil
}

func TestAProviderAsksItsCandidatesOnlyWhenItIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asker{mum: map[string]bool{}}
		p := NewProvider(nil, a, nil, a, discard)
		p.self = &taskv1.DescribeResponse{Evaluator: twoChoices, CandidatesWanted: 2}
		p.queue = &eventv1.Queue{Slots: 4, Running: 3}
		for i := range 12 {
			id := strings.Repeat(string(rune('a'+i)), 8)
			p.rows[id] = &domain.Provider{State: domain.StateAvailable, Announcement: domain.Announcement{PeerID: id, Signed: &eventv1.Event{}, Capabilities: []domain.Capability{{Type: "sum"}}}}
			a.mum[id] = i%2 == 0
		}
		if got := p.Candidates(t.Context(), &domain.Need{Type: "sum"}); len(got) != 2 || len(a.asked) != 0 {
			t.Errorf("with a free slot it asked %d and has %d candidates", len(a.asked), len(got))
		}
		p.queue = &eventv1.Queue{Slots: 4, Running: 4}
		for range 40 {
			began := time.Now()
			for _, c := range p.Candidates(t.Context(), &domain.Need{Type: "sum"}) {
				if a.mum[c.GetPeerId()] || c.GetMetric().GetQueue().GetRunning() != 3 || c.GetMetricAge().AsDuration() > freshEnough {
					t.Errorf("a candidate is %v", c)
				}
			}
			if took := time.Since(began); took > freshRounds*freshWithin {
				t.Errorf("finding candidates took %v", took)
			}
		}
		if len(a.asked) > 40 {
			t.Errorf("of 12 others whose answers are fresh, or who were silent just now, %d were asked", len(a.asked))
		}
	})
}
