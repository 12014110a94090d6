// Package app is what the broker does: personas and their hosts, directed events, gossip, and handing events to the services of this
// node. It knows neither libp2p nor gRPC.
package app

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// Codec turns envelopes into bytes and back, and knows the messages in them.
type Codec interface {
	event.Codec
	Encode(e *event.Event) ([]byte, error)
	// Pad makes an encoded message of a type that is gossiped one of size bytes, which reads as the same message. There is room for it when size is
	// PayloadPadOverhead more than it has.
	Pad(payload []byte, size int) []byte
	// Decode may share the bytes.
	Decode(b []byte) (*event.Event, error)
}

// PayloadPadOverhead is by how much Pad lets a payload grow at the least, in bytes.
const PayloadPadOverhead = 4

// Stream is one stream of directed events between two peers.
type Stream interface {
	io.Reader
	io.Writer
	// Close ends the stream after what was written.
	Close() error
	// Reset ends it at once, both ways.
	Reset() error
	// After a deadline Read and Write fail with an error that TimedOut knows.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Errors of OpenStream and Connect that the caller branches on; everything else may pass when tried again.
var (
	ErrNoAddress = errors.New("no connection to the peer, and no address of it is known")
	ErrPeerID    = errors.New("not a peer id")
	ErrSelf      = errors.New("the peer is this persona itself")

	ErrNotAdmitted = errors.New("this node's lists of peers do not admit the peer")
)

// TimedOut tells that a deadline of a Stream has passed: the peer is there, and slow. That a connection has died is never that, also where it was
// found out by waiting.
func TimedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// Peer is a connected peer.
type Peer struct {
	ID        string
	Addresses []string
	RTT       time.Duration // 0: not measured
	Since     time.Time
	Inbound   bool
}

// Verdict on gossip, before it is relayed.
type Verdict uint8

// Verdicts: relay it, say nothing, or refuse it and hold it against the relaying peer.
const (
	VerdictAccept Verdict = iota
	VerdictIgnore
	VerdictReject
)

// Handlers are what a host calls. All may be called from many goroutines.
type Handlers struct {
	// Stream owns the stream and returns when it is done with it.
	Stream func(peer string, s Stream)
	// Validate judges gossip and may return what it has decoded.
	Validate func(topic, from string, data []byte) (Verdict, *event.Event)
	// Gossip gets what was accepted on a topic that is joined, own events excluded. It must not block.
	Gossip func(topic, from string, e *event.Event)
	// Lost counts gossip that was let go before it came here, or before it went out.
	Lost func(topic, why string)
	// Changed tells of the first connection to a peer, and of the end of the last. It must not block.
	Changed func(peer string, connected bool)
	// Misbehaved tells what the host has seen a peer do. It may close the peer's connections; nil: nobody wants to know.
	Misbehaved func(peer string, m Misconduct)
	// Standing is what is held against a peer, in points; nil: nothing. It must not block.
	Standing func(peer string) float64
	// Reached tells at which addresses a peer was dialled with success. It must not block.
	Reached func(peer string, addresses []string)
	// Routed tells where a peer of the routing table says that it is, from time to time. It must not block. Nil: nobody wants to know.
	Routed func(peer string, addresses []string)
	// Seeds are peers of an earlier life, where to begin when the routing table is empty. Nil: there are none.
	Seeds func() []Target
}

// Host is a persona's presence on the network. Peers are named by their ids; errors carry no addresses.
type Host interface {
	ID() string
	Addresses() []string
	// Sign signs with the persona's key.
	Sign(b []byte) ([]byte, error)
	// Listen begins to accept connections; before it the host can be given its handlers.
	Listen() error
	// Connect returns once a connection stands; addresses are remembered also when it fails.
	Connect(ctx context.Context, t Target) (peer string, err error)
	// Remember only keeps the addresses.
	Remember(t Target) (peer string, err error)
	Disconnect(peer string) error
	// Restrict lets only those in, and dials only those, whom the function admits; connections to others are closed.
	Restrict(admits func(peer string) bool)
	// Refuse closes the connections to a peer and allows none for a time.
	Refuse(peer string, d time.Duration)
	Peers() []Peer
	Connected(peer string) bool
	Protect(tag string, peers []string) error
	// OpenStream dials the peer where there is no connection.
	OpenStream(ctx context.Context, peer string) (Stream, error)
	// Join hears a topic until leave is called.
	Join(topic string) (leave func(), err error)
	Publish(ctx context.Context, topic string, data []byte) error
	// Find calls found for peers that have advertised a name, as they are found, limit at most; when found fails the query ends. It blocks for some
	// seconds at most. ErrRoutingOff, ErrRoutingEmpty.
	Find(ctx context.Context, name string, limit int, found func(Target) error) error
	// Advertise says that this persona has a name, for providers.Default.TTL. ErrRoutingOff, ErrRoutingClient, ErrRoutingEmpty.
	Advertise(ctx context.Context, name string) error
	Close() error
}

// Target is a peer to be reached: an id, addresses, or both.
type Target struct {
	Peer      string
	Addresses []string
	Vouched   bool // more than one peer has told of it
}

// Network makes hosts.
type Network interface {
	// Open makes the host of a persona from its key, an Ed25519 seed. It does not listen yet.
	Open(persona string, seed []byte, h Handlers) (Host, error)
}

// Keys keeps personas' keys.
type Keys interface {
	// Load returns the seed of a persona's key; os.ErrNotExist when there is none.
	Load(persona string) (seed []byte, openedAt time.Time, err error)
	// Create makes a fresh one, durably, or returns the one that is there.
	Create(persona string) (seed []byte, openedAt time.Time, err error)
	Remove(persona string) error
	// List names the personas that have keys, the node's own excluded.
	List() ([]string, error)
}

// Observer counts. Labels are never identities.
type Observer interface {
	// Event counts directed events and gossip by type, direction (in, out) and outcome.
	Event(t event.Type, dir, outcome string)
	// Offence counts what peers did wrong.
	Offence(name string)
	// Dropped counts gossip that a group let go.
	Dropped(topic, why string)
	// Verdict counts what services make of deliveries: applied, ignored, rejected, retry.
	Verdict(v string)
	// Redelivered and LateAck count the hand-overs that went wrong.
	Redelivered()
	LateAck()
	// StreamReset counts streams that ended badly, by reason.
	StreamReset(reason string)
	// AckSeconds observes the time from an event's Send to its acknowledgement.
	AckSeconds(s float64)
	// Adjust adds to a gauge: streams_in, streams_out, members, peers, pending_out, pending_in.
	Adjust(gauge string, by float64)
}
