// Package apptest is what the broker's use cases need, in memory: a network whose connections can be cut, keys, and a codec.
package apptest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// ErrReset is what a reset stream's reads and writes return.
var ErrReset = errors.New("stream reset")

// ErrDown is what dialling a host that cannot be reached returns.
var ErrDown = errors.New("no answer")

// Network is an app.Network whose hosts reach each other by pipes. Everybody's address is known, unless Unknown says otherwise.
type Network struct {
	mu      sync.Mutex
	hosts   map[string]*Host
	streams map[*Stream]struct{}
	down    map[string]bool
	unknown map[string]bool
	dials   int

	// Wrote is called with the length of all that a stream is given at once, if it is set before the first stream is opened.
	Wrote func(n int)
	// Signing is called before something is signed, if it is set before the first host is opened.
	Signing func()
}

// NewNetwork makes an empty one.
func NewNetwork() *Network {
	return &Network{hosts: map[string]*Host{}, streams: map[*Stream]struct{}{}, down: map[string]bool{}, unknown: map[string]bool{}}
}

// Cut resets all streams between all hosts, as a network does that drops its connections.
func (n *Network) Cut() {
	n.mu.Lock()
	var all []*Stream
	for s := range n.streams {
		all = append(all, s)
	}
	n.mu.Unlock()
	for _, s := range all {
		_ = s.Reset()
	}
}

// SetDown makes a host unreachable, or reachable again.
func (n *Network) SetDown(id string, down bool) {
	n.mu.Lock()
	n.down[id] = down
	n.mu.Unlock()
}

// SetUnknown makes a host's address unknown, or known.
func (n *Network) SetUnknown(id string, unknown bool) {
	n.mu.Lock()
	n.unknown[id] = unknown
	n.mu.Unlock()
}

// Dials is how often a stream was asked for.
func (n *Network) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// Announce tells a host that a peer has connected.
func (n *Network) Announce(at, peer string) {
	n.mu.Lock()
	h := n.hosts[at]
	n.mu.Unlock()
	h.handlers.Changed(peer, true)
}

// Open makes a host.
func (n *Network) Open(_ string, seed []byte, h app.Handlers) (app.Host, error) {
	sum := sha256.Sum256(seed)
	host := &Host{network: n, id: hex.EncodeToString(sum[:8]), key: ed25519.NewKeyFromSeed(seed), handlers: h, refused: map[string]time.Duration{}}
	n.mu.Lock()
	n.hosts[host.id] = host
	n.mu.Unlock()
	return host, nil
}

// Host is an app.Host.
type Host struct {
	network  *Network
	id       string
	key      ed25519.PrivateKey
	handlers app.Handlers
	serving  sync.WaitGroup

	mu      sync.Mutex
	refused map[string]time.Duration
}

// The methods of app.Host that streams and gossip do not need do nothing.
func (h *Host) ID() string                                              { return h.id }
func (h *Host) Addresses() []string                                     { return []string{"/memory/" + h.id} }
func (h *Host) Listen() error                                           { return nil }
func (h *Host) Remember(t app.Target) (string, error)                   { return t.Peer, nil }
func (h *Host) Disconnect(string) error                                 { return nil }
func (h *Host) Restrict(func(string) bool)                              {}
func (h *Host) Peers() []app.Peer                                       { return nil }
func (h *Host) Connected(string) bool                                   { return true }
func (h *Host) Protect(string, []string) error                          { return nil }
func (h *Host) Join(string) (func(), error)                             { return func() {}, nil }
func (h *Host) Publish(context.Context, string, []byte) error           { return nil }
func (h *Host) Connect(_ context.Context, t app.Target) (string, error) { return t.Peer, nil }

// Sign signs.
func (h *Host) Sign(b []byte) ([]byte, error) {
	if h.network.Signing != nil {
		h.network.Signing()
	}
	return ed25519.Sign(h.key, b), nil
}

// PublicKey implements event.Keys for the hosts of this network.
func (n *Network) PublicKey(id string) (ed25519.PublicKey, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, ok := n.hosts[id]
	if !ok {
		return nil, errors.New("nobody has this id")
	}
	return h.key.Public().(ed25519.PublicKey), nil
}

