package libp2p

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// BulkProtocol is how two hosts of events tell each other of their lanes: one question and one answer, each of greetingSize bytes: the length of a message in two bytes, the
// message (BulkHosts of the contract), and zeros.
const BulkProtocol = protocol.ID("/shallot/bulk/1.0.0")

const (
	greetingSize = 256
	maxKeys      = 7 // of later versions that have more; more do not fit
	maxComing    = 8 // peers that are dialled at once because they have asked for it
)

var errGreeting = errors.New("what the peer says of its hosts for content makes no sense")

// own is what this persona says of its lanes.
func (b *bulk) own(come int) *eventv1.BulkHosts {
	m := &eventv1.BulkHosts{Reachable: b.reachable(), Come: uint32(come)} //nolint:gosec // a number of lanes
	for _, s := range b.seeds {
		m.Keys = append(m.Keys, ed25519.NewKeyFromSeed(s).Public().(ed25519.PublicKey))
	}
	return m
}

func writeGreeting(w io.Writer, m *eventv1.BulkHosts) error {
	b := make([]byte, 2, greetingSize)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return err
	}
	if len(b) > greetingSize {
		return errGreeting
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2)) //nolint:gosec // at most greetingSize
	_, err = w.Write(b[:greetingSize])
	return err
}

// readGreeting takes nothing for granted of what it reads.
func readGreeting(r io.Reader) (c *claim, come int, err error) {
	b := make([]byte, greetingSize)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, 0, err
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > greetingSize-2 {
		return nil, 0, errGreeting
	}
	var m eventv1.BulkHosts
	if err := proto.Unmarshal(b[2:2+n], &m); err != nil {
		return nil, 0, errGreeting
	}
	if len(m.GetKeys()) == 0 || len(m.GetKeys()) > maxKeys {
		return nil, 0, errGreeting
	}
	c = &claim{reachable: m.GetReachable()}
	for _, k := range m.GetKeys() {
		id, err := laneID(k)
		if err != nil {
			return nil, 0, errGreeting
		}
		c.lanes = append(c.lanes, id)
	}
	return c, int(min(m.GetCome(), maxKeys)), nil
}

// handle answers what peers ask.
func (b *bulk) handle() {
	if b == nil {
		return
	}
	b.h.host.SetStreamHandler(BulkProtocol, func(s network.Stream) {
		if !b.h.meter.opened(s.Conn().RemotePeer(), BulkProtocol) {
			_ = s.Reset()
			return
		}
		if err := b.answer(s); err != nil {
			_ = s.Reset()
		}
	})
}

func (b *bulk) answer(s network.Stream) error {
	p := s.Conn().RemotePeer()
	if err := s.SetDeadline(time.Now().Add(b.h.network.profile.negotiation)); err != nil {
		return err
	}
	c, come, err := readGreeting(s)
	if err != nil {
		return err
	}
	c.conn = s.Conn().ID()
	b.learn(p, c)
	if err := writeGreeting(s, b.own(0)); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	// Whoever asked says by the end of the stream that it has the answer: a lane that came before would not be known.
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return errGreeting
	}
	_ = s.Close()
	if come > 0 && c.reachable && !b.reachable() {
		b.come(p, c, come)
	}
	return nil
}

// come has lanes dial a peer that cannot dial them. Only who may have something of this persona's can make it dial, and only the one service that it has named for it.
func (b *bulk) come(p peer.ID, c *claim, lanes int) {
	if granted := b.h.network.cfg.Granted; granted == nil || !granted(b.h.persona, p.String()) {
		return
	}
	b.mu.Lock()
	if b.closed || b.coming[p] || len(b.coming) >= maxComing {
		b.mu.Unlock()
		return
	}
	b.coming[p] = true
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(b.h.ctx, laneComes)
	defer cancel()
	defer func() {
		b.mu.Lock()
		delete(b.coming, p)
		b.mu.Unlock()
	}()
	done := make(chan struct{})
	lanes = min(lanes, len(b.ids))
	for i := range lanes {
		go func() {
			defer func() { done <- struct{}{} }()
			if w, err := b.dial(ctx, i, c.lanes[0]); err == nil {
				w.Release()
			}
		}()
	}
	for range lanes {
		<-done
	}
}

// greet is what is known of a peer's lanes, from the connection to it that there is now, or as soon as it says so. A peer that can dial nobody is also asked to come.
func (b *bulk) greet(ctx context.Context, p peer.ID, known func(*claim) bool, come int) (*claim, error) {
	b.mu.Lock()
	c := b.claims[p]
	b.mu.Unlock()
	if c != nil && known(c) {
		for _, conn := range b.h.host.Network().ConnsToPeer(p) {
			if conn.ID() == c.conn {
				return c, nil
			}
		}
	}
	if err := b.h.dial(ctx, p, typed); err != nil {
		return nil, err
	}
	s, err := b.h.host.NewStream(ctx, p, BulkProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := s.SetDeadline(time.Now().Add(b.h.network.profile.negotiation)); err != nil {
		return nil, err
	}
	if !b.reachable() {
		come = 0
	}
	if err := writeGreeting(s, b.own(come)); err != nil {
		return nil, err
	}
	if c, _, err = readGreeting(s); err != nil {
		_ = s.Reset()
		return nil, err
	}
	c.conn = s.Conn().ID()
	b.learn(p, c)
	return c, nil
}
