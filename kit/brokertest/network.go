package brokertest

import (
	"crypto/ed25519"
	"fmt"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/brokerclient"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// Network joins brokers.
type Network struct {
	mu      sync.Mutex
	brokers map[string]*Broker // by peer id
	apart   func(a, b string) bool
}

// NewNetwork is empty.
func NewNetwork() *Network { return &Network{brokers: map[string]*Broker{}} }

// Broker is one node's sidecar. Its gRPC services are registered with Register.
type Broker struct {
	net     *Network
	key     ed25519.PrivateKey
	id      string
	address string

	// All below is guarded by net.mu.
	down      bool
	peers     map[string]time.Time // since when connected
	known     map[string]string    // addresses remembered, to peer ids
	subs      []*subscriber
	watchers  map[chan *brokerv1.WatchResponse]struct{}
	life      chan struct{} // closed when the broker goes down
	published []*brokerv1.PublishRequest
	sendFault func(*brokerv1.SendRequest) error
	turn      int
	names     map[string]bool // advertised
	private   bool            // it says that its network has a key
}

// SetPrivate has the broker say that its network is a private one, or not.
func (b *Broker) SetPrivate(on bool) {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	b.private = on
}

// Add makes a broker with a fresh identity that is connected to nobody.
func (n *Network) Add() *Broker {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	b := &Broker{net: n, key: key, id: brokerclient.PeerID(pub), address: fmt.Sprintf("/memory/%d", len(n.brokers)+1),
		peers: map[string]time.Time{}, known: map[string]string{}, watchers: map[chan *brokerv1.WatchResponse]struct{}{}, life: make(chan struct{})}
	n.brokers[b.id] = b
	return b
}

// PeerID is the broker's identity.
func (b *Broker) PeerID() string { return b.id }

// JoinAddress is where it can be reached, with /p2p.
func (b *Broker) JoinAddress() string { return b.address + "/p2p/" + b.id }

// Connect connects two brokers.
func (n *Network) Connect(a, b *Broker) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.connectLocked(a, b)
}

// Part keeps apart whom the function says, and drops the connections between them; nil joins all that will dial.
func (n *Network) Part(apart func(a, b string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.apart = apart
	for _, a := range n.brokers {
		for id := range a.peers {
			if apart != nil && (apart(a.id, id) || apart(id, a.id)) {
				n.disconnectLocked(a, n.brokers[id])
			}
		}
	}
}

func (n *Network) reachableLocked(a, b *Broker) bool {
	return b != nil && a != b && !a.down && !b.down && (n.apart == nil || !n.apart(a.id, b.id) && !n.apart(b.id, a.id))
}

func (n *Network) connectLocked(a, b *Broker) bool {
	if !n.reachableLocked(a, b) {
		return false
	}
	if _, there := a.peers[b.id]; there {
		return true
	}
	now := time.Now()
	a.peers[b.id], b.peers[a.id] = now, now
	a.tellLocked(b.id, true)
	b.tellLocked(a.id, true)
	return true
}

func (n *Network) disconnectLocked(a, b *Broker) {
	if _, there := a.peers[b.id]; !there {
		return
	}
	delete(a.peers, b.id)
	delete(b.peers, a.id)
	a.tellLocked(b.id, false)
	b.tellLocked(a.id, false)
}

func (b *Broker) tellLocked(id string, connected bool) {
	for w := range b.watchers {
		select {
		case w <- &brokerv1.WatchResponse{PeerId: id, Connected: connected}:
		default: // as a real one would: whoever does not read is cut off
			delete(b.watchers, w)
			close(w)
		}
	}
}

// Stop is what a crash is to others: connections and streams end, calls fail until Start. Remembered addresses are lost.
func (b *Broker) Stop() {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	if b.down {
		return
	}
	for id := range b.peers {
		b.net.disconnectLocked(b, b.net.brokers[id])
	}
	b.down = true
	close(b.life)
	b.subs, b.watchers, b.known = nil, map[chan *brokerv1.WatchResponse]struct{}{}, map[string]string{}
}

// Start brings a stopped broker back under the same identity.
func (b *Broker) Start() {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	if b.down {
		b.down, b.life = false, make(chan struct{})
	}
}

// Move gives the broker another address.
func (b *Broker) Move(address string) {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	b.address = address
}

// Connected tells whether the two brokers are connected.
func (b *Broker) Connected(to *Broker) bool {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	_, there := b.peers[to.id]
	return there
}

// Published returns what services published through this broker.
func (b *Broker) Published() []*brokerv1.PublishRequest {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	return append([]*brokerv1.PublishRequest(nil), b.published...)
}

// OnSend sets a function that may fail sends before they are handed over; nil lifts it.
func (b *Broker) OnSend(f func(*brokerv1.SendRequest) error) {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	b.sendFault = f
}

// Reconnect connects the broker with everybody whom it can reach.
func (b *Broker) Reconnect() {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	for _, o := range b.net.brokers {
		b.net.connectLocked(b, o)
	}
}
