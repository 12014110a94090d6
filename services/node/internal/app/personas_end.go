package app

import (
	"context"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

func (p *Personas) sweeping(ctx context.Context) {
	for wait(ctx, domain.Jitter(personaSweep, nil), nil) {
		if err := p.sweep(ctx); err != nil && ctx.Err() == nil {
			p.log.Debug("personas could not be looked through", logging.Err(err))
		}
	}
}

// sweep closes what nothing needs, also what an earlier life of this process has left: of that nothing is known but whether a task needs it.
func (p *Personas) sweep(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, personaCall)
	defer cancel()
	used, err := p.use.PersonasInUse(call)
	if err != nil {
		if fault.From(err).Reason == reasonNotCarrying {
			p.standBack()
			return nil
		}
		return err
	}
	p.mu.Lock()
	began := !p.carries
	p.carries = true
	p.mu.Unlock()
	if began {
		kick(p.kick)
	}
	p.beatFor(ctx, used)
	open, err := p.net.Personas(call)
	if err != nil {
		return err
	}
	for _, who := range p.over(open, used, time.Now()) {
		p.loops.Go(func() { p.close(ctx, who) })
	}
	return nil
}

// reasonNotCarrying is the task service's: tasks are placed by another process of the node.
const reasonNotCarrying = "NOT_CARRYING"

// standBack leaves all personas to the process of the node that places tasks: it finds them at the broker, and closes what nothing needs.
func (p *Personas) standBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.carries, p.told = false, false
	p.warm = nil
	for name, who := range p.held {
		if who.tasks == 0 {
			p.forget(name)
		}
	}
	for key, cancel := range p.beats {
		cancel()
		delete(p.beats, key)
	}
}

// close closes a persona when its time comes, unless a task has taken it before. Each waits by itself: those that went at the same moment would be seen to be
// of one consumer.
func (p *Personas) close(ctx context.Context, who *identity) {
	p.mu.Lock()
	at := who.closeAt
	p.mu.Unlock()
	there := wait(ctx, time.Until(at), nil)
	p.mu.Lock()
	who.closing = false
	there = there && who.closeAt.Equal(at) && p.held[who.name] == who // and it was not left to another process
	if there {
		p.forget(who.name)
	}
	p.mu.Unlock()
	if !there {
		return
	}
	call, cancel := context.WithTimeout(ctx, personaCall)
	defer cancel()
	if err := p.net.ClosePersona(call, who.name); err != nil && ctx.Err() == nil {
		p.log.Debug("a persona could not be closed: it is tried again", logging.Err(err)) // the next sweep finds it open
	}
}

