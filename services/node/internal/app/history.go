package app

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// Figures are what the node's processes say of themselves.
type Figures struct {
	Waiting, Running uint32 // provider: its queue
	Memory, Used     uint64
	Counts           map[string]Counts // by process; one that was started again is another one, and who did not answer is missing
}

// Counts are what one process has counted since its start.
type Counts struct {
	StartedAt        time.Time // zero: not known
	Finished, Failed float64
	Runs             []Bucket // provider: how long programs ran
	CPU              time.Duration
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
	seen   map[string]seen // by process
	at     time.Time       // of the last point; zero: this process has made none
	seed   bool
}

// seen is what a process said when it answered last.
type seen struct {
	Counts
	at time.Time
}

// forgetAfter is for how long a process is remembered that does not answer.
const forgetAfter = time.Hour

// NewHistory makes one; open is nil on a provider.
func NewHistory(source HistorySource, open OpenTasks, log *slog.Logger) *History {
	return &History{source: source, open: open, log: log, tally: domain.NewTally(), seen: map[string]seen{}, seed: open != nil}
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

// Since returns the points of the last span, and the time of the oldest point that there is, of whichever span; zero where there is none.
func (h *History) Since(span time.Duration) (step time.Duration, points []domain.Point, oldest time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	step, points = h.series.Since(time.Now().Add(-min(span, domain.HistorySpan)), maxHistory)
	return step, points, h.series.Oldest()
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
	runs := h.count(&p, f.Counts, now)
	if h.open == nil {
		p.P50, p.P99 = quantile(runs, .5), quantile(runs, .99)
	}
	h.at = now
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

// count adds to a point what each process has counted since it was heard last, so that one that was silent for a moment, or was started again, is counted once. It returns how long programs
// ran. h.mu is held.
func (h *History) count(p *domain.Point, counts map[string]Counts, now time.Time) map[time.Duration]float64 {
	runs := map[time.Duration]float64{}
	for id, c := range counts {
		was, known := h.seen[id]
		h.seen[id] = seen{c, now}
		if !known {
			if h.at.IsZero() || c.StartedAt.Before(h.at.Add(-domain.HistoryStep)) {
				continue // it has counted since before this process looked
			}
			was.at = h.at
		}
		p.Finished += grown(was.Finished, c.Finished)
		p.Failed += grown(was.Failed, c.Failed)
		if d := now.Sub(was.at); d > 0 && c.CPU > was.CPU {
			p.CPU += float64(c.CPU-was.CPU) / float64(d)
		}
		for i, b := range c.Runs {
			if len(was.Runs) == len(c.Runs) {
				b.Count -= was.Runs[i].Count
			}
			runs[b.Most] += max(b.Count, 0)
		}
	}
	maps.DeleteFunc(h.seen, func(_ string, s seen) bool { return now.Sub(s.at) > forgetAfter })
	return runs
}

// grown is by how much a counter has grown.
func grown(was, is float64) uint32 { return uint32(min(max(is-was, 0), math.MaxUint32)) }

// quantile is the q-th quantile of a histogram, whose buckets count what took no longer: the bound of the bucket that it is in.
func quantile(runs map[time.Duration]float64, q float64) time.Duration {
	bounds := slices.Sorted(maps.Keys(runs))
	if len(bounds) == 0 {
		return 0
	}
	total := runs[bounds[len(bounds)-1]]
	if total <= 0 {
		return 0
	}
	for _, most := range bounds {
		if runs[most] >= q*total {
			return most
		}
	}
	return bounds[len(bounds)-1]
}
