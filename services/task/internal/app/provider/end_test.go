package provider

import (
	"context"
	"sync"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// emptyStore is a journal with nothing in it.
type emptyStore struct{ Store }

func (emptyStore) Entry(context.Context, domain.EntryKey) (*domain.Entry, error) {
	return nil, app.ErrNotFound
}

func (emptyStore) Entries(context.Context, string) ([]*domain.Entry, error) { return nil, nil }

// What comes while the process ends begins nothing, and a cancel is not taken for heard.
func TestNothingBeginsAtTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &Service{cfg: Config{Store: emptyStore{}}, ctx: ctx, cancel: cancel, stopping: true, perPeer: map[string]int{}, turns: newTurns(), watch: app.NewWatchers(), held: map[domain.EntryKey]*held{}}
	s.letter = &letter{s: s}
	key := domain.EntryKey{Consumer: "c", TaskID: "t", Attempt: 1}
	h := &held{key: key, settled: make(chan struct{}), stop: func() {}}
	s.held[key], s.queue = h, []*held{h}
	r := s.onCancel(ctx, &app.Delivery{From: "c"}, domain.Ref{TaskID: "t", Attempt: 1})
	if r.Delivered == nil || r.Delivered.Verdict != app.Again {
		t.Errorf("the cancel is answered with %+v", r.Delivered)
	}
	cancel()
	var deliveries sync.WaitGroup
	for range 8 {
		deliveries.Go(func() { s.letter.add([]domain.EntryKey{key}) })
	}
	s.letter.close()
	deliveries.Wait()
	s.letter.add([]domain.EntryKey{key})
	if s.letter.close(); s.letter.busy {
		t.Error("letting go has begun after the end")
	}
}