// Find finds nobody.
func (h *Host) Find(context.Context, string, int, func(app.Target) error) error {
	return app.ErrRoutingOff
}

// Advertise tells nobody.
func (h *Host) Advertise(context.Context, string) error { return app.ErrRoutingOff }

// Refuse is written down.
func (h *Host) Refuse(peer string, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused[peer] = d
}

// Close waits for the handlers.
func (h *Host) Close() error {
	h.network.mu.Lock()
	delete(h.network.hosts, h.id)
	h.network.mu.Unlock()
	h.network.Cut()
	h.serving.Wait()
	return nil
}

// OpenStream opens a pipe.
func (h *Host) OpenStream(_ context.Context, peer string) (app.Stream, error) {
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials++
	to, ok := n.hosts[peer]
	switch {
	case n.unknown[peer]:
		return nil, app.ErrNoAddress
	case n.down[peer] || !ok:
		return nil, ErrDown
	}
	c1, c2 := net.Pipe()
	near, far := &Stream{Conn: c1, network: n}, &Stream{Conn: c2, network: n}
	near.other, far.other = far, near
	n.streams[near] = struct{}{}
	to.serving.Go(func() { to.handlers.Stream(h.id, far) })
	return near, nil
}

// Stream is one end of a pipe.
type Stream struct {
	net.Conn
	network *Network
	other   *Stream
	reset   atomic.Bool
}

// Reset ends both ends.
func (s *Stream) Reset() error {
	s.reset.Store(true)
	s.other.reset.Store(true)
	return errors.Join(s.Close(), s.other.Close())
}

// Close ends both ends too: a pipe has no half of one.
func (s *Stream) Close() error {
	s.network.mu.Lock()
	delete(s.network.streams, s)
	delete(s.network.streams, s.other)
	s.network.mu.Unlock()
	return s.Conn.Close()
}

func (s *Stream) Write(b []byte) (int, error) {
	if f := s.network.Wrote; f != nil {
		f(len(b))
	}
	return s.Conn.Write(b)
}

func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if err != nil && s.reset.Load() {
		err = ErrReset
	}
	return n, err
}

// Keys is an app.Keys.
type Keys struct {
	mu    sync.Mutex
	seeds map[string][]byte
	first byte
}

// NewKeys makes keys that differ by the given number.
func NewKeys(first byte) *Keys { return &Keys{seeds: map[string][]byte{}, first: first} }

// Load finds a key.
func (k *Keys) Load(name string) ([]byte, time.Time, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s, ok := k.seeds[name]; ok {
		return s, time.Time{}, nil
	}
	return nil, time.Time{}, fs.ErrNotExist
}

// Create finds or makes one.
func (k *Keys) Create(name string) ([]byte, time.Time, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.seeds[name]; !ok {
		sum := sha256.Sum256(append([]byte{k.first}, name...))
		k.seeds[name] = sum[:]
	}
	return k.seeds[name], time.Time{}, nil
}

// Remove forgets one.
func (k *Keys) Remove(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.seeds, name)
	return nil
}

// List names them.
func (k *Keys) List() ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var names []string
	for n := range k.seeds {
		if n != "" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Codec is an app.Codec that knows the types below 100.
type Codec struct{}

// Known tells.
func (Codec) Known(t event.Type) bool { return t > 0 && t < 100 }

// CheckPayload takes any.
func (Codec) CheckPayload(event.Type, []byte) error { return nil }

// Canonical takes any.
func (Codec) Canonical([]byte) bool { return true }

// Pad adds zeros, which is all that it takes here.
func (Codec) Pad(payload []byte, size int) []byte {
	return append(slices.Clone(payload), make([]byte, size-len(payload))...)
}

// Encode makes JSON.
func (Codec) Encode(e *event.Event) ([]byte, error) { return json.Marshal(e) }

// Decode reads it.
func (Codec) Decode(b []byte) (*event.Event, error) {
	var e event.Event
	return &e, json.Unmarshal(b, &e)
}
