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

func TestHistoryOfAConsumer(t *testing.T) {
	p := &past{f: Figures{Finished: 10, CPU: time.Second, Memory: 5, Used: 6}, open: map[string]string{"a": "PENDING", "b": "RUNNING"}}
	during(t, p, p, func(h *History) {
		step()
		now := time.Now()
		h.TaskChanged(&taskv1.Task{Id: "a", State: "COMPLETED", CreatedAt: timestamppb.New(now.Add(-3 * time.Second)), FinishedAt: timestamppb.New(now)})
		p.set(func() { p.f.Finished, p.f.Failed, p.f.CPU = 12, 1, 6*time.Second })
		step()
		p.set(func() { p.broken = errors.New("away") }) // no point, and no end
		step()
		p.set(func() { p.broken, p.f = nil, Figures{Finished: 2} }) // its processes have started again
		step()
		_, points := h.Since(time.Hour)
		if len(points) != 4 || len(p.kept) != 3 || points[0].Finished != 3 {
			t.Fatalf("%d points, %d kept: %+v", len(points), len(p.kept), points)
		}
		if x := points[1]; x.Waiting != 1 || x.Running != 1 || x.Finished != 0 || x.Memory != 5 || x.Used != 6 || x.Free != 7 {
			t.Errorf("the first is %+v", x)
		}
		if x := points[2]; x.Waiting != 0 || x.Running != 1 || x.Finished != 2 || x.Failed != 1 || x.P50 != 3*time.Second || x.CPU != .5 {
			t.Errorf("the second is %+v", x)
		}
		if x := points[3]; x.Finished != 2 || x.CPU != 0 || x.P99 != 0 {
			t.Errorf("the last is %+v", x)
		}
	})
}

func TestHistoryOfAProvider(t *testing.T) {
	buckets := func(n float64) []Bucket { return []Bucket{{time.Millisecond, 5}, {time.Second, 5 + n}} }
	p := &past{f: Figures{Waiting: 4, Running: 2, Runs: buckets(0)}}
	during(t, p, nil, func(h *History) {
		step()
		h.TaskChanged(&taskv1.Task{Id: "a", State: "COMPLETED"}) // its figures are its task service's
		p.set(func() { p.f.Runs = buckets(8) })
		step()
		_, points := h.Since(30 * time.Second)
		if len(points) != 2 || points[0].P50 != 0 || points[1].P50 != time.Second || points[1].Waiting != 4 || points[1].Running != 2 {
			t.Errorf("the points are %+v", points)
		}
	})
}
