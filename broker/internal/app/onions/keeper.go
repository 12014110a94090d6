package onions

import (
	"context"
	"crypto/subtle"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
	"github.com/shallot-net/shallot/kit/fault"
)

// States of tor.
const (
	TorUnreachable = "unreachable"
	TorRefused     = "refused"
	TorStarting    = "starting"
	TorOnline      = "online"
)

// States of a service.
const (
	ServiceAdding     = "adding"
	ServicePublishing = "publishing"
	ServicePublished  = "published"
)

// maxClientKeys bounds what Authorize remembers: a private network has not more nodes that one node calls.
const maxClientKeys = 4096

// Config of a Keeper; Tor and Records are required.
type Config struct {
	Tor         Tor
	Records     Records
	Observer    Observer // default: none
	Log         *slog.Logger
	MaxServices int // default 70: each costs its tor some ten circuits
}

// Keeper keeps services at tor. Run does the work; the other methods say what it is to keep, and may be called at any time by anybody.
type Keeper struct {
	cfg  Config
	wake chan struct{} // there may be something to do

	mu       sync.Mutex
	changed  chan struct{} // closed at the next change
	tor      TorState
	network  onionsvc.Network
	version  string
	warning  string // of tor's configuration
	tried    bool   // a first connection was made or failed
	session  bool   // there is one
	services map[string]*service
	clients  map[string]*client
	records  map[string]Record
	dirty    bool                // records are not saved
	leaving  map[string]struct{} // were withdrawn and may still be at tor
	atTor    map[string]string   // detached services of this session, with the digests of their requests; "" where unknown
	graceEnd time.Time           // until then services of a former process are kept for those who ask for them again
	nextAdd  time.Time
	offline  time.Time // since when tor has said that it is not online; zero while it is
}

// TorState is what is known of tor.
type TorState struct {
	State    string
	Progress int
	Detail   string
	Version  string
	Since    time.Time
}

// ServiceState is one service that is kept.
type ServiceState struct {
	ID          string
	State       string
	Uploads     uint32
	PublishedAt time.Time
}

type service struct {
	onionsvc.Service
	digest      string
	uploads     uint32
	publishedAt time.Time // zero: not published
	takenAt     time.Time // when a directory last took the descriptor
	uploading   bool      // an upload has begun since it was added: what is taken now is of this service, not of one before it
	deadline    time.Time // when it is made anew if nobody took its descriptor; zero while tor is not online
	patience    time.Duration
	again       bool          // it was at tor before
	notBefore   time.Time     // after a rejection
	pause       time.Duration // until the next try after one
	rejected    error         // what those who wait for it get
}

type client struct {
	key      []byte
	done     bool // this session's tor has it
	rejected error
}

