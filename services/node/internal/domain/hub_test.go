package domain

import (
	"sync"
	"testing"
)

func up(id string, revision uint64, terminal bool) Update[int] {
	return Update[int]{ID: id, Revision: revision, Terminal: terminal, Value: int(revision)}
}

func TestHubSlowWatcherGetsTheLatest(t *testing.T) {
	h := NewHub[int](10)
	w, other := h.Watch("a"), h.Watch("b")
	for r := range uint64(1000) {
		h.Publish(up("a", r+1, false))
	}
	<-w.Changed()
	if u, fresh, resync := w.Next(); !fresh || resync || u.Revision != 1000 {
		t.Fatalf("got %+v, %v, %v", u, fresh, resync)
	}
	if _, fresh, _ := w.Next(); fresh {
		t.Error("it was told twice")
	}
	h.Publish(up("a", 999, true)) // late
	if _, fresh, _ := w.Next(); fresh {
		t.Error("it was told of an older state")
	}
	select {
	case <-other.Changed():
		t.Error("the other was told")
	default:
	}
}

func TestHubResync(t *testing.T) {
	h := NewHub[int](10)
	w := h.Watch("a")
	h.Resync()
	<-w.Changed()
	if _, fresh, resync := w.Next(); fresh || !resync {
		t.Fatal("it does not know that it may have missed something")
	}
	w.Offer(up("a", 3, false))
	h.Publish(up("a", 2, false))
	if u, fresh, resync := w.Next(); !fresh || resync || u.Revision != 3 {
		t.Errorf("got %+v, %v, %v", u, fresh, resync)
	}
}

func TestHubIsBoundedAndForgets(t *testing.T) {
	h := NewHub[int](2)
	a, b := h.Watch("a"), h.Watch("a")
	if h.Watch("a") != nil {
		t.Fatal("a third watch")
	}
	a.Close()
	a.Close()
	b.Close()
	if h.Count() != 0 || len(h.watches) != 0 {
		t.Errorf("%d watches are left", h.Count())
	}
	h.Publish(up("a", 1, false))
}

func TestHubConcurrently(t *testing.T) {
	h := NewHub[int](64)
	var wg sync.WaitGroup
	for range 32 {
		w := h.Watch("a")
		wg.Go(func() {
			defer w.Close()
			for {
				<-w.Changed()
				if u, fresh, _ := w.Next(); fresh && u.Terminal {
					return
				}
			}
		})
	}
	for r := range uint64(500) {
		wg.Go(func() { h.Publish(up("a", r+1, false)) })
	}
	h.Publish(up("a", 501, true))
	wg.Wait()
}
