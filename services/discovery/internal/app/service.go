package app

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/kit/crew"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// Defaults of Config, with their reasons.
var (
	// DefaultPace: an announcement is about 3 KB, most of it the post-quantum sealing key. One in two seconds on average is
	// 12 kbit/s, and a mesh of four makes 48 of it, what RTCP would take of a line of one megabit. Ten seconds at least find a lost peer within half a
	// minute in a small network. Twelve hours at most keep what everybody hears the same up to 21,600 providers, and whoever makes a network look larger than
	// it is keeps nobody silent for longer. Who is there in a large network is known by connections, and by whom was heard of lately.
	DefaultPace = pace.Config{Min: 10 * time.Second, Max: 12 * time.Hour, PerPeer: 2 * time.Second}
	// DefaultPatience: gossip may lose two in a row without harm. A peer is kept thirty of its intervals, an hour at least,
	// because the table is also the address book for after an outage.
	DefaultPatience = domain.Patience{Unavailable: 3, Forgotten: 30, MinForget: time.Hour}
)

const (
	DefaultMaxPeers   = 256 // rows of about 7 KB
	DefaultNeighbours = 8   // enough that gossip's mesh (6) and a few losses fit
	fewNeighbours     = 3   // below this the bootstrap addresses are tried again
	bookSize          = 64  // peers that are forgotten and still dialled now and then
	bookFor           = 30 * 24 * time.Hour

	sweepEvery  = 2 * time.Second  // at least
	sweepSeldom = 30 * time.Second // where hours pass between two words of a peer
	resyncEvery = 30 * time.Second // looks at identity, connections and round trips, lest a lost change stay lost
	callTimeout = 5 * time.Second
	dialTimeout = 15 * time.Second
)

// Config of a Service; zero values take the defaults.
type Config struct {
	Bootstrap  []string // multiaddrs that end in /p2p/ID
	Pace       pace.Config
	Patience   domain.Patience
	MaxPeers   int
	Neighbours int // providers to be connected to
	// Coarse tells classes instead of what this node counts: anonymous mode.
	Coarse bool
	// AskKnown asks a new neighbour who is out there only where this node has dialled it or it has announced itself: anonymous mode, where all others are consumers' personas,
	// which have no answer, and each of which would be asked over a way that takes seconds.
	AskKnown bool
	// Dial and Ask are how long a connection and a question may take; default 15 s and 5 s.
	Dial, Ask time.Duration

	Log     *slog.Logger
	Counter Counter

	Network Network
	Events  Events
	Store   Store
	Routing Routing // nil: there is none
	Shared  Shared  // nil: there are no other replicas

	// Reached is told whether the broker and the shared store answer, at first and at every change. It must not block.
	Reached func(ok bool)
}

// Service is discovery. Run it; its other methods may be called at any time.
type Service struct {
	cfg Config
	log *slog.Logger
	net Network
	ev  Events

	lead    *crew.Lead
	news    *news
	reached reached

	mu       sync.Mutex
	table    *domain.Table
	book     *domain.Book
	unsaved  bool // rows of either have changed while this replica did not lead
	size     pace.Size
	identity Identity
	self     Self
	hasSelf  bool
	puzzle   domain.Puzzle
	own      domain.Announcement // as it was last said; Version 0 before
	signed   []byte
	online   time.Time // since when there is a neighbour; zero while there is none
	watchers map[*Watcher]struct{}
	asked    map[string]query     // Discovers that wait for an answer, by id
	asking   map[string]bool      // peers that are being asked
	dialled  map[string]bool      // peers that this node has dialled, and that are connected or about to be
	retry    map[string]*dialWait // peers that could not be dialled, until when
	lost     map[string]int       // peers whose connection broke, and how often they could not be dialled since
	nudged   map[string]time.Time // neighbours that were asked because they were overdue, and when

	versions  versions
	prices    *rate.Limiter // for announcements that tell of a price
	triggers  *rate.Limiter // for announcements that a newcomer triggers
	announce  chan bool     // true: it changed
	redial    chan struct{}
	advertise chan struct{}
	answers   chan struct{} // slots for answering and introducing
	asks      chan struct{} // slots for asking, which may take long where nobody answers
	identify  chan struct{}
	tasks     sync.WaitGroup
	run       context.Context // of what is started from handlers; set by Run
	ready     chan struct{}
}

