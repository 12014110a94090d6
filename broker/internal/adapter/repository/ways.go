package repository

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Way is a connection by which a persona's content travels from and to one peer. Where content has hosts of its own, these have other ids than the persona and the peer.
type Way interface {
	Lane() int    // which of the persona's hosts it is, as AttachLane numbers them
	Peer() string // the id of the peer's host
	// Gone is closed when the connection has ended.
	Gone() <-chan struct{}
	// Heard is when bytes last came; zero: never.
	Heard() time.Time
	// Close ends the connection: the next one goes elsewhere through the network.
	Close()
	// Release says that the way is not used any more; it may be called again. Until then its host stays.
	Release()
}

// Lanes are hosts for content beside those of events. All peers are named as they are at the hosts of events.
type Lanes struct {
	// Way makes sure of one of the ways between a persona and a peer, and blocks for seconds; number counts them from 0, and for what is beyond the last it fails.
	Way func(ctx context.Context, persona, peer string, number int) (Way, error)
	// Owner is the peer who has named a host as his; empty: nobody.
	Owner func(persona, lane string) string
	// Expect is told of peers that may fetch something from now on. It does not block.
	Expect func(persona string, peers []string)
}

// only has the ways of a persona whose one host does everything: one to each peer.
type only struct {
	host    host.Host
	timeout time.Duration // of a dial

	mu   sync.Mutex
	gone map[peer.ID]chan struct{}
}

var errNoWay = errors.New("there is one way to a peer")

func newOnly(h host.Host, timeout time.Duration) *only {
	s := &only{host: h, timeout: timeout, gone: make(map[peer.ID]chan struct{})}
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) { s.disconnected(c.RemotePeer()) }})
	return s
}

func (s *only) connected(p peer.ID) bool {
	return s.host.Network().Connectedness(p) == network.Connected
}

func (s *only) disconnected(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone := s.gone[p]; gone != nil && !s.connected(p) {
		close(gone)
		delete(s.gone, p)
	}
}

func (s *only) way(ctx context.Context, p peer.ID, number int) (Way, error) {
	if number > 0 {
		return nil, errNoWay
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.host.Connect(ctx, peer.AddrInfo{ID: p}); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.connected(p) {
		return nil, errors.New("the connection has ended as soon as it stood")
	}
	gone := s.gone[p]
	if gone == nil {
		gone = make(chan struct{})
		s.gone[p] = gone
	}
	return &onlyWay{s, p, gone, time.Now()}, nil
}

type onlyWay struct {
	s     *only
	peer  peer.ID
	gone  <-chan struct{}
	since time.Time
}

func (w *onlyWay) Lane() int             { return 0 }
func (w *onlyWay) Peer() string          { return w.peer.String() }
func (w *onlyWay) Gone() <-chan struct{} { return w.gone }

// Heard is not known: what has stopped to move is left to the multiplexer.
func (w *onlyWay) Heard() time.Time { return time.Now() }
func (w *onlyWay) Close()           { _ = w.s.host.Network().ClosePeer(w.peer) }
func (w *onlyWay) Release()         {}

// way is one between a persona and a peer.
func (p *persona) way(ctx context.Context, s *Store, to peer.ID, number int) (Way, error) {
	if s.cfg.Lanes != nil {
		return s.cfg.Lanes.Way(ctx, p.name, to.String(), number)
	}
	return p.only.way(ctx, to, number)
}

// AttachLane serves and fetches blocks on one of the hosts for content of a persona that is attached, until DetachLane.
func (s *Store) AttachLane(name string, number int, h host.Host) error {
	p, err := s.persona(name)
	if err != nil {
		return err
	}
	l := s.present(name, h, namedProviders{h})
	s.mu.Lock()
	old := p.lanes[number]
	if old == nil {
		p.lanes[number] = l
	}
	s.mu.Unlock()
	if old != nil {
		return errors.Join(errors.New("there is a lane of that number already"), l.bitswap.Close())
	}
	return nil
}

// DetachLane ends what AttachLane began. An unknown one is no error.
func (s *Store) DetachLane(name string, number int) error {
	s.mu.Lock()
	var l *lane
	if p := s.personas[name]; p != nil {
		l = p.lanes[number]
		delete(p.lanes, number)
	}
	s.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.bitswap.Close()
}

// lane is a persona's bitswap of that number; nil: it has been closed.
func (s *Store) lane(p *persona, number int) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.lanes[number]
}

// lanesOf are all that a persona has now.
func (s *Store) lanesOf(p *persona) []*lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*lane, 0, len(p.lanes))
	for _, l := range p.lanes {
		out = append(out, l)
	}
	return out
}

// owner is for whom a peer speaks that a host of the persona is connected to.
func (s *Store) owner(persona string, p peer.ID) string {
	if s.cfg.Lanes != nil {
		return s.cfg.Lanes.Owner(persona, p.String())
	}
	return p.String()
}

// Granted tells whether a persona has content that a peer may have.
func (s *Store) Granted(persona, peer string) bool {
	return s.grants != nil && s.grants.Any(persona, peer)
}