// over are those that nothing needs, and for whose time to close nobody waits yet.
func (p *Personas) over(open []string, used []*taskv1.PersonaUse, now time.Time) (out []*identity) {
	needed := make(map[string]bool, len(used))
	for _, u := range used {
		needed[u.GetPersona()] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adopt(used, now)
	there := make(map[string]bool, len(open))
	for _, name := range open {
		there[name] = true
		who := p.held[name]
		switch {
		case !strings.HasPrefix(name, personaPrefix) || slices.Contains(p.warm, name):
			continue
		case who == nil:
			// Of an earlier life, or opened a moment ago and not noted yet.
			who = &identity{name: name, idle: now, met: map[string]meeting{}}
			p.held[name] = who
			continue
		case needed[name] || who.tasks > 0 || now.Sub(who.idle) < personaSweep: // a placement is told a moment after it was made
			who.closeAt = time.Time{}
			continue
		case who.closeAt.IsZero():
			who.closeAt = now.Add(pace.Drawn(p.cfg.Linger))
		}
		if !who.closing {
			who.closing = true
			out = append(out, who)
		}
	}
	p.warm = slices.DeleteFunc(p.warm, func(name string) bool { return !there[name] })
	for name, who := range p.held { // the broker has lost its keys: nothing can come by it any more
		if !there[name] && who.tasks == 0 && now.Sub(who.idle) > personaCall {
			p.forget(name)
		}
	}
	return out
}

// recall finds out, once, which personas an earlier life of this process has opened for jobs that are not over: their shards leave from no more than a job
// may have for all that.
func (p *Personas) recall(ctx context.Context) error {
	p.past.Lock()
	defer p.past.Unlock()
	p.mu.Lock()
	told := p.told
	p.mu.Unlock()
	if told {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, personaCall)
	defer cancel()
	used, err := p.use.PersonasInUse(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.carries = true
	p.adopt(used, time.Now())
	return nil
}

// adopt takes over the personas of jobs that an earlier life of this process has left, the first time that it is told of them; p.mu is held.
func (p *Personas) adopt(used []*taskv1.PersonaUse, now time.Time) {
	if p.told {
		return
	}
	p.told = true
	for _, u := range used {
		name, job := u.GetPersona(), u.GetJobId()
		if job == "" || p.held[name] != nil {
			continue
		}
		who := &identity{name: name, job: job, idle: now, met: map[string]meeting{}}
		p.held[name] = who
		p.byJob[job] = append(p.byJob[job], who)
	}
}

// forget drops an identity; p.mu is held.
func (p *Personas) forget(name string) {
	who := p.held[name]
	if who == nil {
		return
	}
	delete(p.held, name)
	for task, w := range p.byTask {
		if w == who {
			delete(p.byTask, task)
		}
	}
	if team := slices.DeleteFunc(p.byJob[who.job], func(w *identity) bool { return w == who }); len(team) > 0 {
		p.byJob[who.job] = team
	} else {
		delete(p.byJob, who.job)
	}
}

// maxBeats bounds the connections of which signs of life are asked for.
const maxBeats = 1024

// beatFor sees to it that the connections by which results come are alive: signs of life are asked for by those that are used, and by no others any more.
func (p *Personas) beatFor(ctx context.Context, used []*taskv1.PersonaUse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := make(map[[2]string]bool, len(used))
	for _, u := range used {
		key := [2]string{u.GetPersona(), u.GetPeerId()}
		if u.GetPeerId() == "" {
			continue
		}
		if now[key] = true; p.beats[key] != nil || len(p.beats) >= maxBeats {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		p.beats[key] = cancel
		p.loops.Go(func() { p.beating(ctx, u) })
	}
	for key, cancel := range p.beats {
		if !now[key] {
			cancel()
			delete(p.beats, key)
		}
	}
}

// beating asks one provider as one persona until ctx ends. Each has a rhythm of its own: personas that asked at the same moment would be seen to be of one
// consumer.
func (p *Personas) beating(ctx context.Context, u *taskv1.PersonaUse) {
	for next := time.Duration(mrand.Int64N(int64(p.cfg.Beat))); wait(ctx, next, nil); next = domain.Jitter(p.cfg.Beat, nil) {
		p.beat(ctx, u)
	}
}

// beat asks for one sign of life, and makes the connection anew where none comes: with the same key, by other circuits.
func (p *Personas) beat(ctx context.Context, u *taskv1.PersonaUse) {
	err := p.net.SendEventAs(ctx, u.GetPersona(), u.GetPeerId(), eventv1.EventType_EVENT_TYPE_PING, brokerclient.NewID(), &eventv1.Ping{}, p.cfg.Beat)
	if err == nil || ctx.Err() != nil {
		return
	}
	if f := fault.From(err); !slices.Contains([]string{"UNREACHABLE", "SEND_TIMEOUT"}, f.Reason) {
		return // it is there: a service of it is not
	}
	p.log.Debug("a provider that has a task gives no sign of life: it is dialled anew", logging.Peer(u.GetPeerId()), logging.Err(err))
	call, cancel := context.WithTimeout(ctx, personaCall)
	_ = p.net.DisconnectAs(call, u.GetPersona(), u.GetPeerId())
	cancel()
	call, cancel = context.WithTimeout(ctx, p.cfg.Introduce)
	defer cancel()
	if err := p.net.ConnectAs(call, u.GetPersona(), u.GetPeerId(), u.GetAddresses()); err != nil {
		p.log.Debug("it cannot be dialled", logging.Peer(u.GetPeerId()), logging.Err(err))
	}
}

// Figures are how many personas wait for tasks, and how many are in use.
func (p *Personas) Figures() (warm, held int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.warm), len(p.held)
}
