package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// Figures are what the node's processes say of themselves. Counters count from a process's start.
type Figures struct {
	Waiting, Running uint32 // provider: its queue
	Finished, Failed float64
	Runs             []Bucket // provider: how long programs ran
	CPU              time.Duration
	Memory, Used     uint64
}

// Bucket counts what took no longer than Most.
type Bucket struct {
	Most  time.Duration
	Count float64
}

// HistorySource says what the figures are now.
type HistorySource interface {
	Figures(ctx context.Context) (Figures, error)
	// Free is how many bytes the file system of the home has left; 0: not known.
	Free() uint64
}

// HistoryStore keeps points over restarts.
type HistoryStore interface {
	Append(p domain.Point) error
}

// OpenTasks lists tasks that have not ended.
type OpenTasks interface {
	// OpenStates are the states of tasks that have not ended, by id, some thousand at most.
	OpenStates(ctx context.Context) (map[string]string, error)
}

// History is what this node did lately. On a consumer it hears of tasks; a provider's figures are its task service's.
type History struct {
	source HistorySource
	store  HistoryStore // nil: in memory alone
	open   OpenTasks    // nil on a provider
	log    *slog.Logger

	mu     sync.Mutex
	series domain.History
	tally  *domain.Tally
	last   *Figures
	at     time.Time
	seed   bool
}

// NewHistory makes one; open is nil on a provider.
func NewHistory(source HistorySource, open OpenTasks, log *slog.Logger) *History {
	return &History{source: source, open: open, log: log, tally: domain.NewTally(), seed: open != nil}
}

// Keep has it begin with the points of before, and give those to come to store. Before Run.
func (h *History) Keep(store HistoryStore, before []domain.Point) {
	h.store = store
	for _, p := range before {
		h.series.Add(p)
	}
}

// TaskChanged hears of a task.
func (h *History) TaskChanged(t *taskv1.Task) {
	if h.open == nil {
		return
	}
	took := max(t.GetFinishedAt().AsTime().Sub(t.GetCreatedAt().AsTime()), 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tally.Changed(t.GetId(), t.GetState(), Terminal(t.GetState()), took, time.Now())
}

// Resync says that changes may have been missed. It does not block.
func (h *History) Resync() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seed = h.open != nil
}

// maxHistory is how many points one answer has.
const maxHistory = 720

// Since returns the points of the last span.
func (h *History) Since(span time.Duration) (step time.Duration, points []domain.Point) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.series.Since(time.Now().Add(-min(span, domain.HistorySpan)), maxHistory)
}

// Run notes a point at each step until ctx ends.
func (h *History) Run(ctx context.Context) error {
	failed := false
	for {
		wait := time.NewTimer(time.Until(time.Now().Truncate(domain.HistoryStep).Add(domain.HistoryStep)))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
		err := h.note(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			h.log.Warn("this node's history lacks points", logging.Err(err))
		}
		failed = err != nil
	}
}

func (h *History) note(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, domain.HistoryStep/2)
	defer cancel()
	h.reseed(ctx)
	now := time.Now()
	f, err := h.source.Figures(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	p := domain.Point{Time: now, Waiting: f.Waiting, Running: f.Running, Memory: f.Memory, Used: f.Used, Free: h.source.Free()}
	waiting, running, took := h.tally.Take(now)
	if h.open != nil {
		p.Waiting, p.Running = waiting, running
		p.P50, p.P99 = domain.Quantile(took, .5), domain.Quantile(took, .99)
	}
	if l := h.last; l != nil {
		p.Finished, p.Failed = grown(l.Finished, f.Finished), grown(l.Failed, f.Failed)
		if d := now.Sub(h.at); d > 0 && f.CPU >= l.CPU {
			p.CPU = float64(f.CPU-l.CPU) / float64(d)
		}
		if h.open == nil {
			p.P50, p.P99 = between(l.Runs, f.Runs, .5), between(l.Runs, f.Runs, .99)
		}
	}
	h.last, h.at = &f, now
	h.series.Add(p)
	h.mu.Unlock()
	if h.store == nil {
		return nil
	}
	return h.store.Append(p)
}

func (h *History) reseed(ctx context.Context) {
	h.mu.Lock()
	wanted := h.seed
	h.seed = false
	h.mu.Unlock()
	if !wanted {
		return
	}
	open, err := h.open.OpenStates(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.seed = true
		return
	}
	h.tally.Seed(open)
}

// grown is by how much a counter has grown; all of it where its process has started anew.
func grown(was, is float64) uint32 {
	if is < was {
		return uint32(is)
	}
	return uint32(is - was)
}

// between is the q-th quantile of what was counted between two looks at a histogram: the bound of the bucket that it is in.
func between(was, is []Bucket, q float64) time.Duration {
	if len(was) != len(is) {
		was = make([]Bucket, len(is))
	}
	if len(is) == 0 {
		return 0
	}
	total := is[len(is)-1].Count - was[len(is)-1].Count
	if total <= 0 {
		return 0
	}
	for i := range is {
		if is[i].Count-was[i].Count >= q*total {
			return is[i].Most
		}
	}
	return is[len(is)-1].Most
}
