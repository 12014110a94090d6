package grpcserver

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/broker/internal/adapter/codec"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/tracing"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Events serves shallot.broker.v1.EventService.
type Events struct {
	brokerv1.UnimplementedEventServiceServer
	broker *app.Broker
	trace  *tracing.Tracer
}

// Publish gossips.
func (s *Events) Publish(ctx context.Context, r *brokerv1.PublishRequest) (*brokerv1.PublishResponse, error) {
	e, err := s.broker.Publish(ctx, r.GetPersona(), r.GetTopic(), codec.FromProto(r.GetEvent()), r.GetSign())
	if err != nil {
		return nil, err
	}
	return &brokerv1.PublishResponse{Event: codec.ToProto(e)}, nil
}

// Sign signs.
func (s *Events) Sign(_ context.Context, r *brokerv1.SignRequest) (*brokerv1.SignResponse, error) {
	e, err := s.broker.Sign(r.GetPersona(), codec.FromProto(r.GetEvent()))
	if err != nil {
		return nil, err
	}
	return &brokerv1.SignResponse{Event: codec.ToProto(e)}, nil
}

// maxUnanswered requests of one Send stream are taken; the next is read when one of them is answered.
const maxUnanswered = 1024

// stopGrace is how long answers may still come when the broker is about to stop.
const stopGrace = time.Second

// Send carries events to single peers. Requests are read one by one and handed to their peers' queues, and so keep their order; the answers come
// back from there.
func (s *Events) Send(stream grpc.BidiStreamingServer[brokerv1.SendRequest, brokerv1.SendResponse]) error {
	a := &answers{wake: make(chan struct{}, 1), slots: make(chan struct{}, maxUnanswered)}
	received := make(chan error, 1)
	go func() { received <- s.receive(stream, a) }()
	ctx := stream.Context()
	var out []*brokerv1.SendResponse
	var end error
	done := ctx.Done()
	var stop <-chan time.Time
	for {
		select {
		case <-a.wake:
		case err := <-received:
			if err != nil {
				return err
			}
			received, a.ended = nil, true // the caller has closed its side: answer what it asked
		case <-done:
			if end = context.Cause(ctx); !errors.Is(end, rpc.ErrDraining) {
				return end
			}
			done, stop = nil, time.After(stopGrace)
		case <-stop:
			return end
		}
		out = a.take(out)
		for i, r := range out {
			if err := stream.Send(r); err != nil {
				return err
			}
			out[i] = nil
			<-a.slots
		}
		if len(a.slots) == 0 && (a.ended || end != nil) {
			return end
		}
	}
}

func (s *Events) receive(stream grpc.BidiStreamingServer[brokerv1.SendRequest, brokerv1.SendResponse], a *answers) error {
	ctx := stream.Context()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.GetSeq() == 0 {
			return fault.InvalidArgument("SEQ_MISSING", "a request has no seq, so that it could not be answered")
		}
		select {
		case a.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		seq := r.GetSeq()
		o := app.Outgoing{Persona: r.GetPersona(), Peer: r.GetPeerId(), Event: codec.FromProto(r.GetEvent()), Sign: r.GetSign()}
		if t := r.GetTimeout(); t != nil {
			if o.Timeout = t.AsDuration(); o.Timeout <= 0 {
				o.Timeout = -1 // refused, where no timeout at all means the default
			}
		}
		var span tracing.Span
		if parent := r.GetTraceParent(); parent != "" { // it goes no further than this: what the peer gets is o
			_, span = s.trace.Start(s.trace.From(ctx, parent), "broker.send")
			span.SetEvent(r.GetEvent().GetType().String())
		}
		s.broker.Send(o, func(err error) {
			span.Failed(err)
			span.End()
			a.add(seq, err)
		})
	}
}

// answers are those to one Send stream that wait to be sent.
type answers struct {
	wake  chan struct{}
	slots chan struct{} // one for each request that is not answered
	ended bool          // the sending goroutine's

	mu    sync.Mutex
	queue []*brokerv1.SendResponse // maxUnanswered at most
}

func (a *answers) add(seq uint64, err error) {
	r := &brokerv1.SendResponse{Seq: seq, Fault: toFault(err)}
	a.mu.Lock()
	a.queue = append(a.queue, r)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *answers) take(reuse []*brokerv1.SendResponse) []*brokerv1.SendResponse {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.queue
	a.queue = reuse[:0]
	return out
}

func toFault(err error) *eventv1.Fault {
	if err == nil {
		return nil
	}
	f := fault.From(err)
	return &eventv1.Fault{Code: uint32(f.Code), Reason: f.Reason, Message: f.Message, Meta: f.Meta}
}

// Subscribe delivers events to one member of a group.
func (s *Events) Subscribe(stream grpc.BidiStreamingServer[brokerv1.SubscribeRequest, brokerv1.SubscribeResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return fault.InvalidArgument("OPEN_MISSING", "the first request of a subscription must be an open")
	}
	sub, err := s.broker.Subscribe(interest(open))
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := stream.Send(&brokerv1.SubscribeResponse{Response: &brokerv1.SubscribeResponse_Opened{Opened: &brokerv1.Opened{}}}); err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() { received <- acks(stream, sub) }()
	ctx := stream.Context()
	var out []app.Delivery
	for {
		select {
		case <-sub.Ready():
		case err := <-received:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-sub.Done():
			return rpc.ErrDraining
		}
		out = sub.Take(out)
		for i := range out {
			if err := stream.Send(toDelivery(&out[i])); err != nil {
				return err
			}
		}
	}
}

// acks reads verdicts until the member closes its side, which ends the subscription.
func acks(stream grpc.BidiStreamingServer[brokerv1.SubscribeRequest, brokerv1.SubscribeResponse], sub *app.Subscription) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		a := r.GetAck()
		if a == nil {
			return fault.InvalidArgument("ACK_MISSING", "every request after the first must be an ack")
		}
		v, ok := verdicts[a.GetVerdict()]
		if !ok {
			return fault.InvalidArgument("VERDICT_UNKNOWN", "verdict %d is not known to this broker", a.GetVerdict())
		}
		sub.Ack(a.GetDeliveryId(), v, a.GetReason())
	}
}

var verdicts = map[brokerv1.Verdict]delivery.Verdict{
	brokerv1.Verdict_VERDICT_UNSPECIFIED: delivery.Applied,
	brokerv1.Verdict_VERDICT_IGNORED:     delivery.Ignored,
	brokerv1.Verdict_VERDICT_REJECTED:    delivery.Refused,
	brokerv1.Verdict_VERDICT_RETRY:       delivery.Retry,
	brokerv1.Verdict_VERDICT_MISCONDUCT:  delivery.Misconduct,
}

func interest(o *brokerv1.Open) app.Interest {
	i := app.Interest{Group: o.GetGroup(), Topics: o.GetTopics(), MaxInFlight: int(o.GetMaxInFlight())}
	for _, t := range o.GetTypes() {
		i.Types = append(i.Types, event.Type(t))
	}
	if t := o.GetAckTimeout(); t != nil {
		if i.AckTimeout = t.AsDuration(); i.AckTimeout == 0 {
			i.AckTimeout = -1 // refused
		}
	}
	return i
}

func toDelivery(d *app.Delivery) *brokerv1.SubscribeResponse {
	return &brokerv1.SubscribeResponse{Response: &brokerv1.SubscribeResponse_Delivery{Delivery: &brokerv1.Delivery{
		DeliveryId: d.ID, Persona: d.Persona, FromPeer: d.From, Topic: d.Topic, Event: codec.ToProto(d.Event), Redelivered: d.Redelivered,
	}}}
}
