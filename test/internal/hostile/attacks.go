package hostile

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Attack is one way to do harm. Run goes on until ctx ends, coming back whenever it is thrown out.
type Attack struct {
	Name string
	// Punished: who does it loses its connection within seconds. The others cost their doer its streams, or are made to wait.
	Punished bool
	Run      func(p *Peer, ctx context.Context)
}

// Attacks are all of them but lies (see Liar) and those that take patience (see Stalls).
func Attacks() []Attack {
	return []Attack{
		{"gossip flood", true, func(p *Peer, ctx context.Context) { p.gossip(ctx, p.metrics()) }},
		{"copied gossip", true, func(p *Peer, ctx context.Context) { p.gossip(ctx, p.copies()) }},
		{"forged gossip", true, func(p *Peer, ctx context.Context) { p.gossip(ctx, p.forged()) }},
		{"gossip control flood", true, (*Peer).control},
		{"replayed gossip", true, (*Peer).replayGossip},
		{"question flood", true, (*Peer).questions},
		{"useless events", true, func(p *Peer, ctx context.Context) {
			p.flood(ctx, true, func() *eventv1.Event {
				return p.event(eventv1.EventType_EVENT_TYPE_TASK_CANCEL, &eventv1.TaskCancel{TaskId: newID(), Attempt: 1})
			})
		}},
		{"replayed events", true, func(p *Peer, ctx context.Context) {
			old := p.event(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})
			p.flood(ctx, true, func() *eventv1.Event { return old })
		}},
		{"submission flood", true, func(p *Peer, ctx context.Context) { p.flood(ctx, true, p.submission) }},
		{"oversize frames", true, (*Peer).oversize},
		{"garbage on every protocol", true, (*Peer).garbage},
		{"wantlist flood", true, (*Peer).wantlists},
		{"stream flood", true, (*Peer).streams},
		{"ping flood", true, (*Peer).pings},
	}
}

// metric is one that holds, with a version that is news.
func (p *Peer) metric() *eventv1.Event {
	return p.signed(eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, &eventv1.MetricAvailable{Metric: &eventv1.Metric{PeerId: p.ID, Version: p.version.Add(1),
		Interval: durationpb.New(time.Second), Cpu: &eventv1.Cpu{Threads: 2, Mhz: 2000}, Memory: &eventv1.Memory{Total: 1 << 30, Free: 1 << 29}, Queue: &eventv1.Queue{Slots: 2, Capacity: 10}}})
}

// metrics makes sound gossip. A signature costs the flooder more than reading it costs its victim, so it makes a stock ahead, as who means it would,
// and sends that again when it is used up: few of it were heard, as fast as it comes.
func (p *Peer) metrics() func() []byte {
	const stock, each = 16, 64
	var frames [stock][]byte
	for i := range frames {
		var batch [each][]byte
		for j := range batch {
			batch[j] = encode(gossiped(p.metric()))
		}
		frames[i] = publish(metricsTopic, batch[:]...)
	}
	i := 0
	return func() []byte {
		i++
		return frames[i%stock]
	}
}

// copies makes many messages of one signature, by what it is not over.
func (p *Peer) copies() func() []byte {
	e := p.metric()
	return func() []byte {
		e.Id = newID()
		return publish(metricsTopic, encode(e))
	}
}

// forged makes gossip in another's name.
func (p *Peer) forged() func() []byte {
	e := p.metric()
	e.Author = p.victim.ID.String()
	return func() []byte {
		_, _ = rand.Read(e.Signature)
		return publish(metricsTopic, encode(gossiped(e)))
	}
}

// gossip sends frames as fast as they are taken.
func (p *Peer) gossip(ctx context.Context, next func() []byte) {
	p.insist(ctx, gossipProtocol, func(s network.Stream) error {
		if _, err := s.Write(subscribe(metricsTopic, announceTopic)); err != nil {
			return err
		}
		for ctx.Err() == nil {
			if _, err := s.Write(next()); err != nil {
				return err
			}
			p.Sent.Add(1)
		}
		return ctx.Err()
	})
}

// control grafts and prunes without end, promises messages that do not exist and asks for such.
func (p *Peer) control(ctx context.Context) {
	p.gossip(ctx, func() []byte {
		var c []byte
		for range 20 {
			c = field(c, 3, field(nil, 1, []byte(metricsTopic)))                            // graft
			c = field(c, 4, field(nil, 1, []byte(metricsTopic)))                            // prune
			c = field(c, 1, field(field(nil, 1, []byte(metricsTopic)), 2, []byte(newID()))) // have
			c = field(c, 2, field(nil, 1, []byte(newID())))                                 // want
		}
		return delimited(field(nil, 3, c))
	})
}

// replayGossip hears what honest nodes say, and says it again and again. Until it has heard some it has some of its own.
func (p *Peer) replayGossip(ctx context.Context) {
	var mu sync.Mutex
	heard := [][]byte{publish(metricsTopic, encode(gossiped(p.metric())))}
	p.host.SetStreamHandler(gossipProtocol, func(s network.Stream) {
		r := bufio.NewReader(s)
		for {
			n, err := binary.ReadUvarint(r)
			if err != nil || n > 1<<20 {
				_ = s.Reset()
				return
			}
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			if num, _, _ := protowire.ConsumeTag(b); num != 2 { // nothing is published
				continue
			}
			mu.Lock()
			if len(heard) < 1000 {
				heard = append(heard, delimited(b))
			}
			mu.Unlock()
		}
	})
	i := 0
	p.gossip(ctx, func() []byte {
		mu.Lock()
		defer mu.Unlock()
		i++
		return heard[i%len(heard)]
	})
}

