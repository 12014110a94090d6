// Package onionclient keeps this node's onion services at shallot-onion, and knows by it how tor is.
package onionclient

import (
	"context"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/kit/fault"
	onionv1 "github.com/shallot-net/shallot/proto/shallot/onion/v1"
)

// statePublishing is what this side adds to the states of tor: that is online, and a service cannot be reached yet.
const statePublishing = "publishing"

// Config of a Client. Log may be left out.
type Config struct {
	Port       uint32 // under which services are reached
	MaxStreams uint32 // of a circuit; 0: as many as come
	// Probe dials a service as a stranger would, by tor. It returns an error when the service cannot be reached. Nil: it is not tried.
	Probe      func(ctx context.Context, serviceID string) error
	ProbeEvery time.Duration // default 10 min
	ProbeAgain time.Duration // after a failure; default 5 s
	Enclosed   bool
	// NetworkKey is that of a private network, from which the key follows without which tor does not see its services; nil: they are open.
	NetworkKey []byte
	Log        *slog.Logger
}

// Bounds.
const (
	callTimeout  = 20 * time.Second // tor takes services in one after the other
	probeTimeout = 2 * time.Minute
	probeFails   = 3 // in a row, and the service is made anew
)

// Client keeps services: a broker has one. It is safe for concurrent use.
type Client struct {
	cfg   Config
	calls onionv1.OnionServiceClient

	mu     sync.Mutex
	wanted map[string]*service
	news   chan struct{} // closed and replaced with every change of wanted or of what is known
	tor    *onionv1.Tor  // nil: shallot-onion does not answer
	life   int           // counts the connections to shallot-onion: each has to be asked anew
	was    string
	member *ecdh.PrivateKey // nil: the network is open
	seen   map[string]int   // services that tor has been authorized for, and in which life
}

// service is one that is wanted.
type service struct {
	request *onionv1.PublishRequest
	told    int // the life in which shallot-onion was told
	state   string
	reached bool // a probe came through since it was published
	fails   int
	probing bool
	probed  time.Time
}

// memberInfo sets the members' key of a network apart from other uses of the network's.
const memberInfo = "shallot onion client authorization v1"

// maxSeen bounds the services that are remembered as authorized; past it they are authorized again.
const maxSeen = 4096

// memberKey follows from a network's key: who has that is a member, and all members are alike (X25519 of Tor's rend-spec-v3, client authorization; HKDF of RFC 5869).
func memberKey(network []byte) (*ecdh.PrivateKey, error) {
	if network == nil {
		return nil, nil
	}
	raw, err := hkdf.Key(sha256.New, network, nil, memberInfo, 32)
	if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPrivateKey(raw)
}

// New makes a Client; Run keeps it going. It fails for a network key that is none.
func New(conn grpc.ClientConnInterface, cfg Config) (*Client, error) {
	member, err := memberKey(cfg.NetworkKey)
	if err != nil {
		return nil, err
	}
	if cfg.ProbeEvery <= 0 {
		cfg.ProbeEvery = 10 * time.Minute
	}
	if cfg.ProbeAgain <= 0 {
		cfg.ProbeAgain = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: cfg, calls: onionv1.NewOnionServiceClient(conn), wanted: make(map[string]*service), news: make(chan struct{}), member: member, seen: make(map[string]int)}, nil
}

// Authorize lets tor see a service of the private network. In an open one it does nothing.
func (c *Client) Authorize(ctx context.Context, serviceID string) error {
	if c.member == nil {
		return nil
	}
	c.mu.Lock()
	life := c.life
	done := life > 0 && c.seen[serviceID] == life
	c.mu.Unlock()
	if done {
		return nil
	}
	if _, err := c.calls.Authorize(ctx, &onionv1.AuthorizeRequest{ServiceId: serviceID, ClientKey: c.member.Bytes()}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) >= maxSeen {
		clear(c.seen)
	}
	c.seen[serviceID] = life
	return nil
}

// changed wakes whoever waits; the lock is held.
func (c *Client) changed() {
	close(c.news)
	c.news = make(chan struct{})
}

// Keep makes a service whose streams come to a socket. It does not block; what has become of it shows in Reach.
func (c *Client) Keep(seed []byte, serviceID, socket string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &onionv1.PublishRequest{KeySeed: seed, Socket: socket, Port: c.cfg.Port, MaxStreams: c.cfg.MaxStreams, ProofOfWork: true}
	if c.member != nil {
		r.ClientKeys = []string{base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(c.member.PublicKey().Bytes())}
	}
	c.wanted[serviceID] = &service{request: r}
	c.changed()
}

// Drop ends a service. It does not block.
func (c *Client) Drop(serviceID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.wanted[serviceID]; !ok {
		return
	}
	delete(c.wanted, serviceID)
	c.changed()
	go func() { // where it does not get there, shallot-onion lets go by itself of what is not asked for
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = c.calls.Withdraw(ctx, &onionv1.WithdrawRequest{ServiceId: serviceID})
	}()
}

// Reach is how the network can be reached now: online once tor is, and once every service that is wanted could be reached by tor.
func (c *Client) Reach() app.Reach {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reach()
}

func (c *Client) reach() app.Reach {
	r := app.Reach{Enclosed: c.cfg.Enclosed}
	if c.tor == nil {
		r.State, r.Detail = onions.TorUnreachable, "the process shallot-onion does not answer"
		return r
	}
	r.State, r.Progress, r.Detail = c.tor.GetState(), c.tor.GetProgress(), c.tor.GetDetail()
	if r.State != onions.TorOnline {
		return r
	}
	for _, s := range c.wanted {
		switch {
		case s.state != onions.ServicePublished:
			r.State, r.Detail = statePublishing, "waiting for the directories to take this node's onion service"
			return r
		case !s.reached && c.cfg.Probe != nil:
			r.State, r.Detail = statePublishing, "dialling this node's own onion service, to see whether others can"
			return r
		}
	}
	r.Online = true
	return r
}