// New makes a keeper that knows of nothing to keep yet.
func New(cfg Config) *Keeper {
	if cfg.MaxServices <= 0 {
		cfg.MaxServices = 70
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	return &Keeper{cfg: cfg, wake: make(chan struct{}, 1), changed: make(chan struct{}), services: map[string]*service{}, clients: map[string]*client{},
		records: map[string]Record{}, leaving: map[string]struct{}{},
		tor: TorState{State: TorUnreachable, Detail: "connecting to tor's control port", Since: time.Now()}}
}

// Publish keeps a service from now on, and returns its id once tor has it or has said why not. It blocks until then, or until ctx ends.
func (k *Keeper) Publish(ctx context.Context, r onionsvc.Request) (string, error) {
	s, err := onionsvc.New(r)
	if err != nil {
		return "", invalid(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	digest := s.Digest()
	svc := k.services[s.ID]
	if svc == nil && len(k.services) >= k.cfg.MaxServices {
		return "", fault.ResourceExhausted(ReasonTooMany, "%d onion services are kept, and no more may be: withdraw one, or raise --max-services", len(k.services))
	}
	if svc == nil || svc.digest != digest {
		svc = &service{Service: s, digest: digest}
		k.services[s.ID] = svc
		delete(k.leaving, s.ID)
		k.adopt(svc)
		k.notify()
	}
	err = k.wait(ctx, func() (bool, error) {
		at, there := k.atTor[svc.ID]
		return there && at == svc.digest || k.services[svc.ID] != svc, svc.rejected
	})
	return s.ID, err
}

// Withdraw ends a service and returns once tor has ended it. A name that is not kept is none of ours, and nothing happens.
func (k *Keeper) Withdraw(ctx context.Context, id string) error {
	if err := onionsvc.CheckID(id); err != nil {
		return invalid(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	_, kept := k.services[id]
	_, known := k.records[id]
	if !kept && !known {
		return nil
	}
	delete(k.services, id)
	k.leaving[id] = struct{}{}
	k.notify()
	return k.wait(ctx, func() (bool, error) {
		_, leaving := k.leaving[id]
		return !leaving, nil
	})
}

// Authorize has tor use a client's private key for a service, now and after every restart of tor. It returns once tor has it.
func (k *Keeper) Authorize(ctx context.Context, id string, key []byte) error {
	if err := onionsvc.CheckID(id); err != nil {
		return invalid(err)
	}
	if err := onionsvc.CheckClientKey(key); err != nil {
		return invalid(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.clients[id]
	if c == nil && len(k.clients) >= maxClientKeys {
		return fault.ResourceExhausted(ReasonTooManyKeys, "%d client keys are kept, and no more may be: restart shallot-onion to forget those that nobody needs", len(k.clients))
	}
	if c == nil || subtle.ConstantTimeCompare(c.key, key) == 0 {
		c = &client{key: slices.Clone(key)}
		k.clients[id] = c
		k.notify()
	}
	return k.wait(ctx, func() (bool, error) { return c.done || k.clients[id] != c, c.rejected })
}

// State is how things are, and what is closed at the next change.
func (k *Keeper) State() (TorState, []ServiceState, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]ServiceState, 0, len(k.services))
	for id, s := range k.services {
		out = append(out, ServiceState{ID: id, State: k.stateOf(s), Uploads: s.uploads, PublishedAt: s.publishedAt})
	}
	slices.SortFunc(out, func(a, b ServiceState) int { return strings.Compare(a.ID, b.ID) })
	return k.tor, out, k.changed
}

func (k *Keeper) stateOf(s *service) string {
	switch at, there := k.atTor[s.ID]; {
	case !there || at != s.digest:
		return ServiceAdding
	case s.publishedAt.IsZero():
		return ServicePublishing
	}
	return ServicePublished
}

// wait blocks until done, an error, the end of ctx, or while tor cannot be used. It is called and returns with the lock, and lets go of it meanwhile.
func (k *Keeper) wait(ctx context.Context, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if k.tried && !k.session {
			return fault.Unavailable(ReasonUnreachable, "tor cannot be used now, and it is done as soon as it can: %s", k.tor.Detail)
		}
		changed := k.changed
		k.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		k.mu.Lock()
		if err := context.Cause(ctx); err != nil {
			return fault.Wrap(err, fault.From(err).Code, fault.From(err).Reason, "it is kept, and tor has not done it yet: tor is %s; %s", k.tor.State, k.tor.Detail)
		}
	}
}

// notify wakes those who wait for a change and the loop that works. With the lock.
func (k *Keeper) notify() {
	close(k.changed)
	k.changed = make(chan struct{})
	published := 0
	for _, s := range k.services {
		if k.stateOf(s) == ServicePublished {
			published++
		}
	}
	k.cfg.Observer.Gauges(k.tor.State == TorOnline, len(k.services), published)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// setTor moves tor's state; Since is of the state's last change. With the lock.
func (k *Keeper) setTor(t TorState) {
	t.Since = k.tor.Since
	if t.State != k.tor.State {
		t.Since = time.Now()
	}
	if t == k.tor {
		return
	}
	if t.State != k.tor.State || t.Detail != k.tor.Detail {
		k.cfg.Log.Info("tor is "+t.State, "progress", t.Progress, "detail", t.Detail)
	}
	k.tor = t
	k.notify()
}

type nobody struct{}

func (nobody) Added(string)          {}
func (nobody) Uploaded()             {}
func (nobody) Lost()                 {}
func (nobody) Gauges(bool, int, int) {}
