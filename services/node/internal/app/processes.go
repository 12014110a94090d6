package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// States of a process, as node sees it.
const (
	ProcessServing     = "serving"
	ProcessNotServing  = "not_serving"
	ProcessUnreachable = "unreachable"
)

// Prober looks at one of the node's other processes.
type Prober interface {
	// WatchHealth gives its health now and at every change; it returns when the stream broke.
	WatchHealth(ctx context.Context, serving func(bool)) error
	// PID asks which process it is.
	PID(ctx context.Context) (int64, error)
}

// Process is one of the node's processes.
type Process struct {
	Name   string
	PID    int64
	State  string
	Detail string // why it is not serving
}

// Usage is what a process uses.
type Usage struct {
	StartedAt time.Time     // zero: not known
	Memory    uint64        // resident bytes
	CPU       time.Duration // since its start
}

// Processes watches over the processes that node calls, so that asking for their health costs no call.
type Processes struct {
	probers map[string]Prober
	order   []string
	log     *slog.Logger
	// Ready is told whether all are serving, at every change. It must not block.
	Ready func(bool)

	mu    sync.Mutex
	state map[string]*Process
	ready bool
}

// NewProcesses makes one for the named processes; Run it.
func NewProcesses(order []string, probers map[string]Prober, log *slog.Logger) *Processes {
	p := &Processes{probers: probers, order: order, log: log, Ready: func(bool) {}, state: map[string]*Process{}}
	for _, name := range order {
		p.state[name] = &Process{Name: name, State: ProcessUnreachable, Detail: "it has not answered yet"}
	}
	return p
}

// Run watches until ctx ends.
func (p *Processes) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, name := range p.order {
		wg.Go(func() {
			again(ctx, p.log, "the health of "+name, func(ctx context.Context) error {
				err := p.probers[name].WatchHealth(ctx, func(ok bool) { p.health(ctx, name, ok) })
				if ctx.Err() == nil {
					p.set(name, ProcessUnreachable, 0, "it does not answer: "+fault.From(err).Message)
				}
				return err
			})
		})
	}
	wg.Wait()
	return nil
}

func (p *Processes) health(ctx context.Context, name string, serving bool) {
	p.mu.Lock()
	pid := p.state[name].PID
	p.mu.Unlock()
	for try := 0; pid == 0 && try < 3 && ctx.Err() == nil; try++ { // a new one: a restart breaks the watch
		call, cancel := context.WithTimeout(ctx, time.Second)
		if got, err := p.probers[name].PID(call); err == nil {
			pid = got
		}
		cancel()
	}
	if serving {
		p.set(name, ProcessServing, pid, "")
		return
	}
	p.set(name, ProcessNotServing, pid, "it is up, and says that it or something that it needs is not ready")
}

func (p *Processes) set(name, state string, pid int64, detail string) {
	p.mu.Lock()
	s := p.state[name]
	if s.State != state {
		p.log.Debug("a process of the node", slog.String("name", name), slog.String("state", state))
	}
	s.State, s.PID, s.Detail = state, pid, detail
	ready := true
	for _, s := range p.state {
		ready = ready && s.State == ProcessServing
	}
	changed := ready != p.ready
	p.ready = ready
	p.mu.Unlock()
	if changed {
		p.Ready(ready)
	}
}

// List is every watched process and whether all are serving.
func (p *Processes) List() ([]Process, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Process, 0, len(p.order))
	for _, name := range p.order {
		out = append(out, *p.state[name])
	}
	return out, p.ready
}
