package brokertest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

const (
	ackTimeout = 5 * time.Second
	retryWait  = 20 * time.Millisecond
	maxEvent   = 256 << 10
)

// Register serves the broker's events and network.
func (b *Broker) Register(s grpc.ServiceRegistrar) {
	brokerv1.RegisterEventServiceServer(s, &eventServer{b: b})
	brokerv1.RegisterNetworkServiceServer(s, &networkServer{b: b})
}

var errDown = fault.Unavailable("BROKER_DOWN", "the broker was stopped")

// alive returns a channel that closes when the broker goes down, or an error while it is.
func (b *Broker) alive() (<-chan struct{}, error) {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	if b.down {
		return nil, errDown
	}
	return b.life, nil
}

// SignEvent returns the event with this broker's signature.
func (b *Broker) SignEvent(ev *eventv1.Event) *eventv1.Event {
	out := proto.CloneOf(ev)
	out.Author = b.id
	out.Signature = ed25519.Sign(b.key, brokerclient.SignedBytes(out))
	return out
}

type eventServer struct {
	brokerv1.UnimplementedEventServiceServer
	b *Broker
}

func (s *eventServer) Sign(_ context.Context, r *brokerv1.SignRequest) (*brokerv1.SignResponse, error) {
	if _, err := s.b.alive(); err != nil {
		return nil, err
	}
	return &brokerv1.SignResponse{Event: s.b.SignEvent(r.GetEvent())}, nil
}

func (s *eventServer) Publish(_ context.Context, r *brokerv1.PublishRequest) (*brokerv1.PublishResponse, error) {
	if _, err := s.b.alive(); err != nil {
		return nil, err
	}
	ev := r.GetEvent()
	if r.GetSign() {
		ev = s.b.SignEvent(ev)
	}
	if proto.Size(ev) > maxEvent || brokerclient.Verify(ev) != nil {
		return nil, fault.InvalidArgument("EVENT_INVALID", "the event is too large, or its signature is none")
	}
	s.b.net.mu.Lock()
	s.b.published = append(s.b.published, r)
	s.b.net.mu.Unlock()
	s.b.Gossip(r.GetTopic(), ev)
	return &brokerv1.PublishResponse{Event: ev}, nil
}

// Gossip floods an event as it is to every service that can be reached over connections, this broker's own included.
func (b *Broker) Gossip(topic string, ev *eventv1.Event) {
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	from := map[string]string{b.id: b.id}
	for queue := []*Broker{b}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		at.gossipLocked(topic, from[at.id], ev)
		for id := range at.peers {
			if _, seen := from[id]; !seen {
				from[id] = at.id
				queue = append(queue, n.brokers[id])
			}
		}
	}
}

func (b *Broker) gossipLocked(topic, from string, ev *eventv1.Event) {
	told := map[string]bool{}
	for _, s := range b.subs {
		if slices.Contains(s.open.GetTopics(), topic) && !told[s.open.GetGroup()] {
			told[s.open.GetGroup()] = true
			s.offerLocked(&brokerv1.Delivery{FromPeer: from, Topic: topic, Event: proto.CloneOf(ev)}, nil)
		}
	}
}

