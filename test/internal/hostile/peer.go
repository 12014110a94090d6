// Package hostile is a peer that wants to do harm. It knows what any outsider does: libp2p, the published messages, and how frames look on the
// wire. It is made of go-libp2p alone, so that no rule that the broker keeps is kept here by accident.
package hostile

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// What a broker speaks.
const (
	eventProtocol  = protocol.ID("/shallot/event/1.0.0")
	gossipProtocol = protocol.ID("/shallot/meshsub/1.2.0")
	metricsTopic   = "/shallot/metrics/1.0.0"
	announceTopic  = "/shallot/announcements/1.0.0"
)

// again is how long it waits before it comes back: what a victim allows one address (10 connections a second) is used in full.
const again = 100 * time.Millisecond

// Peer is one hostile identity and its victim.
type Peer struct {
	ID     string
	host   host.Host
	key    crypto.PrivKey
	victim peer.AddrInfo

	// Sent counts what it got rid of: messages, frames, streams. Cut counts how often its victim ended the last connection.
	Sent, Cut atomic.Int64
	closing   atomic.Bool
	version   atomic.Uint64
}

// New makes a peer with a fresh identity and connects it to a multiaddr that ends in /p2p/ID. Close it.
func New(ctx context.Context, victim string, listen bool) (*Peer, error) {
	info, err := peer.AddrInfoFromString(victim)
	if err != nil {
		return nil, err
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	where := libp2p.NoListenAddrs
	if listen {
		where = libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0")
	}
	h, err := libp2p.New(libp2p.Identity(key), where, libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics())
	if err != nil {
		return nil, err
	}
	p := &Peer{ID: h.ID().String(), host: h, key: key, victim: *info}
	p.version.Store(uint64(time.Now().UnixNano()))
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(n network.Network, c network.Conn) {
		if !p.closing.Load() && c.RemotePeer() == info.ID && n.Connectedness(info.ID) != network.Connected {
			p.Cut.Add(1)
		}
	}})
	if err := h.Connect(ctx, *info); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the victim: %w", err), h.Close())
	}
	return p, nil
}

// Close ends it.
func (p *Peer) Close() error {
	p.closing.Store(true)
	return p.host.Close()
}

// Connected tells whether it has a connection to its victim.
func (p *Peer) Connected() bool {
	return p.host.Network().Connectedness(p.victim.ID) == network.Connected
}

// KeptOut tells whether the victim has cut it off and lets it in no more.
func (p *Peer) KeptOut(ctx context.Context) bool {
	if p.Cut.Load() == 0 || p.Connected() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s, err := p.stream(ctx, eventProtocol)
	if err != nil {
		return true
	}
	defer func() { _ = s.Reset() }()
	_ = s.SetDeadline(time.Now().Add(time.Second))
	_, err = s.Write(eventFrame(p.event(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})))
	if err == nil {
		_, err = s.Read(make([]byte, 1))
	}
	return err != nil && !p.Connected()
}

// Protocols are those that its victim has told of.
func (p *Peer) Protocols() ([]protocol.ID, error) {
	return p.host.Peerstore().GetProtocols(p.victim.ID)
}

// stream opens a stream to the victim, over a new connection where there is none.
func (p *Peer) stream(ctx context.Context, id protocol.ID) (network.Stream, error) {
	if !p.Connected() {
		if err := p.host.Connect(ctx, p.victim); err != nil {
			return nil, err
		}
	}
	return p.host.NewStream(ctx, p.victim.ID, id)
}

// insist opens streams of a protocol and uses each until that fails, until ctx ends.
func (p *Peer) insist(ctx context.Context, id protocol.ID, use func(network.Stream) error) {
	for ctx.Err() == nil {
		s, err := p.stream(ctx, id)
		if err == nil {
			stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
			err = use(s)
			stop()
			_ = s.Reset()
		}
		if err != nil && !p.Connected() {
			pause(ctx, again)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// event makes an unsigned envelope.
func (p *Peer) event(t eventv1.EventType, m proto.Message) *eventv1.Event {
	payload, err := proto.Marshal(m)
	if err != nil {
		panic(err) // its own message
	}
	return &eventv1.Event{Id: newID(), Type: t, Payload: payload}
}

// signed makes an envelope that is its own.
func (p *Peer) signed(t eventv1.EventType, m proto.Message) *eventv1.Event {
	e := p.event(t, m)
	sign(e, p.key, p.ID)
	return e
}

func sign(e *eventv1.Event, key crypto.PrivKey, author string) {
	sum := sha256.Sum256(e.GetPayload())
	b := binary.BigEndian.AppendUint32([]byte("shallot-event-v1\x00"), uint32(e.GetType()))
	sig, err := key.Sign(append(b, sum[:]...))
	if err != nil {
		panic(err) // an Ed25519 key in memory signs
	}
	e.Author, e.Signature = author, sig
}

// gossiped gives an event the id that it must have as gossip.
func gossiped(e *eventv1.Event) *eventv1.Event {
	sum := sha256.Sum256(e.GetSignature())
	e.Id = hex.EncodeToString(sum[:16])
	return e
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // its own message
	}
	return b
}

// eventFrame is a frame of the event protocol with an envelope.
func eventFrame(e *eventv1.Event) []byte { return frame(1, encode(e)) }

// frame is length, kind, body.
func frame(kind byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+1))
	return append(append(b, kind), body...)
}

// readFrame reads a frame of the event protocol.
func readFrame(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > 1<<20 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	body = make([]byte, n-1)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, err
	}
	const padded = 0x80 // the true length is before the body then, and zeros are behind it
	if kind = head[4]; kind&padded == 0 {
		return kind, body, nil
	}
	if len(body) < 4 || uint64(binary.BigEndian.Uint32(body)) > uint64(len(body)-4) {
		return 0, nil, fmt.Errorf("a padded frame of %d bytes that holds more", n)
	}
	return kind &^ padded, body[4:][:binary.BigEndian.Uint32(body)], nil
}

// delimited puts a length before a message, as gossip and content have it.
func delimited(m []byte) []byte { return append(protowire.AppendVarint(nil, uint64(len(m))), m...) }

// field is one field of bytes.
func field(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func number(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

// subscribe is gossip's frame that says which topics it wants to hear, and asks to be one of the victim's mesh.
func subscribe(topics ...string) []byte {
	var rpc, control []byte
	for _, t := range topics {
		rpc = field(rpc, 1, field(number(nil, 1, 1), 2, []byte(t)))
		control = field(control, 3, field(nil, 1, []byte(t)))
	}
	return delimited(field(rpc, 3, control))
}

// publish is gossip's frame with messages.
func publish(topic string, data ...[]byte) []byte {
	var rpc []byte
	for _, d := range data {
		rpc = field(rpc, 2, field(field(nil, 2, d), 4, []byte(topic)))
	}
	return delimited(rpc)
}
