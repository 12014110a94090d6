package libp2p

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// told collects what is said of peers.
type told struct {
	mu  sync.Mutex
	all []app.Misconduct
}

func (c *told) misbehaved(_ string, m app.Misconduct) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, m)
}

func (c *told) count(m app.Misconduct) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.all {
		if x == m {
			n++
		}
	}
	return n
}

func open2(t *testing.T, from, to *Host, id protocol.ID) network.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := from.host.NewStream(ctx, to.host.ID(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	return s
}

func TestFrameClock(t *testing.T) {
	var c frameClock
	frame := append(binary.AppendUvarint(nil, 300), make([]byte, 300)...)
	for i, b := range frame {
		if c.within() != (i > 0) {
			t.Fatalf("byte %d: within is %v", i, c.within())
		}
		c.take([]byte{b})
	}
	if c.within() {
		t.Fatal("the frame is over")
	}
	if c.take(append(frame, frame...)); c.within() {
		t.Error("two frames are over")
	}
	if c.take(append(frame, 0x80)); !c.within() {
		t.Error("half a length is no end")
	}
	if c.take([]byte{0}); c.within() {
		t.Error("a frame of nothing is over")
	}
}

func FuzzFrameClock(f *testing.F) {
	f.Add([]byte{1, 'x', 0x80, 2}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 3)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		var whole, pieces frameClock
		whole.take(b)
		for step = max(1, step%16); len(b) > 0; b = b[min(step, len(b)):] {
			pieces.take(b[:min(step, len(b))])
		}
		if whole != pieces {
			t.Errorf("%+v in one, %+v in pieces", whole, pieces)
		}
	})
}

// Garbage on a protocol that a library serves is told of, a stream that the peer ends is not.
func TestGuardTellsOfGarbage(t *testing.T) {
	var c told
	a, b := newHost(t, nil), newHost(t, func(h *app.Handlers) { h.Misbehaved = c.misbehaved })
	connect(t, a, b)
	s := open2(t, a, b, GossipProtocol)
	if _, err := s.Write([]byte{4, 0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the stream goes on: %v", err)
	}
	eventually(t, "it is told of", func() bool { return c.count(app.SentGarbage) == 1 })
	for range 3 {
		s := open2(t, a, b, GossipProtocol)
		if _, err := s.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		_ = s.Reset()
	}
	open2(t, a, b, GossipProtocol) // another stream takes a former's place
	if n := c.count(app.SentGarbage); n != 1 {
		t.Errorf("%d times", n)
	}
}

// Whoever serves a stream may be busy with what it said when another stream of the same peer ends it: that is no garbage.
func TestGuardKnowsWhoEndsAStream(t *testing.T) {
	var c told
	a, b := newHost(t, nil), newHost(t, func(h *app.Handlers) { h.Misbehaved = c.misbehaved })
	busy, on, ended := make(chan network.Stream), make(chan struct{}), make(chan struct{})
	serve := guarded{b.host, b.meter, patience}.guard("/busy", func(s network.Stream) {
		if _, err := io.ReadFull(s, make([]byte, 2)); err != nil {
			t.Error(err)
		}
		busy <- s
		<-on
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("it goes on")
		}
		_ = s.Reset()
	})
	b.host.SetStreamHandler("/busy", func(s network.Stream) {
		defer close(ended)
		serve(s)
	})
	connect(t, a, b)
	if _, err := open2(t, a, b, "/busy").Write([]byte{1, 'a'}); err != nil {
		t.Fatal(err)
	}
	_ = (<-busy).Reset()
	close(on)
	<-ended
	b.meter.say(a.host.ID(), app.Stalled) // told of after whatever was said before
	eventually(t, "all is told", func() bool { return c.count(app.Stalled) == 1 })
	if n := c.count(app.SentGarbage); n != 0 {
		t.Errorf("it is called garbage %d times", n)
	}
}

