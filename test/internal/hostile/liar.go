package hostile

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Recipient is a key that nobody has the other half of.
var Recipient = func() string {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		panic(err) // it only draws random bytes
	}
	return id.Recipient().String()
}()

// Liar is a provider that says it is idle, and huge, and does nothing.
type Liar struct {
	*Peer
	Metric *eventv1.Metric  // what it says of itself, but for id, version and interval
	Refuse string           // the reason with which it refuses what it is given; empty: it takes it and is silent
	Every  time.Duration    // the interval that it states; 2 s when 0
	Others []*eventv1.Event // announcements that it hands on with its own
	Places []string         // the addresses that it announces; nil: those that its host has

	// Given counts the submissions that it got.
	Given atomic.Int64

	mu      sync.Mutex
	streams map[peer.ID]network.Stream
}

// Run lies until ctx ends.
func (l *Liar) Run(ctx context.Context) {
	l.streams = map[peer.ID]network.Stream{}
	l.host.SetStreamHandler(eventProtocol, func(s network.Stream) { l.serve(ctx, s) })
	l.insist(ctx, gossipProtocol, func(s network.Stream) error {
		if _, err := s.Write(subscribe(metricsTopic, announceTopic)); err != nil {
			return err
		}
		for ctx.Err() == nil {
			if _, err := s.Write(append(publish(announceTopic, encode(gossiped(l.announcement()))), publish(metricsTopic, encode(gossiped(l.idle(""))))...)); err != nil {
				return err
			}
			l.tell(ctx, l.victim.ID, l.announcement())
			pause(ctx, time.Second)
		}
		return ctx.Err()
	})
}

func (l *Liar) interval() *durationpb.Duration {
	if l.Every == 0 {
		return durationpb.New(2 * time.Second)
	}
	return durationpb.New(l.Every)
}

func (l *Liar) announcement() *eventv1.Event {
	at := l.Places
	if at == nil {
		at = announced(l.host.Addrs())
	}
	return l.signed(eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, &eventv1.Announcement{PeerId: l.ID, Version: l.version.Add(1), Role: "provider", SealingKey: Recipient,
		Addresses: at, Interval: l.interval(), Capabilities: sums})
}

// sums is what a liar says that it can do.
var sums = []*eventv1.Capability{{Type: "sum", Version: "1", MaxLimits: &eventv1.Limits{Time: durationpb.New(24 * time.Hour), Memory: 1 << 40, Output: 1 << 40}}}

func (l *Liar) idle(question string) *eventv1.Event {
	m := proto.CloneOf(l.Metric)
	m.PeerId, m.Version, m.Interval = l.ID, l.version.Add(1), l.interval()
	return l.signed(eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, &eventv1.MetricAvailable{Metric: m, InReplyTo: question})
}

// serve acknowledges everything, as an honest broker would, and answers what makes it look alive.
func (l *Liar) serve(ctx context.Context, s network.Stream) {
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	for {
		kind, body, err := readFrame(s)
		if err != nil {
			return
		}
		var e eventv1.Event
		if kind != 1 || proto.Unmarshal(body, &e) != nil {
			continue
		}
		if _, err := s.Write(frame(2, append(rawID(e.GetId()), 0))); err != nil {
			return
		}
		l.answer(ctx, s.Conn().RemotePeer(), &e)
	}
}

func (l *Liar) answer(ctx context.Context, from peer.ID, e *eventv1.Event) {
	switch e.GetType() {
	case eventv1.EventType_EVENT_TYPE_DISCOVER:
		l.tell(ctx, from, l.event(eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE, &eventv1.DiscoverResponse{InReplyTo: e.GetId(), Announcements: append([]*eventv1.Event{l.announcement()}, l.Others...), Known: 1}))
	case eventv1.EventType_EVENT_TYPE_METRIC_QUERY:
		l.tell(ctx, from, l.idle(e.GetId()))
	case eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION:
		l.Given.Add(1)
		var sub eventv1.TaskSubmission
		if l.Refuse == "" || proto.Unmarshal(e.GetPayload(), &sub) != nil {
			return
		}
		l.tell(ctx, from, l.event(eventv1.EventType_EVENT_TYPE_TASK_REFUSED, &eventv1.TaskRefused{TaskId: sub.GetTaskId(), Attempt: sub.GetAttempt(),
			Reason: l.Refuse, Message: "no", RetryAfter: durationpb.New(100 * time.Millisecond)}))
	}
}

// tellTime bounds how long it waits for who has gone without a word: it has others to tell.
const tellTime = 10 * time.Second

// tell sends an event; acknowledgements are read and forgotten.
func (l *Liar) tell(ctx context.Context, to peer.ID, e *eventv1.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[to]
	if s == nil {
		soon, cancel := context.WithTimeout(ctx, tellTime)
		defer cancel()
		var err error
		if s, err = l.host.NewStream(soon, to, eventProtocol); err != nil {
			return
		}
		l.streams[to] = s
		go func() {
			for {
				if _, _, err := readFrame(s); err != nil {
					return
				}
			}
		}()
	}
	if _, err := s.Write(eventFrame(e)); err != nil {
		_ = s.Reset()
		delete(l.streams, to)
	}
}

func rawID(id string) []byte {
	b := make([]byte, 16)
	for i := range b {
		b[i] = nibble(id, 2*i)<<4 | nibble(id, 2*i+1)
	}
	return b
}

func nibble(s string, i int) byte {
	if i >= len(s) {
		return 0
	}
	if c := s[i]; c >= 'a' {
		return c - 'a' + 10
	}
	return s[i] - '0'
}