// note logs a change of the state, once; the lock is held.
func (c *Client) note() {
	r := c.reach()
	if r.State == c.was {
		return
	}
	c.was = r.State
	c.cfg.Log.Info("the way to the network", slog.String("state", r.State), slog.String("detail", r.Detail))
}

// Run follows shallot-onion until ctx ends, and tells it again what is wanted after each of its restarts.
func (c *Client) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.tell(ctx) })
	wg.Go(func() { c.probe(ctx) })
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 2*time.Second
	for ctx.Err() == nil {
		if c.follow(ctx) {
			wait.Reset()
		}
		c.mu.Lock()
		c.tor = nil
		c.note()
		c.changed()
		c.mu.Unlock()
		pause(ctx, wait.NextBackOff())
	}
	wg.Wait()
	return ctx.Err()
}

// follow takes in one watch to its end, and tells whether there was one.
func (c *Client) follow(ctx context.Context) (began bool) {
	stream, err := c.calls.Watch(ctx, &onionv1.WatchRequest{})
	if err != nil {
		return false
	}
	for {
		w, err := stream.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.cfg.Log.Debug("the watch of shallot-onion ended", slog.String("reason", fault.From(err).Reason))
			}
			return began
		}
		c.apply(w, !began)
		began = true
	}
}

func (c *Client) apply(w *onionv1.WatchResponse, first bool) {
	states := make(map[string]string, len(w.GetServices()))
	for _, s := range w.GetServices() {
		states[s.GetServiceId()] = s.GetState()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first {
		c.life++
	}
	c.tor = w.GetTor()
	for id, s := range c.wanted {
		was := s.state
		if s.state = states[id]; s.state != onions.ServicePublished || c.tor.GetState() != onions.TorOnline {
			s.reached = false
		} else if was != onions.ServicePublished {
			s.probed, s.fails = time.Time{}, 0
		}
	}
	c.note()
	c.changed()
}

// tell says what is wanted to a shallot-onion that does not know it.
func (c *Client) tell(ctx context.Context) {
	for ctx.Err() == nil {
		id, s, news := c.untold()
		if s == nil {
			select {
			case <-ctx.Done():
			case <-news:
			}
			continue
		}
		life := c.lifeNow()
		call, cancel := context.WithTimeout(ctx, callTimeout)
		got, err := c.calls.Publish(call, s.request)
		cancel()
		f := fault.From(err)
		switch {
		case err == nil && got.GetServiceId() != id:
			c.cfg.Log.Error("shallot-onion made another service than the one that was asked for")
		case err != nil && f.Reason != "TOR_UNREACHABLE": // that it keeps and does when it can
			c.cfg.Log.Warn("the onion service cannot be made", slog.String("reason", f.Reason))
			pause(ctx, time.Second)
			continue
		}
		c.mu.Lock()
		s.told = life
		c.mu.Unlock()
	}
}

func (c *Client) lifeNow() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.life
}

func (c *Client) untold() (string, *service, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tor != nil {
		for id, s := range c.wanted {
			if s.told != c.life {
				return id, s, c.news
			}
		}
	}
	return "", nil, c.news
}

// probe dials published services, at first until one dial comes through and then from time to time: directories may lose what they took, and tor does not notice.
func (c *Client) probe(ctx context.Context) {
	if c.cfg.Probe == nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for ctx.Err() == nil {
		id, s, next, news := c.due()
		if s == nil {
			t := time.NewTimer(next)
			select {
			case <-ctx.Done():
			case <-news:
			case <-t.C:
			}
			t.Stop()
			continue
		}
		wg.Go(func() {
			call, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			err := c.Authorize(call, id) // to its own eyes, too, it is not there without
			if err == nil {
				err = c.cfg.Probe(call, id)
			}
			c.probedTo(id, s, err)
		})
	}
}

func (c *Client) due() (string, *service, time.Duration, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.cfg.ProbeEvery
	if c.tor.GetState() != onions.TorOnline {
		return "", nil, next, c.news
	}
	for id, s := range c.wanted {
		if s.probing || s.state != onions.ServicePublished {
			continue
		}
		every := c.cfg.ProbeAgain
		if s.reached && s.fails == 0 {
			every = spread(id, c.cfg.ProbeEvery)
		}
		left := every - time.Since(s.probed)
		if left <= 0 {
			s.probing = true
			return id, s, 0, c.news
		}
		next = min(next, left)
	}
	return "", nil, next, c.news
}

// spread keeps nodes from probing in step.
func spread(id string, d time.Duration) time.Duration {
	return d/2 + d*time.Duration(sha256.Sum256([]byte(id))[0])/256
}

func (c *Client) probedTo(id string, s *service, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.probing, s.probed = false, time.Now()
	if c.wanted[id] != s || s.state != onions.ServicePublished || c.tor.GetState() != onions.TorOnline {
		c.changed()
		return // it tells of another time
	}
	if err == nil {
		s.reached, s.fails = true, 0
	} else if s.fails++; s.fails >= probeFails {
		c.cfg.Log.Warn("this node's onion service cannot be reached: it is made anew", slog.Any("error", err))
		s.reached, s.fails = false, 0
		go c.remake(id)
	}
	c.note()
	c.changed()
}

// remake has a service taken away, so that to tell of it again makes it.
func (c *Client) remake(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, _ = c.calls.Withdraw(ctx, &onionv1.WithdrawRequest{ServiceId: id})
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.wanted[id]; s != nil {
		s.told = 0
	}
	c.changed()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