func TestGuardEndsStalls(t *testing.T) {
	var c told
	a, b := newHost(t, nil), newHost(t, func(h *app.Handlers) { h.Misbehaved = c.misbehaved })
	b.host.SetStreamHandler("/quick", guarded{b.host, b.meter, 200 * time.Millisecond}.guard("/quick", func(s network.Stream) {
		_, err := io.Copy(io.Discard, s)
		_ = s.Reset()
		if !app.TimedOut(err) {
			t.Errorf("it ended with %v", err)
		}
	}))
	connect(t, a, b)
	s := open2(t, a, b, "/quick")
	if _, err := s.Write([]byte{3, 'a', 'b', 'c'}); err != nil {
		t.Fatal(err)
	}
	between := time.NewTimer(600 * time.Millisecond) // nothing has begun: it may take as long as it likes
	<-between.C
	if n := c.count(app.Stalled); n != 0 {
		t.Fatalf("an idle stream is called stalled %d times", n)
	}
	if _, err := s.Write([]byte{3, 'a'}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is told of", func() bool { return c.count(app.Stalled) == 1 })
	if c.count(app.SentGarbage) != 0 {
		t.Error("and called garbage")
	}
}

// What the broker holds against a peer is a part of its gossip score, and must not come back to the broker as another offence.
func TestPointsCountOnce(t *testing.T) {
	var c told
	points := 85.0
	a := newHost(t, nil)
	b := newHost(t, func(h *app.Handlers) {
		h.Misbehaved, h.Standing = c.misbehaved, func(string) float64 { return points }
	})
	connect(t, a, b)
	id := a.host.ID()
	b.scored(map[peer.ID]float64{id: -points + maxMerit})
	b.scored(map[peer.ID]float64{id: -points - 1})
	b.meter.say(id, app.Stalled)
	eventually(t, "all is told", func() bool { return c.count(app.Stalled) == 1 })
	if n := c.count(app.LowGossipScore); n != 0 {
		t.Errorf("%d offences of a peer whose gossip is sound", n)
	}
	b.scored(map[peer.ID]float64{id: -points + graylistScore - 1})
	eventually(t, "bad gossip is told of", func() bool { return c.count(app.LowGossipScore) == 1 })
}

func TestStreamsOpenedTooFast(t *testing.T) {
	var c told
	a, b := newHost(t, nil), newHost(t, func(h *app.Handlers) { h.Misbehaved = c.misbehaved })
	connect(t, a, b)
	for range 4 * opensBurst {
		s := open2(t, a, b, EventProtocol)
		_ = s.SetDeadline(time.Now().Add(patience))
		_, _ = s.Write([]byte{0})
		_, _ = s.Read(make([]byte, 1)) // until it is reset
		_ = s.Reset()
		if c.count(app.Flooded) > 0 {
			return
		}
	}
	eventually(t, "it is told of", func() bool { return c.count(app.Flooded) > 0 })
}

func rpcOf(messages, size, have int) *pubsub.RPC {
	rpc := &pubsub.RPC{RPC: pb.RPC{}}
	for range messages {
		rpc.Publish = append(rpc.Publish, &pb.Message{Data: make([]byte, size)})
	}
	if have > 0 {
		rpc.Control = &pb.ControlMessage{Ihave: []*pb.ControlIHave{{MessageIDs: make([]string, have)}}}
	}
	return rpc
}

// What is a little too fast is let go and not held against the peer, which may only hand on; what nobody who keeps the rates can send is.
func TestGossipRates(t *testing.T) {
	for name, c := range map[string]struct {
		rpc         *pubsub.RPC
		times       int
		fits, gross bool
	}{
		"a start of 130 nodes": {rpcOf(1, 2000, 4), 260, true, false},
		"too fast":             {rpcOf(1, 200, 0), gossipBurst + 100, false, false},
		"flood":                {rpcOf(1, 200, 0), grossBurst + 500, false, true},
		"flood of lists":       {rpcOf(0, 0, 5000), 100, false, true},
		"flood of bytes":       {rpcOf(4, 64<<10, 0), 200, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			tell := make(chan offence, 1000)
			m := newMeter(tell)
			var err error
			for range c.times {
				if e := m.inspect("peer", c.rpc); e != nil {
					err = e
				}
			}
			if (err == nil) != c.fits || (len(tell) > 0) != c.gross {
				t.Errorf("let go: %v, held against it %d times", err, len(tell))
			}
			if m.inspect("another", rpcOf(1, 100, 0)) != nil {
				t.Error("another peer pays for it")
			}
		})
	}
}

