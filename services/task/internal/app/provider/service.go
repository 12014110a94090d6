package provider

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/tracing"
	"github.com/shallot-net/shallot/kit/workers"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Config is what a Service needs. Everything up to Pusher is required.
type Config struct {
	Store      Store
	Codec      app.Codec
	Cipher     app.Cipher
	Key        app.SealingKey
	Repository app.Repository
	Verifier   app.Verifier
	Executors  []app.Executor
	Evaluator  Evaluator
	Workspace  Workspace
	Parts      Parts
	Pusher     app.Pusher
	Fleet      Fleet         // the replicas that share Store; nil: this is the only one
	Lease      time.Duration // after how long another replica takes over what one has that does not answer; 6 s

	Metrics app.Metrics
	Log     *slog.Logger
	Trace   *tracing.Tracer // nil: no spans
	Policy  Policy
	Price   Price
	// Anonymous: content is given by its consumer to the provider that it named, so that a task that refers to any cannot be handed on; and results are padded
	// before they are encrypted.
	Anonymous bool

	Express  time.Duration // how long a submission waits for its result before it is only acknowledged; 25 ms
	Progress time.Duration // between reports to one consumer; domain.ReportEvery
	Keep     time.Duration // how long a result is kept at most; 48 h
	Tomb     time.Duration // how long a repeated submission is recognised; 48 h
	Fetches  int           // large payloads fetched side by side, and as many results of others; 4

	ReplicaDelay    time.Duration // how long others are not asked to keep a result: its consumer may be there; 1 s
	ReplicaPatience time.Duration // how long one may be silent that was asked, beside the time for fetching; 30 s
}

// Policy says what this provider does for whom.
type Policy struct {
	Types      []string // offered; empty: all that there are executors for
	Allow      []string // peers that may submit; empty: all
	Deny       []string // peers that may not
	Limits     domain.LimitsPolicy
	Slots      int   // tasks side by side; the number of CPUs
	Capacity   int   // waiting tasks; 1,024
	PerPeer    int   // unfinished tasks of one peer; three quarters of Capacity
	PerSecond  int   // submissions of one peer in a second, of which twice as many may come at once; 1,000
	MaxPayload int64 // bytes; 1 GiB
	// Replicas is how much is kept of other providers' results, and ReplicasPerPeer of those that one peer made or has ordered, in bytes; 4 GiB and
	// 1 GiB. Replicas below 0 is none.
	Replicas, ReplicasPerPeer int64
}

// DefaultLimits are granted and allowed where configuration does not say otherwise.
var DefaultLimits = domain.LimitsPolicy{
	Default: domain.Limits{Time: 10 * time.Minute, Memory: 512 << 20, Output: 64 << 20},
	Max:     domain.Limits{Time: 24 * time.Hour, Memory: 2 << 30, Output: 1 << 30},
}