// questions are mostly such as are answered at once: what takes the receiver long takes it its own time.
func (p *Peer) questions(ctx context.Context) {
	n := 0
	p.flood(ctx, true, func() *eventv1.Event {
		if n++; n%16 == 0 {
			return p.event(eventv1.EventType_EVENT_TYPE_METRIC_QUERY, &eventv1.MetricQuery{})
		}
		return p.event(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})
	})
}

// flood sends events as fast as they are taken; read: and takes the answers, as fast as they come.
func (p *Peer) flood(ctx context.Context, read bool, next func() *eventv1.Event) {
	if read {
		p.host.SetStreamHandler(eventProtocol, acknowledge)
	}
	p.insist(ctx, eventProtocol, func(s network.Stream) error {
		if read {
			go func() { _, _ = io.Copy(io.Discard, s) }()
		}
		w := bufio.NewWriterSize(s, 64<<10)
		for ctx.Err() == nil {
			if _, err := w.Write(eventFrame(next())); err != nil {
				return err
			}
			p.Sent.Add(1)
		}
		return ctx.Err()
	})
}

// acknowledge takes events and forgets them.
func acknowledge(s network.Stream) {
	defer func() { _ = s.Reset() }()
	r := bufio.NewReader(s)
	for {
		kind, body, err := readFrame(r)
		if err != nil {
			return
		}
		var e eventv1.Event
		if kind == 1 && proto.Unmarshal(body, &e) == nil {
			if _, err := s.Write(frame(2, append(rawID(e.GetId()), 0))); err != nil {
				return
			}
		}
	}
}

// submission is signed and consistent, and what it brings cannot be opened.
func (p *Peer) submission() *eventv1.Event {
	ciphertext, key := make([]byte, 256), make([]byte, 1201)
	_, _ = rand.Read(ciphertext)
	_, _ = rand.Read(key)
	key[0] = 2
	sum := sha256.Sum256(ciphertext)
	e := p.signed(eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, &eventv1.TaskSubmission{TaskId: newID(), Attempt: 1, Type: "sum", ResultRecipient: Recipient,
		PayloadHash: sum[:], PayloadSize: uint64(len(ciphertext)), Keep: durationpb.New(time.Hour)})
	e.Attachment = encode(&eventv1.SealedPayload{SealedKey: key, Ciphertext: ciphertext})
	return e
}

// oversize announces more than may come, on each protocol that has frames.
func (p *Peer) oversize(ctx context.Context) {
	huge := protowire.AppendVarint(nil, 1<<30)
	p.everywhere(ctx, func(id protocol.ID) []byte {
		if id == eventProtocol {
			return []byte{0x40, 0, 0, 0, 1}
		}
		return append(huge, make([]byte, 64<<10)...)
	})
}

// garbage says what makes no sense, on each protocol that the victim has told of.
func (p *Peer) garbage(ctx context.Context) {
	p.everywhere(ctx, func(protocol.ID) []byte {
		b := make([]byte, 1024)
		_, _ = rand.Read(b)
		b[0] = 0x7f // as a length it is short, so that what follows is looked at
		return b
	})
}

func (p *Peer) everywhere(ctx context.Context, make func(protocol.ID) []byte) {
	for ctx.Err() == nil {
		ids, _ := p.Protocols()
		for _, id := range ids {
			s, err := p.stream(ctx, id)
			if err != nil {
				break
			}
			_ = s.SetDeadline(time.Now().Add(2 * time.Second))
			if _, err := s.Write(make(id)); err == nil {
				_ = s.CloseWrite()
				_, _ = io.Copy(io.Discard, s)
				p.Sent.Add(1)
			}
			_ = s.Reset()
		}
		if !p.Connected() {
			pause(ctx, again)
		}
	}
}

// wantlists asks for blocks that nobody has.
func (p *Peer) wantlists(ctx context.Context) {
	p.insist(ctx, "/ipfs/bitswap/1.2.0", func(s network.Stream) error {
		for ctx.Err() == nil {
			var list []byte
			for range 2000 {
				cid := append([]byte{1, 0x55, 0x12, 0x20}, make([]byte, 32)...)
				_, _ = rand.Read(cid[4:])
				list = field(list, 1, number(number(number(field(nil, 1, cid), 2, 1), 4, 1), 5, 1))
			}
			if _, err := s.Write(delimited(field(nil, 1, list))); err != nil {
				return err
			}
			p.Sent.Add(1)
		}
		return ctx.Err()
	})
}

// streams opens streams as fast as it can and says nothing on them.
func (p *Peer) streams(ctx context.Context) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				s, err := p.stream(ctx, eventProtocol)
				if err != nil {
					if !p.Connected() {
						pause(ctx, again)
					}
					continue
				}
				_, _ = s.Write([]byte{0})
				_ = s.Reset()
				p.Sent.Add(1)
			}
		})
	}
	all.Wait()
}

// pings keeps the victim busy with what costs it a read and a write each.
func (p *Peer) pings(ctx context.Context) {
	p.insist(ctx, "/ipfs/ping/1.0.0", func(s network.Stream) error {
		go func() { _, _ = io.Copy(io.Discard, s) }()
		b := make([]byte, 32<<10)
		for ctx.Err() == nil {
			if _, err := s.Write(b); err != nil {
				return err
			}
			p.Sent.Add(int64(len(b) / 32))
		}
		return ctx.Err()
	})
}
