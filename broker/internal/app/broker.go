package app

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/conduct"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/signature"
)

// Limits bound what the broker holds; a zero field takes its default.
type Limits struct {
	// Of one peer's events that this node's services have not answered yet. At a bound its stream is not read any further, and
	// so its broker has to wait.
	InEvents int // default 256
	InBytes  int // default 2 MiB
	// Of all peers together, in bytes.
	InTotal int // default 48 MiB

	// Of one peer, events that were written and not acknowledged yet. No more than the receiver's InEvents and InBytes, or it would
	// stop reading in the middle.
	OutEvents int // default 256
	OutBytes  int // default 2 MiB
	// Of one peer, events that wait at all: more are refused. It holds what 100 callers may have in flight.
	OutWaiting      int // default 8192
	OutWaitingBytes int // default 32 MiB
	// The same once the peer has been out of reach for Grace. It is well below what one Send stream may have unanswered, or a single dead peer could hold up
	// a service's events to all others.
	OutUnreachable int // default 256

	// Of one peer, in a second; what is more waits. Twice as much may come at once.
	InPerSecond      int // events; default 2000: some 1000 tasks a second, several times what a machine of today runs for one consumer
	InBytesPerSecond int // default 32 MiB

	Recent    int           // finished events of a peer that are remembered; default twice InEvents, which is more than it can send again
	Remotes   int           // peers for which that is remembered; default 1024
	IdleAfter time.Duration // when a stream without events is closed; default 2 min. Its receiver waits half as long again, 10 s at the least
	Patience  time.Duration // how long a frame that was begun may take, and a write; default 30 s: 256 KiB at 8 KiB a second
	Grace     time.Duration // how long a peer may be out of reach, or without a known address, before that counts; default 1 s
	TopicKept time.Duration // how long a topic is kept after its last subscriber left; default 30 s
	Dial      time.Duration // how long one try to reach a peer may take; default 10 s. The events' own timeouts end the tries
}

func (l *Limits) defaults() {
	set(&l.InEvents, 256)
	set(&l.InBytes, 2<<20)
	set(&l.InTotal, 48<<20)
	set(&l.OutEvents, 256)
	set(&l.OutBytes, 2<<20)
	set(&l.OutWaiting, 8192)
	set(&l.OutWaitingBytes, 32<<20)
	set(&l.OutUnreachable, 256)
	set(&l.InPerSecond, 2000)
	set(&l.InBytesPerSecond, 32<<20)
	set(&l.Patience, 30*time.Second)
	set(&l.Recent, 2*l.InEvents)
	set(&l.Remotes, 1024)
	set(&l.IdleAfter, 2*time.Minute)
	set(&l.Grace, time.Second)
	set(&l.TopicKept, 30*time.Second)
	set(&l.Dial, 10*time.Second)
}

func set[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Modes.
const (
	ModeOpen      = "open"
	ModeAnonymous = "anonymous"
)

// Config is what a Broker is made of. Log and Observer may be left out.
type Config struct {
	Mode     string // open: the node's own persona is the only one
	Private  bool   // the network has a key
	Network  Network
	Keys     Keys
	Book     Book // may be left out: then nobody is remembered
	Codec    Codec
	Signers  event.Keys // public keys of authors
	Observer Observer
	Log      *slog.Logger
	Limits   Limits
	Delivery delivery.Config
	// Reach tells how the network can be reached; may be left out where nothing stands between this node and it.
	Reach func() Reach
}

// Broker is the sidecar's business: it is safe for concurrent use.
type Broker struct {
	cfg    Config
	limits Limits
	rules  event.Rules
	obs    Observer
	log    *slog.Logger
	inbox  *dispatcher
	budget *budget
	known  *known

	conduct struct {
		sync.Mutex
		ledger *conduct.Ledger
	}

	mu       sync.Mutex
	opening  sync.Mutex // one persona is opened or closed at a time
	joining  sync.Mutex // topics are joined and left one at a time
	personas map[string]*persona
	admits   func(peer string) bool // nil: everybody is let in
	topics   map[string]*topicUse
	closed   bool
}

// New makes a Broker without personas; Start opens them.
func New(cfg Config) *Broker {
	cfg.Limits.defaults()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	if cfg.Reach == nil {
		cfg.Reach = func() Reach { return Reach{Online: true} }
	}
	b := &Broker{cfg: cfg, limits: cfg.Limits, rules: event.Rules{Codec: cfg.Codec, Keys: cfg.Signers, Shared: &signature.Verifier{}}, obs: cfg.Observer, log: cfg.Log,
		budget: newBudget(cfg.Limits.InTotal), personas: make(map[string]*persona), topics: make(map[string]*topicUse)}
	b.conduct.ledger = conduct.NewLedger()
	b.known = &known{store: cfg.Book, log: cfg.Log}
	b.known.load()
	b.inbox = newDispatcher(cfg.Delivery, cfg.Observer)
	return b
}

// Start opens the node's own persona and, where the mode has others, those whose keys were kept.
func (b *Broker) Start() error {
	if _, err := b.open(""); err != nil {
		return err
	}
	if b.cfg.Mode == ModeOpen {
		return nil
	}
	names, err := b.cfg.Keys.List()
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, err := b.open(n); err != nil {
			return err
		}
	}
	return nil
}

// Close closes all personas and ends all subscriptions.
func (b *Broker) Close() error {
	b.opening.Lock()
	defer b.opening.Unlock()
	b.mu.Lock()
	b.closed = true
	open := make([]*persona, 0, len(b.personas))
	for _, p := range b.personas {
		open = append(open, p)
	}
	clear(b.personas)
	for _, u := range b.topics {
		if u.leave != nil {
			u.leave.Stop()
		}
	}
	b.mu.Unlock()
	var errs []error
	for _, p := range open {
		errs = append(errs, p.close())
	}
	b.inbox.close()
	b.known.close()
	return errors.Join(errs...)
}

// charge holds something against a peer, and cuts it off when that was one too many.
func (b *Broker) charge(p *persona, peer string, o conduct.Offence) {
	b.obs.Offence(o.Name)
	b.conduct.Lock()
	cutOff := b.conduct.ledger.Charge(p.name+"\x00"+peer, o, time.Now())
	b.conduct.Unlock()
	if cutOff > 0 {
		b.obs.Offence("cut_off")
		b.log.Warn("peer cut off", logging.Peer(peer), slog.String("last_offence", o.Name), slog.Duration("for", cutOff))
		p.host.Refuse(peer, cutOff)
	}
}

type noObserver struct{}

func (noObserver) Event(event.Type, string, string) {}
func (noObserver) Offence(string)                   {}
func (noObserver) Dropped(string, string)           {}
func (noObserver) Redelivered()                     {}
func (noObserver) Verdict(string)                   {}
func (noObserver) LateAck()                         {}
func (noObserver) StreamReset(string)               {}
func (noObserver) AckSeconds(float64)               {}
func (noObserver) Adjust(string, float64)           {}
