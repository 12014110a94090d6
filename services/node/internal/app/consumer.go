package app

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// ConsumerNetwork is how a consumer's node reaches providers.
type ConsumerNetwork interface {
	// Connect dials a peer and returns its id; with peer "" each address must end in /p2p/ID.
	Connect(ctx context.Context, peer string, addresses []string) (string, error)
	// ConnectVouched is Connect for a peer that its user has named, or more than one peer has told of.
	ConnectVouched(ctx context.Context, peer string, addresses []string) (string, error)
	// Known lists peers that this node has reached before, in an earlier life perhaps, the latest first.
	Known(ctx context.Context) ([]KnownPeer, error)
	// Find calls found for peers that say in the routing table that they have a name, as they are found, limit at most.
	Find(ctx context.Context, name string, limit int, found func(KnownPeer)) error
	// SendEvent returns nil once the receiving service has acknowledged.
	SendEvent(ctx context.Context, peer string, typ eventv1.EventType, id string, payload proto.Message, timeout time.Duration) error
}

// KnownPeer is a peer that this node has reached before, and where.
type KnownPeer struct {
	PeerID    string
	Addresses []string
}

// ConsumerConfig says how a consumer finds providers. The zero value takes the defaults.
type ConsumerConfig struct {
	Directory  domain.DirectoryLimits
	Bootstrap  func() []string // addresses that end in /p2p/ID; asked again before every round of dialling
	Neighbours int             // connections to keep to providers; 8
	Ask        pace.Config     // how often to ask, once the view is settled
	Settle     time.Duration   // how long after news to ask often; 15 s
	// Aloof: whom this persona talks to tells nothing of this node's tasks. No candidate is asked how busy it is before a task goes there, and none because one is there.
	Aloof bool
	// DialTimeout and AskTimeout are how long a connection and a question may take; 10 s and 5 s.
	DialTimeout, AskTimeout time.Duration
}

// Consumer is a consumer's view of the providers and what keeps it true. It has no discovery and no metric service: it
// asks the providers that it is connected to.
type Consumer struct {
	cfg ConsumerConfig
	net ConsumerNetwork
	log *slog.Logger

	// Changed is told when placements may come out otherwise. It must not block.
	Changed func()

	mu        sync.Mutex
	trails    domain.Trails[*eventv1.Metric]
	dir       *domain.Directory
	conns     map[string]*conn
	questions map[string]question // by event id
	joined    []string            // addresses given while running
	before    []KnownPeer         // reached before, as the broker remembers
	lookedAt  time.Time           // when the broker was asked for them
	newsAt    time.Time           // the last time that the view changed
	placedAt  time.Time           // the last placement
	known     int                 // providers that others say there are
	joinKick  chan struct{}
	askKick   chan struct{}
	loadKick  chan struct{}
	lookKick  chan struct{}
	loadAsks  map[string]*loadAsk // candidates that are being asked, by peer id
	fresh     sync.WaitGroup      // of those that ask them
	life      context.Context     // of the same
	end       context.CancelFunc
	ended     bool
	silent    map[string]time.Time // candidates that did not answer, until when that counts
	missing   map[string]*missing  // names that are looked for in the routing table
	counts    ConsumerCounts
}

// ConsumerCounts count what a Consumer heard.
type ConsumerCounts struct {
	Asked, Answers, Unasked, Invalid uint64
}

// conn is a peer that is connected now.
type conn struct {
	askedAt  time.Time
	failures int // questions in a row that were not taken
	answered bool
}

// question waits for its answer.
type question struct {
	peer  string
	kind  eventv1.EventType
	until time.Time
}

const (
	maxQuestions = 512
	answerWithin = 15 * time.Second // beside what the question may take to get there
	askTimeout   = 5 * time.Second
	maxJoined    = 64
)

// NewConsumer makes one; Run it.
func NewConsumer(cfg ConsumerConfig, net ConsumerNetwork, log *slog.Logger) *Consumer {
	if cfg.Bootstrap == nil {
		cfg.Bootstrap = func() []string { return nil }
	}
	if cfg.Neighbours <= 0 {
		cfg.Neighbours = 8
	}
	if cfg.Ask == (pace.Config{}) {
		cfg.Ask = pace.Config{Min: 10 * time.Second, Max: 2 * time.Minute, PerPeer: time.Second}
	}
	if cfg.Settle <= 0 {
		cfg.Settle = 15 * time.Second
	}
	set(&cfg.DialTimeout, dialTimeout)
	set(&cfg.AskTimeout, askTimeout)
	life, end := context.WithCancel(context.Background())
	return &Consumer{life: life, end: end, cfg: cfg, net: net, log: log, Changed: func() {}, dir: domain.NewDirectory(cfg.Directory), conns: map[string]*conn{},
		questions: map[string]question{}, newsAt: time.Now(), joinKick: make(chan struct{}, 1), askKick: make(chan struct{}, 1), loadKick: make(chan struct{}, 1),
		lookKick: make(chan struct{}, 1), missing: map[string]*missing{}, loadAsks: map[string]*loadAsk{}, silent: map[string]time.Time{}}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Keepers are others that may keep a task's result, from the view.
func (c *Consumer) Keepers(need *domain.Need, runner string) []*taskv1.Candidate {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*taskv1.Candidate
	for _, p := range domain.Keepers(c.dir.View(), need, runner, nil) {
		out = append(out, &taskv1.Candidate{PeerId: p.PeerID, Addresses: p.Addresses})
	}
	return out
}

// TaskChanged follows this node's own tasks, so that placement knows what metrics cannot say yet.
func (c *Consumer) TaskChanged(t *taskv1.Task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case Terminal(t.GetState()):
		c.dir.Finished(t.GetId())
	case t.GetProvider() != "" && t.GetState() != statePending:
		c.dir.Placed(t.GetId(), t.GetProvider(), time.Now())
	}
}

