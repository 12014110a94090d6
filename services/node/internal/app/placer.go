package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/tracing"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

const statePending = "PENDING"

// TaskPlacer tells the task service where a task goes. A fault says that the task wants none any more, unless it is
// UNAVAILABLE.
type TaskPlacer interface {
	PlaceTask(ctx context.Context, p *taskv1.PlaceTask) error
	PlacementFailed(ctx context.Context, p *taskv1.PlacementFailed) error
}

const (
	maxPending   = 1 << 14 // tasks that wait for a provider; past it the task service tells them again in the next session
	placeAtOnce  = 32      // placements that are being told side by side
	placeEvery   = 500 * time.Millisecond
	sayWhyNot    = 10 * time.Second // the least time between two reasons for the same task
	placeTimeout = 2 * time.Minute  // over Tor it takes some round trips to reach a provider
)

// Placer finds providers for tasks that could not be placed at once, or have to be placed again.
type Placer struct {
	tasks     TaskPlacer
	placement Placement
	log       *slog.Logger
	// Left is told of each task that has left its provider, with those it must not go to again and why. It must not block.
	Left func(task string, excluded map[string]string)
	// PeerName is how details of placements call a peer; nil for domain.ShortPeer.
	PeerName func(id string) string
	Trace    *tracing.Tracer // nil: no spans

	mu      sync.Mutex
	pending map[string]*pendingTask
	kick    chan struct{}
	slots   chan struct{}
}

type pendingTask struct {
	need    domain.Need
	attempt uint32
	busy    bool // being told
	said    *saidWhy
}

// saidWhy is the reason that was given last for there being no provider, "" for none.
type saidWhy struct {
	why string
	at  time.Time
}

// NewPlacer makes a Placer; Run it.
func NewPlacer(tasks TaskPlacer, placement Placement, log *slog.Logger) *Placer {
	return &Placer{tasks: tasks, placement: placement, log: log, Left: func(string, map[string]string) {}, pending: map[string]*pendingTask{},
		kick: make(chan struct{}, 1), slots: make(chan struct{}, placeAtOnce)}
}

// Needed says that a task wants a provider. It does not block.
func (p *Placer) Needed(n *taskv1.PlacementNeeded) {
	need := domain.Need{TaskID: n.GetTaskId(), Type: n.GetType(), Limits: limitsOf(n.GetLimits()), Only: n.GetOnly(), Excluded: n.GetExcluded(), Copies: n.GetCopies(), Job: n.GetJobId(),
		Personas: int(n.GetPersonas()), PeerName: p.PeerName, Efforts: n.GetEfforts(), MaxEffort: n.GetMaxEffort()}
	p.Left(need.TaskID, need.Excluded)
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.pending[need.TaskID]
	if old == nil && len(p.pending) >= maxPending {
		p.log.Warn("too many tasks wait for a provider; some wait for the next session", slog.Int("pending", len(p.pending)))
		return
	}
	t := &pendingTask{need: need, attempt: n.GetAttempt(), said: &saidWhy{}}
	if old != nil {
		t.said = old.said // the old one may be saying it now
	}
	p.pending[need.TaskID] = t
	p.signal()
}

// Settled says that a task wants no provider any more.
func (p *Placer) Settled(task string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pending, task)
}

// Changed says that the view has changed: what could not be placed may be placed now.
func (p *Placer) Changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) > 0 {
		p.signal()
	}
}

// Pending is how many tasks wait for a provider.
func (p *Placer) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending)
}

func (p *Placer) signal() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Run places what is pending until ctx ends, and returns when nothing is being told any more.
func (p *Placer) Run(ctx context.Context) error {
	var telling sync.WaitGroup
	defer telling.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.kick:
		case <-timer.C: // exclusions end, and suspicions, without a word
		}
		for _, t := range p.due() {
			select {
			case p.slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			telling.Go(func() {
				defer func() { <-p.slots }()
				p.place(ctx, t)
			})
		}
		wait := time.Hour
		if p.Pending() > 0 {
			wait = domain.Jitter(placeEvery, nil)
		}
		timer.Reset(wait)
	}
}

func (p *Placer) due() []*pendingTask {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*pendingTask
	for _, t := range p.pending {
		if !t.busy {
			t.busy = true
			out = append(out, t)
		}
	}
	return out
}

func (p *Placer) place(ctx context.Context, t *pendingTask) {
	ctx, cancel := context.WithTimeout(ctx, placeTimeout)
	defer cancel()
	ctx, span := p.Trace.Task(ctx, t.need.TaskID, "task.place")
	defer span.End()
	candidate, why := p.placement.Place(ctx, &t.need)
	if candidate == nil {
		p.sayWhy(ctx, t, why)
		return
	}
	keepers := p.placement.Keepers(&t.need, candidate.GetPeerId())
	err := p.tasks.PlaceTask(ctx, &taskv1.PlaceTask{TaskId: t.need.TaskID, Candidate: candidate, Detail: why.Detail + keepersDetail(&t.need, keepers), Replicas: keepers,
		Choice: choiceOf(why)})
	again := err != nil && transient(err)
	if err != nil {
		p.log.Debug("a placement was not taken", slog.Bool("again", again), logging.Err(err))
	}
	p.done(t, again)
}

// done ends the telling of a placement. The task service may have asked anew meanwhile: then that stays.
func (p *Placer) done(t *pendingTask, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.busy = false
	if !again && p.pending[t.need.TaskID] == t {
		delete(p.pending, t.need.TaskID)
	}
}

// sayWhy puts the reason into the task's history, when it is another one or the last is long ago.
func (p *Placer) sayWhy(ctx context.Context, t *pendingTask, why *domain.Why) {
	p.mu.Lock()
	said := t.said
	news := said.why == "" || why.Detail != said.why && time.Since(said.at) >= sayWhyNot
	if news {
		said.why, said.at = why.Detail, time.Now()
	}
	p.mu.Unlock()
	again := true
	if news {
		err := p.tasks.PlacementFailed(ctx, &taskv1.PlacementFailed{TaskId: t.need.TaskID, Detail: why.Detail, Choice: choiceOf(why)})
		again = err == nil || transient(err)
	}
	p.done(t, again)
}

// transient: the same call may succeed later.
func transient(err error) bool {
	switch fault.From(err).Code.String() {
	case "Unavailable", "DeadlineExceeded", "Canceled", "ResourceExhausted", "Internal":
		return true
	}
	return false
}
