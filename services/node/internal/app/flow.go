package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// OnlineTeller tells the task service whether the network can be reached.
type OnlineTeller interface {
	OnlineChanged(ctx context.Context, online bool) error
}

// TaskObserver hears of every task that changes. It must not block.
type TaskObserver interface {
	TaskChanged(t *taskv1.Task)
}

// Flow takes what the task service says, in the order in which it says it, and hands each part to whom it concerns.
// None of its methods blocks: they run where the session is read.
type Flow struct {
	carrier *Carrier
	watches *Watches
	placer  *Placer      // nil on a provider
	tasks   TaskObserver // nil on a provider
	online  OnlineTeller
	log     *slog.Logger

	// Synced is told when a session has told everything. It must not block.
	Synced func()

	mu       sync.Mutex
	isOnline *bool // nil: not known yet
	up       bool
	tell     chan struct{}
}

// NewFlow joins the parts; placer and tasks are nil on a provider.
func NewFlow(carrier *Carrier, watches *Watches, placer *Placer, tasks TaskObserver, online OnlineTeller, log *slog.Logger) *Flow {
	return &Flow{carrier: carrier, watches: watches, placer: placer, tasks: tasks, online: online, log: log, Synced: func() {}, tell: make(chan struct{}, 1)}
}

// Opened says that a new session begins: the first thing that is heard of it.
func (f *Flow) Opened() {
	f.carrier.Begin()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up = false
}

// Lost says that the session broke.
func (f *Flow) Lost(err error) {
	f.mu.Lock()
	was := f.up
	f.up = false
	f.mu.Unlock()
	if !was {
		return
	}
	if why := fault.From(err); why != nil && why.Reason == fault.ReasonShuttingDown { // it ended in order: task stops, or had the session for long enough
		f.log.Debug("the session with the task service ended; it is opened again", logging.Err(err))
		return
	}
	f.log.Warn("the session with the task service broke; it is opened again", logging.Err(err))
}

// Heard takes one response of the session.
func (f *Flow) Heard(r *taskv1.SessionResponse) {
	if len(r.GetOutbox()) > 0 {
		f.carrier.Tell(r.GetOutbox())
	}
	if t := r.GetTask(); t != nil {
		if f.tasks != nil {
			f.tasks.TaskChanged(t)
		}
		f.watches.Publish(TaskUpdate{Task: t, Stdout: r.GetStdout(), HasStdout: r.Stdout != nil})
		if f.placer != nil && t.GetState() != statePending {
			f.placer.Settled(t.GetId())
		}
	}
	if n := r.GetPlacement(); n != nil && f.placer != nil {
		f.placer.Needed(n)
	}
	if r.GetSynced() {
		f.carrier.Synced()
		f.watches.Resync()
		f.mu.Lock()
		f.up = true
		f.mu.Unlock()
		f.signal() // a new task service does not know whether the network can be reached
		f.Synced()
	}
}

// SetOnline notes whether the network can be reached; the task service hears of it.
func (f *Flow) SetOnline(on bool) {
	f.mu.Lock()
	same := f.isOnline != nil && *f.isOnline == on
	f.isOnline = &on
	f.mu.Unlock()
	if !same {
		f.log.Info("network", slog.Bool("online", on))
		f.signal()
	}
}

// Online is what SetOnline noted last.
func (f *Flow) Online() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isOnline != nil && *f.isOnline
}

func (f *Flow) signal() {
	select {
	case f.tell <- struct{}{}:
	default:
	}
}

// Run tells the task service whether the network can be reached, at every change and in every session, until ctx ends.
func (f *Flow) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.tell:
		}
		f.mu.Lock()
		up, on := f.up, f.isOnline
		f.mu.Unlock()
		if !up || on == nil {
			continue // the end of the telling signals again
		}
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := f.online.OnlineChanged(call, *on)
		cancel()
		if err != nil && ctx.Err() == nil {
			f.log.Debug("the task service did not hear whether the node is online", logging.Err(err))
			sleep(ctx, 200*time.Millisecond)
			f.signal()
		}
	}
}
