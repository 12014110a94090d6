package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// past is what a History has its figures from, and what it writes.
type past struct {
	mu     sync.Mutex
	f      Figures
	broken error
	kept   []domain.Point
	open   map[string]string
}

func (p *past) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *past) Figures(context.Context) (Figures, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.f, p.broken
}
func (*past) Free() uint64                                            { return 7 }
func (p *past) Append(x domain.Point) error                           { p.kept = append(p.kept, x); return nil }
func (p *past) OpenStates(context.Context) (map[string]string, error) { return p.open, nil }

func during(t *testing.T, p *past, open OpenTasks, f func(h *History)) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHistory(p, open, slog.New(slog.DiscardHandler))
		h.Keep(p, []domain.Point{{Time: time.Now().Add(-time.Minute), Finished: 3}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = h.Run(ctx) }()
		f(h)
		cancel()
		<-done
	})
}

func step() {
	time.Sleep(domain.HistoryStep) //nolint:forbidigo // virtual time
	synctest.Wait()
}

// counts are those of one process.
func counts(c Counts) map[string]Counts { return map[string]Counts{"task": c} }

func TestHistoryOfAConsumer(t *testing.T) {
	p := &past{f: Figures{Counts: counts(Counts{Finished: 10, CPU: time.Second}), Memory: 5, Used: 6}, open: map[string]string{"a": "PENDING", "b": "RUNNING"}}
	during(t, p, p, func(h *History) {
		step()
		now := time.Now()
		h.TaskChanged(&taskv1.Task{Id: "a", State: "COMPLETED", CreatedAt: timestamppb.New(now.Add(-3 * time.Second)), FinishedAt: timestamppb.New(now)})
		p.set(func() { p.f.Counts = counts(Counts{Finished: 12, Failed: 1, CPU: 6 * time.Second}) })
		step()
		p.set(func() { p.broken = errors.New("away") }) // no point, and no end
		step()
		p.set(func() { p.broken = nil })
		step()
		_, points, oldest := h.Since(time.Hour)
		if len(points) != 4 || len(p.kept) != 3 || points[0].Finished != 3 || !oldest.Equal(points[0].Time) {
			t.Fatalf("%d points since %v, %d kept: %+v", len(points), oldest, len(p.kept), points)
		}
		if x := points[1]; x.Waiting != 1 || x.Running != 1 || x.Finished != 0 || x.Memory != 5 || x.Used != 6 || x.Free != 7 {
			t.Errorf("the first is %+v", x)
		}
		if x := points[2]; x.Waiting != 0 || x.Running != 1 || x.Finished != 2 || x.Failed != 1 || x.P50 != 3*time.Second || x.CPU != .5 {
			t.Errorf("the second is %+v", x)
		}
		if x := points[3]; x.Finished != 0 || x.CPU != 0 || x.P99 != 0 {
			t.Errorf("the last is %+v", x)
		}
	})
}

func TestHistoryOfAProvider(t *testing.T) {
	buckets := func(n float64) map[string]Counts {
		return counts(Counts{Runs: []Bucket{{time.Millisecond, 5}, {time.Second, 5 + n}}})
	}
	p := &past{f: Figures{Waiting: 4, Running: 2, Counts: buckets(0)}}
	during(t, p, nil, func(h *History) {
		step()
		h.TaskChanged(&taskv1.Task{Id: "a", State: "COMPLETED"}) // its figures are its task service's
		p.set(func() { p.f.Counts = buckets(8) })
		step()
		_, points, _ := h.Since(30 * time.Second)
		if len(points) != 2 || points[0].P50 != 0 || points[1].P50 != time.Second || points[1].Waiting != 4 || points[1].Running != 2 {
			t.Errorf("the points are %+v", points)
		}
	})
}

// One of several processes that says nothing for a moment, or is started again, or joins, is counted once: what the others have counted before is not news.
func TestHistoryOfProcessesThatComeAndGo(t *testing.T) {
	a, b := Counts{Finished: 1000, CPU: time.Hour}, Counts{Finished: 2000, CPU: time.Hour}
	p := &past{f: Figures{Counts: map[string]Counts{"a": a, "b": b}}}
	during(t, p, nil, func(h *History) {
		is := func(what string, finished uint32, cpu float64) {
			t.Helper()
			step()
			_, points, _ := h.Since(5 * time.Second)
			if x := points[len(points)-1]; x.Finished != finished || x.CPU != cpu {
				t.Errorf("%s: %d tasks and %v processors, want %d and %v", what, x.Finished, x.CPU, finished, cpu)
			}
		}
		say := func(counts map[string]Counts) { p.set(func() { p.f.Counts = counts }) }
		is("at first", 0, 0)
		a.Finished++
		say(map[string]Counts{"a": a})
		is("one is silent", 1, 0)
		b.Finished, b.CPU = b.Finished+4, b.CPU+10*time.Second
		say(map[string]Counts{"a": a, "b": b})
		is("it is back", 4, .5) // of twenty seconds
		say(map[string]Counts{"a": a, "b again": {StartedAt: time.Now().Add(time.Second), Finished: 3, CPU: 5 * time.Second}})
		is("it was started again", 3, .5)
		say(map[string]Counts{"a": a, "c": {StartedAt: time.Now().Add(-time.Hour), Finished: 700, CPU: time.Hour}})
		is("one that is not new is heard for the first time", 0, 0)
	})
}
