package app

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/domain/access"
	"github.com/shallot-net/shallot/kit/fault"
)

// Self is what a persona is and where it listens.
type Self struct {
	PeerID      string
	Addresses   []string
	Mode        string
	Private     bool // the network has a key
	Connections int
	Reach       Reach
}

// Reach is how the network can be reached, where something stands between.
type Reach struct {
	Online bool
	// State is unreachable, refused, starting, publishing, or online; empty in open mode, where nothing stands between.
	State    string
	Progress uint32 // of the start, 0 to 100
	Detail   string // what it waits for, or what is wrong
	Enclosed bool   // the process has no other way out
}

// Self describes a persona.
func (b *Broker) Self(name string) (Self, error) {
	p, err := b.persona(name)
	if err != nil {
		return Self{}, err
	}
	return Self{PeerID: p.host.ID(), Addresses: p.host.Addresses(), Mode: b.cfg.Mode, Private: b.cfg.Private, Connections: len(p.host.Peers()), Reach: b.cfg.Reach()}, nil
}

// Connect returns the peer's id once a connection stands, or, with rememberOnly, once its addresses are kept.
func (b *Broker) Connect(ctx context.Context, name string, t Target, rememberOnly bool) (string, error) {
	p, err := b.persona(name)
	if err != nil {
		return "", err
	}
	if rememberOnly {
		return p.host.Remember(t)
	}
	id, err := p.host.Connect(ctx, t)
	if err == nil {
		return id, nil
	}
	return "", connectFault(ctx, err)
}

func connectFault(ctx context.Context, err error) error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, ErrNoAddress):
		return fault.NotFound("NO_ADDRESS", "no address of the peer is known: give one").Because(err)
	case errors.Is(err, ErrNotAdmitted):
		return fault.New(codes.PermissionDenied, "PEER_NOT_ADMITTED", "this node's own lists of peers do not admit that peer: see peers.allow and peers.deny in its home, and allow and deny in the broker's configuration").Because(err)
	case errors.Is(err, ErrSelf):
		return fault.InvalidArgument("PEER_IS_SELF", "that is this persona's own id: a node does not connect to itself")
	case ctx.Err() != nil:
		return fault.Wrap(err, codes.DeadlineExceeded, "UNREACHABLE", "the peer did not answer before the deadline")
	}
	return fault.Wrap(err, codes.Unavailable, "UNREACHABLE", "the peer could not be reached: is it running, are its addresses right, is it of the same network, and does it admit this node?")
}

// Restrict lets only those in whom the lists admit, from now on.
func (b *Broker) Restrict(lists access.Lists) {
	b.mu.Lock()
	b.admits = lists.Admits
	open := make([]*persona, 0, len(b.personas))
	for _, p := range b.personas {
		open = append(open, p)
	}
	b.mu.Unlock()
	for _, p := range open {
		p.host.Restrict(lists.Admits)
	}
}

// Disconnect closes the connections to a peer; when there are none it does nothing.
func (b *Broker) Disconnect(name, peer string) error {
	p, err := b.persona(name)
	if err != nil {
		return err
	}
	return p.host.Disconnect(peer)
}

// Peers lists the connected ones.
func (b *Broker) Peers(name string) ([]Peer, error) {
	p, err := b.persona(name)
	if err != nil {
		return nil, err
	}
	return p.host.Peers(), nil
}

// Protect keeps connections from being trimmed, under a tag. The list replaces the tag's former one.
func (b *Broker) Protect(name, tag string, peers []string) error {
	p, err := b.persona(name)
	if err != nil {
		return err
	}
	if tag == "" || len(tag) > 64 {
		return fault.InvalidArgument("TAG_INVALID", "tag %q: it must have 1 to 64 bytes", tag)
	}
	return p.host.Protect(tag, peers)
}

// Change is a peer that came or went.
type Change struct {
	Peer      string
	Connected bool
}

// watchBuffer is how many changes a watcher may be behind.
const watchBuffer = 1024

// Watcher gets changes until it is closed, lags too far behind, or the persona ends.
type Watcher struct {
	C       <-chan Change // closed at the end; Err says why
	c       chan Change
	once    sync.Once
	err     error
	persona *persona
}

// Watch begins with one change for every peer that is connected already.
func (b *Broker) Watch(name string) (*Watcher, error) {
	p, err := b.persona(name)
	if err != nil {
		return nil, err
	}
	c := make(chan Change, watchBuffer)
	w := &Watcher{C: c, c: c, persona: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		return nil, fault.Unavailable("PERSONA_CLOSED", "the persona was closed")
	default:
	}
	// Under the lock, or a peer that goes now would be told to come after it went.
	for _, q := range p.host.Peers() {
		if len(c) < watchBuffer/2 {
			c <- Change{q.ID, true}
		}
	}
	p.watchers[w] = struct{}{}
	return w, nil
}

// Close ends the watcher.
func (w *Watcher) Close() {
	w.persona.mu.Lock()
	defer w.persona.mu.Unlock()
	delete(w.persona.watchers, w)
	w.end(nil)
}

// Err is why C was closed.
func (w *Watcher) Err() error { return w.err }

func (w *Watcher) end(err error) {
	w.once.Do(func() {
		w.err = err
		close(w.c)
	})
}

// changed is called by the host.
func (p *persona) changed(peer string, connected bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, was := p.peers[peer]; connected && !was {
		p.peers[peer] = struct{}{}
		p.broker.obs.Adjust("peers", 1)
	} else if !connected && was {
		delete(p.peers, peer)
		p.broker.obs.Adjust("peers", -1)
	}
	for w := range p.watchers {
		select {
		case w.c <- Change{peer, connected}:
		default:
			delete(p.watchers, w)
			w.end(fault.ResourceExhausted("WATCH_LAGS", "the watcher is %d changes behind: watch again", watchBuffer))
		}
	}
	if s := p.senders[peer]; s != nil && connected {
		s.reachable()
	}
}