func (s *eventServer) Send(stream grpc.BidiStreamingServer[brokerv1.SendRequest, brokerv1.SendResponse]) error {
	life, err := s.b.alive()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	go func() {
		select {
		case <-life:
			cancel(errDown)
		case <-ctx.Done():
		}
	}()
	var sending sync.Mutex
	received := make(chan error, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			go func() {
				resp := &brokerv1.SendResponse{Seq: r.GetSeq(), Fault: toFault(s.b.send(ctx, r))}
				sending.Lock()
				defer sending.Unlock()
				if ctx.Err() == nil {
					_ = stream.Send(resp)
				}
			}()
		}
	}()
	select {
	case err := <-received:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func toFault(err error) *eventv1.Fault {
	if err == nil {
		return nil
	}
	f := fault.From(err)
	return &eventv1.Fault{Code: uint32(f.Code), Reason: f.Reason, Message: f.Message, Meta: f.Meta}
}

// send hands an event over and waits for the other service, trying again while that asks for it.
func (b *Broker) send(ctx context.Context, r *brokerv1.SendRequest) error {
	timeout := 10 * time.Second
	if r.GetTimeout() != nil {
		timeout = r.GetTimeout().AsDuration()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ev := r.GetEvent()
	if r.GetSign() {
		ev = b.SignEvent(ev)
	}
	for redelivered := false; ; redelivered = true {
		verdict, err := b.handOver(ctx, r, ev, redelivered)
		if err != nil {
			return err
		}
		switch verdict.GetVerdict() {
		case brokerv1.Verdict_VERDICT_REJECTED:
			return fault.New(codes.InvalidArgument, brokerclient.ReasonRejected, "the peer's service refused the event: %s", verdict.GetReason())
		case brokerv1.Verdict_VERDICT_RETRY:
			t := time.NewTimer(retryWait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return fault.From(ctx.Err())
			}
		default:
			return nil
		}
	}
}

func (b *Broker) handOver(ctx context.Context, r *brokerv1.SendRequest, ev *eventv1.Event, redelivered bool) (*brokerv1.Ack, error) {
	n := b.net
	n.mu.Lock()
	if f := b.sendFault; f != nil {
		n.mu.Unlock()
		if err := f(r); err != nil {
			return nil, err
		}
		n.mu.Lock()
	}
	to := n.brokers[r.GetPeerId()]
	if to == nil || !b.connectedOrDialLocked(to) {
		n.mu.Unlock()
		return nil, fault.Unavailable(brokerclient.ReasonUnreachable, "the peer cannot be reached")
	}
	acked := make(chan *brokerv1.Ack, 1)
	taken := to.offerDirectedLocked(&brokerv1.Delivery{FromPeer: b.id, Event: proto.CloneOf(ev), Redelivered: redelivered}, acked)
	n.mu.Unlock()
	if !taken {
		return nil, fault.Unavailable("NO_SUBSCRIBER", "no service of the peer takes this type of event now")
	}
	t := time.NewTimer(ackTimeout)
	defer t.Stop()
	select {
	case a := <-acked:
		if a == nil {
			return nil, fault.Unavailable("MEMBER_GONE", "the peer's service went away before it acknowledged")
		}
		return a, nil
	case <-t.C:
		return nil, fault.New(codes.DeadlineExceeded, "ACK_TIMEOUT", "the peer's service did not acknowledge in time")
	case <-ctx.Done():
		return nil, fault.From(context.Cause(ctx))
	}
}

func (b *Broker) connectedOrDialLocked(to *Broker) bool {
	if _, there := b.peers[to.id]; there {
		return true
	}
	for _, id := range b.known {
		if id == to.id {
			return b.net.connectLocked(b, to)
		}
	}
	return false
}

// offerDirectedLocked gives the event to one member of each group that takes its type, in turn. What the first of them says is its outcome.
func (b *Broker) offerDirectedLocked(d *brokerv1.Delivery, acked chan *brokerv1.Ack) bool {
	b.turn++
	told := map[string]bool{}
	for i := range b.subs {
		s := b.subs[(b.turn+i)%len(b.subs)]
		if told[s.open.GetGroup()] || !slices.Contains(s.open.GetTypes(), d.GetEvent().GetType()) {
			continue
		}
		if s.offerLocked(proto.CloneOf(d), acked) {
			told[s.open.GetGroup()], acked = true, nil
		}
	}
	return len(told) > 0
}

// subscriber is one open subscription.
type subscriber struct {
	open *brokerv1.Open
	out  chan *brokerv1.Delivery
	ids  atomic.Uint64
	mu   sync.Mutex
	wait map[uint64]chan *brokerv1.Ack // nil once it is gone
}

// offerLocked queues a delivery; a full queue drops gossip and refuses directed events.
func (s *subscriber) offerLocked(d *brokerv1.Delivery, acked chan *brokerv1.Ack) bool {
	d.DeliveryId = s.ids.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait == nil {
		return false
	}
	select {
	case s.out <- d:
		s.wait[d.DeliveryId] = acked
		return true
	default:
		return false
	}
}

func (s *subscriber) ack(a *brokerv1.Ack) {
	s.mu.Lock()
	acked := s.wait[a.GetDeliveryId()]
	delete(s.wait, a.GetDeliveryId())
	s.mu.Unlock()
	if acked != nil {
		acked <- a
	}
}

func (s *subscriber) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, acked := range s.wait {
		if acked != nil {
			acked <- nil
		}
	}
	s.wait = nil
}

func (s *eventServer) Subscribe(stream grpc.BidiStreamingServer[brokerv1.SubscribeRequest, brokerv1.SubscribeResponse]) error {
	life, err := s.b.alive()
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetOpen().GetGroup() == "" {
		return fault.InvalidArgument("OPEN_MISSING", "the first request must be an Open with a group")
	}
	sub := &subscriber{open: first.GetOpen(), out: make(chan *brokerv1.Delivery, 4096), wait: map[uint64]chan *brokerv1.Ack{}}
	if err := stream.Send(&brokerv1.SubscribeResponse{Response: &brokerv1.SubscribeResponse_Opened{Opened: &brokerv1.Opened{}}}); err != nil {
		return err
	}
	n := s.b.net
	n.mu.Lock()
	s.b.subs = append(s.b.subs, sub)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		s.b.subs = slices.DeleteFunc(slices.Clone(s.b.subs), func(o *subscriber) bool { return o == sub })
		n.mu.Unlock()
		sub.gone()
	}()
	received := make(chan error, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			sub.ack(r.GetAck())
		}
	}()
	for {
		select {
		case d := <-sub.out:
			if err := stream.Send(&brokerv1.SubscribeResponse{Response: &brokerv1.SubscribeResponse_Delivery{Delivery: d}}); err != nil {
				return err
			}
		case err := <-received:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-life:
			return errDown
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}
