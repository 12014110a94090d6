package tor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// How a tor that died is started again: at once at first, and then more and more seldom, so that one that cannot run does not eat the machine.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// wellAfter is how long a tor has run when its next death counts as the first.
	wellAfter = 30 * time.Second
)

// listenTimeout is how long a tor may take from its start until it listens; on an idle machine it takes a tenth of a second.
const listenTimeout = 60 * time.Second

var errPortTaken = errors.New("another program has taken the port")

// life is one run of one tor.
type life struct {
	*Process
	began     time.Time
	once      sync.Once
	listens   chan struct{} // closed when all its ports are open
	mu        sync.Mutex
	portTaken bool
}

func (p *Private) run(n *node) (*life, error) {
	l := &life{began: time.Now(), listens: make(chan struct{})}
	proc, err := StartProcess(ProcessConfig{
		Program: p.cfg.Program, Torrc: n.torrcFile(),
		Line: func(s string) {
			if strings.Contains(s, "Address already in use") {
				l.mu.Lock()
				l.portTaken = true
				l.mu.Unlock()
			}
			p.logLine(n, s)
		},
		Bootstrap: func(b Bootstrap) {
			l.once.Do(func() { close(l.listens) }) // tor opens its ports before it says the first of these
			p.update(func() { p.percent[n.name] = b })
		},
	})
	if err != nil {
		return nil, err
	}
	l.Process = proc
	p.update(func() { delete(p.down, n.name) })
	return l, nil
}

// listening waits until tor has opened its ports.
func (l *life) listening(ctx context.Context) error {
	timer := time.NewTimer(listenTimeout)
	defer timer.Stop()
	select {
	case <-l.listens:
		return nil
	case <-l.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.portTaken {
			return errors.Join(l.Err(), errPortTaken)
		}
		if err := l.Err(); err != nil {
			return err
		}
		return fault.Unavailable(ReasonStartFailed, "tor ended as soon as it was started")
	case <-timer.C:
		return fault.Unavailable(ReasonStartFailed, "tor did not open its ports within %v: is the machine too busy?", listenTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// keep keeps one tor running until run ends, and then ends it.
func (p *Private) keep(run context.Context, n *node, l *life) {
	pause := firstPause
	for {
		if l != nil {
			select {
			case <-run.Done():
				l.Stop(stopGrace)
				return
			case <-l.Done():
			}
			err := l.Err()
			p.update(func() {
				delete(p.percent, n.name)
				p.down[n.name] = err
			})
			p.logLine(n, fmt.Sprintf("ended, and is started again in %v: %v", pause, err))
			if time.Since(l.began) > wellAfter {
				pause = firstPause
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-run.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, lastPause)
		next, err := p.run(n)
		if err != nil {
			p.logLine(n, err.Error())
		}
		l = next
	}
}

func (p *Private) logLine(n *node, s string) {
	if p.cfg.Log == nil {
		return
	}
	p.logMu.Lock()
	defer p.logMu.Unlock()
	_, _ = fmt.Fprintf(p.cfg.Log, "%s: %s\n", n.name, s)
}

// update changes what is known of the tors and wakes who waits for that.
func (p *Private) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}