func (c Config) withDefaults() Config {
	duration := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	number := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	duration(&c.Lease, 6*time.Second)
	duration(&c.Express, 25*time.Millisecond)
	duration(&c.Progress, domain.ReportEvery)
	duration(&c.Keep, 48*time.Hour)
	duration(&c.Tomb, 48*time.Hour)
	duration(&c.ReplicaDelay, time.Second)
	duration(&c.ReplicaPatience, 30*time.Second)
	number(&c.Fetches, 4)
	number(&c.Policy.Slots, runtime.NumCPU())
	number(&c.Policy.Capacity, 1024)
	number(&c.Policy.PerPeer, max(c.Policy.Capacity*3/4, c.Policy.Slots))
	number(&c.Policy.PerSecond, 1000)
	if c.Policy.MaxPayload <= 0 {
		c.Policy.MaxPayload = 1 << 30
	}
	if c.Policy.Replicas == 0 {
		c.Policy.Replicas = 4 << 30
	}
	if c.Policy.ReplicasPerPeer <= 0 {
		c.Policy.ReplicasPerPeer = 1 << 30
	}
	if c.Policy.Limits == (domain.LimitsPolicy{}) {
		c.Policy.Limits = DefaultLimits
	}
	if c.Metrics == nil {
		c.Metrics = app.NoMetrics{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Service is a provider's use cases. It implements app.Role.
type Service struct {
	cfg          Config
	outbox       *app.Outbox
	watch        *app.Watchers
	executors    map[string]app.Executor
	guests       map[string]app.Guest // those that come and go, by type
	types        []string
	described    atomic.Uint64   // counts up when Describe says something else
	ctx          context.Context // ends when Run does: running programs end with it, and are run again after the next start
	cancel       context.CancelFunc
	letter       *letter
	credits      *credits
	toll         *toll // nil: submissions cost nothing
	leftovers    *app.Leftovers
	replicasLeft *app.Leftovers    // those of other providers' results
	bringing     app.Locks[string] // by the name of the part that is fetched
	unwritten    atomic.Bool       // the last attempt that was to be committed could not be
	replicas     *replicator
	keeps        *keeper
	runs         workers.Group
	fleet        *fleet // nil: no other replicas

	mu       sync.Mutex
	stopping bool
	held     map[domain.EntryKey]*held
	queue    []*held // ready to run, in order
	remote   []*held // their payload is still to be fetched, in order
	fetching int     // payloads being fetched
	staging  int     // those, and payloads that are here and do not run yet
	running  int
	reserved int            // slots that are kept free for what is being claimed
	visits   map[string]int // runs at guests, by type
	perPeer  map[string]int
	turns    turns
	recent   recentKeys                    // attempts that are over
	early    map[domain.EntryKey]time.Time // cancelled before they came
	sentTo   map[string]handed             // redirects that the other's metric does not show yet
}

// handed counts what was handed to a peer since it measured itself.
type handed struct {
	version uint64
	count   int
}

// queueKey is what watchers of the queue's figures watch.
const queueKey = "queue"

var _ app.Role = (*Service)(nil)

// New makes a Service; call Load before the first command, and Run beside it.
func New(cfg Config) (*Service, error) {
	s := &Service{cfg: cfg.withDefaults(), outbox: app.NewOutbox(cfg.Codec), watch: app.NewWatchers(), executors: make(map[string]app.Executor),
		guests: make(map[string]app.Guest), visits: make(map[string]int), held: make(map[domain.EntryKey]*held), perPeer: make(map[string]int), early: make(map[domain.EntryKey]time.Time), sentTo: make(map[string]handed), turns: newTurns()}
	s.credits = newCredits(s.cfg.Policy.PerSecond)
	s.fleet = newFleet(s, cfg.Fleet, s.cfg.Lease)
	s.toll = newToll(s.cfg.Price, time.Now())
	s.leftovers = &app.Leftovers{Kind: resultKind, Repository: cfg.Repository, Wanted: s.wanted, Log: s.cfg.Log}
	s.replicasLeft = &app.Leftovers{Kind: replicaKind, Repository: cfg.Repository, Wanted: s.wanted, Log: s.cfg.Log}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.letter = &letter{s: s}
	s.replicas, s.keeps = newReplicator(), newKeeper(s, s.cfg.Fetches)
	for _, e := range cfg.Executors {
		t := e.Describe().Type
		if len(s.cfg.Policy.Types) > 0 && !slices.Contains(s.cfg.Policy.Types, t) {
			continue
		}
		if s.executors[t] != nil {
			return nil, fault.InvalidArgument("CONFIG_INVALID", "there are two executors for the task type %q", t)
		}
		s.executors[t] = e
		s.types = append(s.types, t)
		if g, ok := e.(app.Guest); ok {
			s.guests[t] = g
			g.OnChange(s.guestChanged)
		}
	}
	for _, t := range s.cfg.Policy.Types {
		if s.executors[t] == nil {
			msg := "the policy offers the task type %q, and there is no executor for it"
			if hint := fault.Suggest(t, s.types); hint != "" {
				msg += ": " + hint
			}
			return nil, fault.InvalidArgument("CONFIG_INVALID", msg, t)
		}
	}
	return s, nil
}

// held is an attempt that this provider works on. Its fields are guarded by mu, but for those that are set once.
type held struct {
	key      domain.EntryKey
	persona  string
	taskType string
	executor app.Executor
	at       place           // guarded by Service.mu
	ctx      context.Context // ends when the run has to
	stop     context.CancelFunc

	mu        sync.Mutex
	entry     *domain.Entry // replaced, never changed
	journaled bool          // it is in the store
	dropped   bool          // its delivery was answered with Again: what it gives is void
	accepted  uint64        // the outbox row that says so; 0: none, or it has arrived
	resumed   bool          // another process took it
	begun     bool          // it was written down as running when it was claimed, and runs for the first time since
	cancelled bool          // its consumer wants it to end
	material  *app.Material // until it has been read; nil: in the store
	files     *staged       // a payload that was decrypted before its turn
	reply     app.Reply     // what the delivery has to say, when it was over before it was journaled
	logs      logStream
	progress  *domain.Progress // the last word; replaced, never changed
	toldAt    time.Time        // when its consumer was last told by itself

	settled chan struct{} // closed when it is over
}

// Describe is what this provider offers now.
func (s *Service) Describe() (caps []app.Capability, sealingKey, evaluator string, wants int) {
	for _, t := range s.types {
		c := s.executors[t].Describe()
		if no := s.absent(t, &c); no != nil {
			continue
		}
		p := s.cfg.Policy.Limits.Capped(domain.Limits(c.MaxLimits))
		c.MaxLimits = app.Limits(p.Max)
		caps = append(caps, c)
	}
	return caps, s.cfg.Key.Recipient(), s.cfg.Evaluator.Name(), s.cfg.Evaluator.Wants()
}

// Queue is what this provider has to do now.
func (s *Service) Queue() domain.Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.figures()
}

func (s *Service) figures() domain.Queue {
	q := domain.Queue{Pending: len(s.queue) + len(s.remote) + s.fetching, Running: s.running, Slots: s.cfg.Policy.Slots, Capacity: s.cfg.Policy.Capacity}
	if f := s.fleet; f != nil {
		q.Pending, q.Running, q.Slots = q.Pending+f.waiting, q.Running+f.running, f.slots
	}
	return q
}

// WatchQueue wakes the caller when the figures change.
func (s *Service) WatchQueue() (<-chan struct{}, func()) { return s.watch.Watch(queueKey) }

// Watch wakes the caller when an attempt of this task changes.
func (s *Service) Watch(taskID string) (<-chan struct{}, func()) { return s.watch.Watch(taskID) }

// Feed collects all tasks that change; see app.Watchers.
func (s *Service) Feed(most int) *app.Feed { return s.watch.Feed(most) }
