package app_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/kit/crew"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// slowShared is a store that one replica is left of, whose answers to Exchange take a second.
type slowShared struct {
	mu    sync.Mutex
	queue domain.Queue
}

func (*slowShared) Beat(context.Context, time.Duration) (crew.Pulse, error) {
	return crew.Pulse{Leads: true, Replicas: 1}, nil
}

func (*slowShared) Leave(context.Context) (int, error) { return 0, nil }

func (s *slowShared) Exchange(_ context.Context, _ string, m domain.Metric, _ time.Duration, _ uint64) (app.Common, error) {
	s.mu.Lock()
	q := s.queue
	s.mu.Unlock()
	<-time.After(time.Second)
	return app.Common{Hosts: []domain.Metric{m}, Queue: q}, nil
}

func (s *slowShared) SaveQueue(_ context.Context, q domain.Queue) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = q
	return nil
}

func (*slowShared) Listen(ctx context.Context, _ func(left bool)) error {
	<-ctx.Done()
	return nil
}

func (*slowShared) LoadKnown(context.Context) ([]domain.Known, error) { return nil, nil }

func (*slowShared) SaveKnown([]domain.Known, []string) {}

// What node says of the queue while the store is asked is not undone by the store's answer, which is of before.
func TestAnOlderAnswerDoesNotUndoTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &slowShared{}
		n := newSim(t).add()
		svc, err := app.New(t.Context(), app.Config{Host: n, Events: n, Versions: n.versions, Shared: shared, HostID: "host", Sample: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- svc.Run(ctx) }()
		here, elsewhere := domain.Queue{Running: 1, Slots: 4}, domain.Queue{Running: 2, Slots: 4}
		report := func() {
			t.Helper()
			if err := svc.ReportQueue(t.Context(), here); err != nil {
				t.Fatal(err)
			}
		}
		report()
		pass(10 * time.Second)
		if err := shared.SaveQueue(t.Context(), elsewhere); err != nil { // at another replica, by another process of the node
			t.Fatal(err)
		}
		<-time.After(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute + 1500*time.Millisecond))) // the store is being asked
		report()
		pass(10 * time.Second)
		got, err := svc.Get("")
		if err != nil || got.Metric.Queue != here {
			t.Errorf("the queue is %+v, %v; want %+v, what node has said last", got.Metric.Queue, err, here)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