// excludedByUser says nothing of the provider.
const excludedByUser = "EXCLUDED_BY_USER"

// refusals are hardly faults: a provider that says no is nearly as good as before for the next task.
var refusals = []string{"QUEUE_FULL", "TYPE_UNKNOWN", "LIMITS_TOO_HIGH", "PEER_NOT_ALLOWED", "PAYLOAD_INVALID", excludedByUser,
	"PEER_QUOTA", "PEER_RATE", "TYPE_UNAVAILABLE", "LIMITS_TOO_LOW", "PAYLOAD_TOO_LARGE", "SHUTTING_DOWN", "BUSY", "HOPS", "REFUSED"}

// TaskLeft says that a task has left its provider. If that was the provider's fault, it is chosen less often for a while.
func (c *Consumer) TaskLeft(task string, excluded map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.dir.At(task)
	c.dir.Finished(task)
	why, left := excluded[at]
	if at == "" || !left {
		return
	}
	if strings.HasPrefix(why, "PUZZLE_") { // to have a price is its right, and what is known of it is old
		if !c.cfg.Aloof { // a persona asks itself: this one says nothing of when a task was refused
			c.newsAt = time.Now()
			kick(c.askKick)
		}
		return
	}
	for _, r := range refusals {
		if strings.HasPrefix(why, r) {
			if r != excludedByUser {
				c.dir.Refused(at, time.Now())
			}
			return
		}
	}
	c.dir.Penalise(at, time.Now())
}

// Unreachable says that a peer could not be reached.
func (c *Consumer) Unreachable(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns[peer] == nil { // with a connection it is a service that is missing there, for now
		c.dir.Suspect(peer, time.Now())
	}
}

// Connected says whether a connection to a peer stands.
func (c *Consumer) Connected(peer string, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.dir.SetConnected(peer, on, now)
	if !on {
		delete(c.conns, peer)
		kick(c.joinKick)
		return
	}
	if c.conns[peer] == nil {
		// One that was dialled only to ask how busy it is brings no news: a hundred kilobytes for each would be far more than the answer is worth.
		known := c.loadAsks[peer] != nil
		c.conns[peer] = &conn{answered: known}
		if known || len(c.dir.View()) >= enoughKnown && len(c.conns) > c.cfg.Neighbours {
			return
		}
		c.newsAt = now
		kick(c.askKick)
	}
}

// Disconnected says that no connection stands: the broker is gone, or new.
func (c *Consumer) Disconnected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for peer := range c.conns {
		c.dir.SetConnected(peer, false, time.Now())
	}
	clear(c.conns)
	kick(c.joinKick)
}

// Contact says that a provider has just spoken to this node.
func (c *Consumer) Contact(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir.Contact(peer, time.Now())
}

// answered tells whether an event answers a question that was put to this peer.
func (c *Consumer) answered(from, inReplyTo string, kind eventv1.EventType) bool {
	q, ok := c.questions[inReplyTo]
	if !ok || q.peer != from || q.kind != kind {
		c.counts.Unasked++
		return false
	}
	delete(c.questions, inReplyTo)
	c.counts.Answers++
	if conn := c.conns[from]; conn != nil {
		conn.failures, conn.answered = 0, true
	}
	return true
}

// DiscoverResponse takes a provider's answer. What does not pass the checks costs its sender the whole answer: it has
// passed on what it should have checked itself.
func (c *Consumer) DiscoverResponse(from string, ev *eventv1.Event) Verdict {
	var m eventv1.DiscoverResponse
	if err := proto.Unmarshal(ev.GetPayload(), &m); err != nil {
		return c.invalid("NOT_DECODABLE")
	}
	c.mu.Lock()
	ok := c.answered(from, m.GetInReplyTo(), eventv1.EventType_EVENT_TYPE_DISCOVER)
	c.mu.Unlock()
	if !ok { // before anything is verified: a stranger's answer costs nothing
		return ignored("NOT_ASKED")
	}
	heard := make([]domain.Announcement, 0, min(len(m.GetAnnouncements()), domain.MaxDiscoverReply))
	for _, a := range m.GetAnnouncements() {
		if len(heard) == domain.MaxDiscoverReply {
			break
		}
		if c.old(a) {
			c.mu.Lock()
			c.dir.Vouch(a.GetAuthor(), from)
			c.mu.Unlock()
			continue
		}
		x, err := c.announcement(a)
		if err != nil {
			c.log.Debug("a provider passed on an announcement that is not one", logging.Peer(from), logging.Err(err))
			return c.invalid("ANNOUNCEMENT_INVALID")
		}
		heard = append(heard, x)
	}
	c.mu.Lock()
	c.known = int(min(m.GetKnown(), 1<<20))
	c.dir.Contact(from, time.Now())
	c.mu.Unlock()
	c.hear(from, heard)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir.SetPrice(from, m.GetPuzzle().GetEffort(), m.GetPuzzle().GetNonce())
	return Verdict{}
}