func TestPingsTooFast(t *testing.T) {
	tell := make(chan offence, 10)
	m := newMeter(tell)
	for range pingsBurst {
		m.read("peer", kindPing, 32)
	}
	if len(tell) > 0 {
		t.Error("the burst is held against it")
	}
	for range 10 {
		m.read("peer", kindPing, 32)
	}
	if len(tell) == 0 {
		t.Error("a flood is not")
	}
}

func TestMeterIsBounded(t *testing.T) {
	m := newMeter(make(chan offence))
	for n := range 3 * maxMetered {
		m.read(peer.ID(binary.BigEndian.AppendUint32(nil, uint32(n))), kindOther, 100)
	}
	if m.peers.Len() > maxMetered {
		t.Errorf("%d peers are remembered", m.peers.Len())
	}
}

// A peer whose gossip breaks the rules again and again falls below the score at which nothing of it is heard, and that is told.
func TestGraylisted(t *testing.T) {
	var c told
	a, b := newHost(t, nil), newHost(t, func(h *app.Handlers) {
		h.Misbehaved = c.misbehaved
		h.Validate = func(string, string, []byte) (app.Verdict, *event.Event) { return app.VerdictReject, nil }
	})
	leave, err := b.Join(event.TopicMetrics)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	connect(t, a, b)
	eventually(t, "it is told of", func() bool {
		if err := a.Publish(t.Context(), event.TopicMetrics, []byte(rand.Text())); err != nil {
			t.Fatal(err)
		}
		return c.count(app.LowGossipScore) > 0
	})
}

// The scores that the comment on scoreParams promises.
func TestScoreParams(t *testing.T) {
	p, limits := scoreParams(func(peer.ID) float64 { return 0 })
	most := 0.0
	for _, topic := range p.Topics {
		most += topic.TopicWeight * (topic.TimeInMeshWeight*topic.TimeInMeshCap + topic.FirstMessageDeliveriesWeight*topic.FirstMessageDeliveriesCap)
	}
	if most > p.TopicScoreCap+1e-9 {
		t.Errorf("merit may come to %v, and the cap is %v", most, p.TopicScoreCap)
	}
	if n := 15.0; most-0.5*n*n > limits.GraylistThreshold {
		t.Errorf("%v broken messages are not enough to be graylisted for one of the best", n)
	}
	if n := 3.0; -0.5*n*n < limits.GossipThreshold {
		t.Errorf("%v broken messages cost a stranger its gossip", n)
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWGRUVh1VCpRBmRzPsAQLxkwzEqV5qMxsTfKgyLFyQ4jpj")
	f.Add("/dns/example.org/tcp/1")
	f.Add("/p2p/x")
	f.Fuzz(func(t *testing.T, s string) {
		a, id, err := parseAddress(s)
		if err != nil {
			return
		}
		if a == nil && id == "" {
			t.Errorf("%q is taken and says nothing", s)
		}
		if id != "" {
			if again, err := CanonicalID(id.String()); err != nil || again != id.String() {
				t.Errorf("%q names %q, which is not a peer id: %v", s, id, err)
			}
		}
	})
}

func FuzzPublicKey(f *testing.F) {
	f.Add("12D3KooWGRUVh1VCpRBmRzPsAQLxkwzEqV5qMxsTfKgyLFyQ4jpj")
	f.Add("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
	f.Fuzz(func(t *testing.T, author string) {
		key, err := publicKey(author)
		if err == nil && len(key) != 32 {
			t.Errorf("%q has a key of %d bytes", author, len(key))
		}
	})
}