// New makes a service and loads what its store has.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Pace == (pace.Config{}) {
		cfg.Pace = DefaultPace
	}
	if cfg.Patience == (domain.Patience{}) {
		cfg.Patience = DefaultPatience
	}
	if cfg.MaxPeers <= 0 {
		cfg.MaxPeers = DefaultMaxPeers
	}
	if cfg.Neighbours <= 0 {
		cfg.Neighbours = DefaultNeighbours
	}
	if cfg.Dial <= 0 {
		cfg.Dial = dialTimeout
	}
	if cfg.Ask <= 0 {
		cfg.Ask = askTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Counter == nil {
		cfg.Counter = noCounter{}
	}
	s := &Service{cfg: cfg, log: cfg.Log, net: cfg.Network, ev: cfg.Events, table: domain.NewTable(cfg.MaxPeers), book: domain.NewBook(bookSize),
		size:     pace.Size{PerPeer: cfg.Pace.PerPeer},
		watchers: map[*Watcher]struct{}{}, asked: map[string]query{}, asking: map[string]bool{}, dialled: map[string]bool{}, retry: map[string]*dialWait{}, lost: map[string]int{}, nudged: map[string]time.Time{},
		versions: versions{store: cfg.Store},
		// While the network is small, three newcomers in a row are greeted at once.
		triggers: rate.NewLimiter(rate.Every(cfg.Pace.Min/2), 3),
		prices:   rate.NewLimiter(rate.Every(time.Minute), 4),
		announce: make(chan bool, 1), redial: make(chan struct{}, 1), advertise: make(chan struct{}, 1), identify: make(chan struct{}, 1),
		answers: make(chan struct{}, maxAnswers), asks: make(chan struct{}, maxAsking), ready: make(chan struct{})}
	s.share()
	peers, err := cfg.Store.LoadPeers(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range peers {
		if p.State == domain.Forgotten {
			s.book.Add(p)
		} else {
			s.table.Restore(p)
		}
	}
	if s.self, s.hasSelf, err = cfg.Store.LoadSelf(ctx); err != nil {
		return nil, err
	}
	if cfg.Shared != nil {
		if s.puzzle, err = cfg.Shared.LoadPuzzle(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

type noCounter struct{}

func (noCounter) Count(string) {}

// Run does all that discovery does by itself until ctx ends, then says goodbye to the network.
func (s *Service) Run(ctx context.Context) error {
	s.run = ctx
	close(s.ready)
	err := lifecycle.Run(ctx, s.identityLoop, s.watchLoop, s.mirrorLoop, s.lead.Run, s.leadLoop)
	s.tasks.Wait()
	s.leave()
	return err
}

// leadLoop does what one replica does for all, whenever it leads.
func (s *Service) leadLoop(ctx context.Context) error { return s.While(ctx, s.leadLoops) }

func (s *Service) leadLoops(ctx context.Context) error {
	s.saveMissed()
	loops := []func(context.Context) error{s.announceLoop, s.neighbourLoop, s.mendLoop, s.sweepLoop}
	if s.cfg.Routing != nil {
		loops = append(loops, s.advertiseLoop, s.strangersLoop)
	}
	for _, addr := range s.cfg.Bootstrap {
		loops = append(loops, func(ctx context.Context) error { return s.joinLoop(ctx, addr) })
	}
	return lifecycle.Run(ctx, loops...)
}

// spawn runs what a handler starts and does not wait for; false when there is too much of it, or Run is over.
func (s *Service) spawn(slots chan struct{}, fn func(ctx context.Context)) bool {
	select {
	case <-s.ready:
	default:
		return false
	}
	select {
	case slots <- struct{}{}:
	default:
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run.Err() != nil {
		<-slots
		return false
	}
	s.tasks.Go(func() {
		defer func() { <-slots }()
		fn(s.run)
	})
	return true
}

// UpdateSelf sets what this node's announcement says; it goes out when that changed.
func (s *Service) UpdateSelf(ctx context.Context, self Self) error {
	if err := domain.CheckSelf(self.Capabilities, self.SealingKey); err != nil {
		return fault.InvalidArgument("SELF_INVALID", "%v", err)
	}
	s.mu.Lock()
	same := s.hasSelf && sameSelf(s.self, self)
	s.mu.Unlock()
	if same {
		return nil
	}
	if err := s.cfg.Store.SaveSelf(ctx, self); err != nil {
		return err
	}
	s.mu.Lock()
	s.self, s.hasSelf = self, true
	s.mu.Unlock()
	s.wakeAnnounce(true)
	return nil
}

// UpdatePuzzle sets what a stranger's submission costs. Whoever asks hears it at once; the others with the next announcement, which goes out now when the
// effort has changed much, not more often than once a minute as a rule.
func (s *Service) UpdatePuzzle(ctx context.Context, p domain.Puzzle) error {
	if err := p.Check(); err != nil {
		return fault.InvalidArgument("SELF_INVALID", "%v", err)
	}
	if err := s.savePuzzle(ctx, p); err != nil {
		return err
	}
	s.setPuzzle(p)
	return nil
}

func (s *Service) setPuzzle(p domain.Puzzle) {
	s.mu.Lock()
	s.puzzle = p
	news := s.own.Version > 0 && domain.EffortNews(s.own.Effort, p.Effort)
	s.mu.Unlock()
	if news && s.prices.Allow() {
		s.wakeAnnounce(false)
	}
}

func sameSelf(a, b Self) bool {
	x := domain.Announcement{Capabilities: a.Capabilities, SealingKey: a.SealingKey}
	y := domain.Announcement{Capabilities: b.Capabilities, SealingKey: b.SealingKey}
	return x.SameSelf(&y)
}

// identityLoop learns who this node is from its broker, and notices when its addresses change.
func (s *Service) identityLoop(ctx context.Context) error {
	wait := newWait(10*time.Millisecond, time.Second)
	for {
		err := s.refreshIdentity(ctx)
		next := resyncEvery
		if err != nil {
			next = wait.NextBackOff()
		} else {
			wait.Reset()
		}
		if !sleep(ctx, next, s.identify) {
			return nil
		}
	}
}

func (s *Service) refreshIdentity(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	id, err := s.net.Self(call)
	s.reached.broker(err == nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	changed := !sameIdentity(s.identity, id)
	s.identity = id
	s.mu.Unlock()
	if changed {
		s.log.Info("identity known", logging.Peer(id.PeerID), slog.Int("addresses", len(id.Addresses)))
		s.wakeAnnounce(true)
	}
	return nil
}

func sameIdentity(a, b Identity) bool {
	return a.PeerID == b.PeerID && slices.Equal(a.Addresses, b.Addresses)
}

// Identity is this node's own; its PeerID is empty until the broker has been reached.
func (s *Service) Identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// sweepLoop judges the peers by their age.
func (s *Service) sweepLoop(ctx context.Context) error {
	for sleep(ctx, min(max(sweepEvery, s.interval()/32), sweepSeldom), nil) {
		s.mu.Lock()
		changed, forgotten := s.table.Sweep(time.Now(), s.online, s.cfg.Patience)
		for _, id := range changed {
			s.changedLocked(id)
			s.cfg.Counter.Count(CountUnavailable)
		}
		for _, p := range forgotten {
			s.shelveLocked(p)
			s.cfg.Counter.Count(CountForgotten)
		}
		s.save(nil, s.book.Expire(time.Now().Add(-bookFor)))
		s.pruneLocked()
		overdue := s.overdueLocked()
		s.mu.Unlock()
		for _, id := range overdue {
			s.askOne(id, 1)
		}
		if len(changed) > 0 {
			wake(s.redial)
		}
	}
	return nil
}

// sleep waits for d, or less when woken; false when ctx has ended.
func sleep(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-woken:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
