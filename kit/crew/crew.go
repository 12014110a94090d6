// Package crew has one of several replicas of a service lead: it alone does what must be done once for all of them. Without a store that replicas share there is one, and it leads.
package crew

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// Members are the replicas, as one of them sees them in the store that they share. Each call blocks for some seconds at most.
type Members interface {
	// Beat says that this replica is there until the lease is over, and takes or keeps the lead where no other one has it.
	Beat(ctx context.Context, lease time.Duration) (Pulse, error)
	// Leave takes this replica out, and its lead back, and says how many others there are.
	Leave(ctx context.Context) (others int, err error)
}

// Pulse is what a beat has found out.
type Pulse struct {
	Leads    bool // this replica
	Replicas int  // that are there, this one included
}

// Lease is how long a replica that does not answer keeps the lead, in the store and by its own clock.
const Lease = 6 * time.Second

const (
	beatsPerLease = 4
	leaveTimeout  = 2 * time.Second
)

// ErrSuperseded ends a replica that was away for so long that another one leads.
var ErrSuperseded = fault.Unavailable("NOT_LEADING", "another replica leads now, because this one did not answer for longer than its lease: start it again, and it stands by")

// Lead is one replica's part.
type Lead struct {
	members Members // nil: there are no others
	lease   time.Duration
	log     *slog.Logger
	// Store is told whether the store answers, at first and at every change. It must not block.
	Store func(ok bool)

	leads atomic.Bool // by the store's last word
	term  *Term       // for how long that holds
	led   chan struct{}
	kick  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	changed chan struct{} // closed when Leads says something else
}

// New makes one; Run it. members is nil where no other replica can be.
func New(members Members, lease time.Duration, log *slog.Logger) *Lead {
	l := &Lead{members: members, lease: lease, log: log, Store: func(bool) {}, led: make(chan struct{}), kick: make(chan struct{}, 1), changed: make(chan struct{})}
	l.term = NewTerm(l.stepDown)
	if members == nil {
		l.begin()
	}
	return l
}

func (l *Lead) begin() {
	l.once.Do(func() {
		l.leads.Store(true)
		close(l.led)
	})
}

// Leads tells whether this replica does: the store has said so, and a lease from before it was asked is not over. While the store is away nobody leads.
func (l *Lead) Leads() bool { return l.leads.Load() && (l.members == nil || l.term.Holds()) }

// Led is closed as soon as this replica leads for the first time.
func (l *Lead) Led() <-chan struct{} { return l.led }

// While runs do whenever this replica leads, and ends its context when it does not any more: again when the store answers again and no other one has taken the lead. It ends with do's error,
// or with nil when ctx ends, and waits for do.
func (l *Lead) While(ctx context.Context, do func(ctx context.Context) error) error {
	for {
		l.mu.Lock()
		leads, changed := l.Leads(), l.changed
		l.mu.Unlock()
		if leads {
			if err := until(ctx, changed, do); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func until(ctx context.Context, changed <-chan struct{}, do func(ctx context.Context) error) error {
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-changed:
			cancel()
		case <-run.Done():
		}
	}()
	err := do(run)
	ended := run.Err()
	cancel()
	<-over
	if ended != nil && errors.Is(err, ended) {
		return nil
	}
	return err
}

// change tells whoever waits for it that Leads says something else.
func (l *Lead) change() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

// stepDown hears that the store has not answered for a lease.
func (l *Lead) stepDown() {
	l.log.Warn("this replica does not lead for now: the store has not answered it for as long as its lease, and another one may lead")
	l.change()
}

// Kick has it look at once whether the lead is free: somebody has left. It does not block.
func (l *Lead) Kick() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Run beats until ctx ends (nil), or another one leads in this one's place (ErrSuperseded). While the store is away nobody leads; when it answers again, who led leads on where no other one
// has taken the lead.
func (l *Lead) Run(ctx context.Context) error {
	if l.members == nil {
		<-ctx.Done()
		return nil
	}
	defer l.term.Stop()
	t := time.NewTicker(l.lease / beatsPerLease)
	defer t.Stop()
	answered := time.Now()
	ok, told := true, false
	for {
		sent := time.Now()
		p, err := l.members.Beat(ctx, l.lease)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			l.log.Debug("the other replicas could not be told that this one is there", logging.Err(err))
		case p.Leads:
			l.lead(sent, p)
		case l.leads.Load():
			return ErrSuperseded
		}
		if err == nil {
			answered = time.Now()
		}
		if now := time.Since(answered) <= l.lease; !told || now != ok {
			ok, told = now, true
			l.Store(ok)
		}
		select {
		case <-t.C:
		case <-l.kick:
		case <-ctx.Done():
			return nil
		}
	}
}

// lead hears that this replica does, as of a moment before the store was asked.
func (l *Lead) lead(sent time.Time, p Pulse) {
	first := !l.leads.Load()
	if l.term.Renew(sent.Add(l.lease)) {
		if !first {
			l.log.Info("this replica leads on: the store answers again, and no other one has taken the lead")
		}
		defer l.change()
	}
	if first {
		l.begin()
		l.log.Info("this replica leads", slog.Int("replicas", p.Replicas))
	}
}

// Leave gives the lead back at the end, so that nobody has to wait for the lease, and tells whether this was the last replica. It blocks for two seconds at most. Where the store does
// not answer it is false: others may be there.
func (l *Lead) Leave() (last bool) {
	if l.members == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	others, err := l.members.Leave(ctx)
	if err != nil {
		l.log.Info("the other replicas take over when the lease of this one is over", logging.Err(err))
	}
	return err == nil && others == 0
}