// announcement is announcementOf, by the rules of the mode.
func (c *Consumer) announcement(ev *eventv1.Event) (domain.Announcement, error) {
	if c.cfg.Aloof {
		return onionAnnouncementOf(ev)
	}
	return announcementOf(ev)
}

// old spares the verification of what is known already, bit for bit.
func (c *Consumer) old(ev *eventv1.Event) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.dir.Get(ev.GetAuthor())
	if p == nil {
		return false
	}
	have, ok := p.Signed.(*eventv1.Event)
	return ok && string(have.GetPayload()) == string(ev.GetPayload()) && string(have.GetSignature()) == string(ev.GetSignature())
}

func (c *Consumer) invalid(reason string) Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Invalid++
	return rejected(reason)
}

func (c *Consumer) hear(from string, heard []domain.Announcement) {
	c.mu.Lock()
	now := time.Now()
	learned, changed := 0, false
	for _, a := range heard {
		change := c.dir.Hear(a, a.PeerID == from, now)
		c.dir.Vouch(a.PeerID, from)
		if change == domain.Learned {
			learned++
			if c.conns[a.PeerID] != nil {
				c.dir.SetConnected(a.PeerID, true, now)
			}
		}
		changed = changed || change != domain.Nothing
	}
	if learned > 0 {
		c.log.Debug("providers learned", slog.Int("providers", learned))
		if len(c.dir.View()) < enoughKnown { // in a large network there is always news
			c.newsAt = now
			kick(c.askKick)
		}
		kick(c.joinKick)
		kick(c.loadKick)
	}
	c.mu.Unlock()
	if changed {
		c.Changed()
	}
}

// MetricAvailable takes a provider's metric.
func (c *Consumer) MetricAvailable(from string, ev *eventv1.Event) Verdict {
	m, err := metricOf(ev)
	if err != nil || ev.GetAuthor() != from {
		return c.invalid("METRIC_INVALID")
	}
	interval := min(max(m.GetMetric().GetInterval().AsDuration(), domain.MinInterval), domain.MaxInterval)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answered(from, m.GetInReplyTo(), eventv1.EventType_EVENT_TYPE_METRIC_QUERY) {
		return ignored("NOT_ASKED")
	}
	now := time.Now()
	c.trails.Add(from, m.GetMetric(), now)
	if !c.dir.SetLoad(from, loadOf(m.GetMetric(), 0, interval, now), now) {
		return ignored("OLD")
	}
	delete(c.silent, from)
	c.loadAskedLocked(from, c.loadAsks[from], true)
	return Verdict{}
}

// Redirected learns of the provider that has a task of this node's now, and connects to it: until then it holds what it
// has to say.
func (c *Consumer) Redirected(ctx context.Context, ev *eventv1.Event) {
	a, err := c.announcement(ev)
	if err != nil || a.Leaving {
		c.log.Debug("a redirect names a provider by an announcement that is not one", logging.Err(err))
		return
	}
	c.hear("", []domain.Announcement{a})
	c.mu.Lock()
	connected := c.conns[a.PeerID] != nil
	c.mu.Unlock()
	if connected || len(a.Addresses) == 0 || c.cfg.Aloof { // the task's persona dials it
		return
	}
	go func() { // the acknowledgement must not wait for a dial
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.DialTimeout)
		defer cancel()
		if _, err := c.net.Connect(ctx, a.PeerID, a.Addresses); err != nil {
			c.log.Debug("the provider that a task was handed to could not be reached", logging.Peer(a.PeerID), logging.Err(err))
		}
	}()
}

// Figures are what others may want to know about the view.
func (c *Consumer) Figures() (available, known int, counts ConsumerCounts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.dir.View() {
		if p.State == domain.StateAvailable {
			available++
		}
	}
	return available, len(c.dir.View()), c.counts
}

// Providers lists the view by peer id; see domain.Directory.List.
func (c *Consumer) Providers(after string, limit int, keep func(*domain.Provider) bool) ([]domain.Provider, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir.Sweep(time.Now())
	return c.dir.List(after, limit, keep)
}

// SetRTT notes measured round trips.
func (c *Consumer) SetRTT(peer string, rtt time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir.SetRTT(peer, rtt)
}

func pick(ids []string, n int) []string {
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids[:min(n, len(ids))]
}
