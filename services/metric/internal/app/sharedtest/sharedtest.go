// Package sharedtest is what every store that replicas share must do.
package sharedtest

import (
	"context"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// Run tests what two replicas see of each other over one store. open makes an empty one, each time another.
func Run(t *testing.T, open func(t *testing.T) (one, two app.Shared)) {
	t.Run("one of them leads", func(t *testing.T) { lead(t, open) })
	t.Run("each host counts once", func(t *testing.T) { hosts(t, open) })
	t.Run("the queue and the version are common", func(t *testing.T) { common(t, open) })
	t.Run("what is known is kept", func(t *testing.T) { known(t, open) })
	t.Run("what one is told the other hears", func(t *testing.T) { news(t, open) })
}

func lead(t *testing.T, open func(t *testing.T) (one, two app.Shared)) {
	one, two := open(t)
	for i, s := range []app.Shared{one, two, one} {
		if p, err := s.Beat(t.Context(), time.Minute); err != nil || p.Leads != (s == one) || p.Replicas != min(i+1, 2) {
			t.Fatalf("beat %d: %+v, %v", i, p, err)
		}
	}
	if others, err := one.Leave(t.Context()); err != nil || others != 1 {
		t.Fatalf("Leave = %d, %v", others, err)
	}
	if p, err := two.Beat(t.Context(), time.Minute); err != nil || !p.Leads {
		t.Fatalf("after the leader has left: %+v, %v", p, err)
	}
}

func metric(threads uint32) domain.Metric {
	return domain.Metric{CPU: domain.CPU{Threads: threads, Model: "model"}, GPUs: []domain.GPU{{Model: "gpu", Memory: 1}}}
}

func exchange(t *testing.T, s app.Shared, host string, threads uint32, keep time.Duration, want ...uint32) app.Common {
	t.Helper()
	got, err := s.Exchange(t.Context(), host, metric(threads), keep, 0)
	if err != nil {
		t.Fatal(err)
	}
	var have []uint32
	for _, h := range got.Hosts {
		have = append(have, h.CPU.Threads)
		if h.CPU.Model != "model" || len(h.GPUs) != 1 {
			t.Errorf("a host is %+v", h)
		}
	}
	if len(have) != len(want) {
		t.Fatalf("the hosts have %v threads, want %v", have, want)
	}
	for i := range want {
		if have[i] != want[i] {
			t.Fatalf("the hosts have %v threads, want %v", have, want)
		}
	}
	return got
}

func hosts(t *testing.T, open func(t *testing.T) (one, two app.Shared)) {
	one, two := open(t)
	exchange(t, one, "a", 1, time.Minute, 1)
	exchange(t, two, "b", 2, time.Minute, 1, 2)
	exchange(t, two, "a", 7, time.Minute, 1, 2) // one measures a already
	exchange(t, one, "a", 3, time.Microsecond, 2)
	exchange(t, two, "a", 7, time.Minute, 7, 2) // it has fallen silent
	exchange(t, one, "a", 3, time.Minute, 7, 2)
}

func common(t *testing.T, open func(t *testing.T) (one, two app.Shared)) {
	one, two := open(t)
	q := domain.Queue{Pending: 1, Running: 2, Slots: 3, Capacity: 4}
	if err := one.SaveQueue(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, two, "b", 2, time.Minute, 2); got.Queue != q || got.Version != 0 {
		t.Errorf("the other knows %+v, %d", got.Queue, got.Version)
	}
	for _, version := range []uint64{9, 5, 0} {
		if _, err := one.Exchange(t.Context(), "a", metric(1), time.Minute, version); err != nil {
			t.Fatal(err)
		}
	}
	if err := two.SaveQueue(t.Context(), domain.Queue{}); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, two, "b", 2, time.Minute, 1, 2); got.Queue != (domain.Queue{}) || got.Version != 9 {
		t.Errorf("the other knows %+v, %d", got.Queue, got.Version)
	}
}

func known(t *testing.T, open func(t *testing.T) (one, two app.Shared)) {
	one, two := open(t)
	k := func(id string, version uint64) domain.Known {
		m := metric(4)
		m.PeerID, m.Version, m.Interval = id, version, time.Minute
		return domain.Known{Metric: m, ReceivedAt: time.UnixMicro(1_700_000_000_000_000 + int64(version))}
	}
	one.SaveKnown([]domain.Known{k("p1", 1), k("p2", 2)}, nil)
	one.SaveKnown([]domain.Known{k("p1", 3)}, []string{"p2", "p3"})
	if err := one.SaveQueue(t.Context(), domain.Queue{}); err != nil { // what was queued before it is written with it
		t.Fatal(err)
	}
	got, err := two.LoadKnown(t.Context())
	if err != nil || len(got) != 1 || got[0].PeerID != "p1" || got[0].Version != 3 || !got[0].ReceivedAt.Equal(k("p1", 3).ReceivedAt) {
		t.Errorf("LoadKnown = %+v, %v", got, err)
	}
}

func news(t *testing.T, open func(t *testing.T) (one, two app.Shared)) {
	one, two := open(t)
	heard := make(chan bool, 64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- two.Listen(ctx, func(left bool) { heard <- left }) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	expect := func(what string, want bool) {
		t.Helper()
		select {
		case left := <-heard:
			if left != want {
				t.Fatalf("%s: left is %v", what, left)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s was not heard of", what)
		}
	}
	expect("the beginning", false)
	for range 2 { // the second time it is no news
		if err := one.SaveQueue(t.Context(), domain.Queue{Pending: 1}); err != nil {
			t.Fatal(err)
		}
	}
	expect("the queue", false)
	if _, err := one.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("the leave", true)
}
