package brokerclient

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc/mux"
	"github.com/shallot-net/shallot/kit/tracing"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Reasons of a failed Send which say that the event was not applied. Every other failure leaves the outcome unknown.
const (
	ReasonRejected    = "REJECTED"    // the receiving service refused it: the same event will be refused again
	ReasonUnreachable = "UNREACHABLE" // it was never handed over
)

const (
	defaultSendTimeout = 10 * time.Second // the broker's own, when none is given
	sendSlack          = time.Second      // for the answer to come back from the broker
)

// Topics that services gossip on.
const (
	TopicAnnouncements = "announcements"
	TopicMetrics       = "metrics"
)

// Client is one service's view of its node's broker. It is safe for concurrent use.
type Client struct {
	events brokerv1.EventServiceClient
	log    *slog.Logger

	mu     sync.Mutex
	sender *mux.Caller[*brokerv1.SendRequest, *brokerv1.SendResponse]
	closed bool
}

// New makes a client over a connection to the broker. The stream for Send is opened by its first call.
func New(conn grpc.ClientConnInterface, log *slog.Logger) *Client {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Client{events: brokerv1.NewEventServiceClient(conn), log: log}
}

// Close ends the stream of Send; calls in flight fail. Subscriptions end with their contexts.
func (c *Client) Close() {
	c.mu.Lock()
	s := c.sender
	c.sender, c.closed = nil, true
	c.mu.Unlock()
	if s != nil {
		s.Close()
	}
}

// NewEvent wraps a message in an envelope with a fresh random id.
func NewEvent(typ eventv1.EventType, payload proto.Message) (*eventv1.Event, error) {
	b, err := proto.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("encode the payload of %s: %w", typ, err)
	}
	return &eventv1.Event{Id: NewID(), Type: typ, Payload: b}, nil
}

// NewID makes an event id: 128 random bits as 32 lowercase hex digits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// Publish gossips an event and returns it as it went out. It blocks until the broker has taken it.
func (c *Client) Publish(ctx context.Context, persona, topic string, ev *eventv1.Event, sign bool) (*eventv1.Event, error) {
	resp, err := c.events.Publish(ctx, &brokerv1.PublishRequest{Persona: persona, Topic: topic, Event: ev, Sign: sign})
	if err != nil {
		return nil, err
	}
	return resp.GetEvent(), nil
}

// Sign returns the event with the persona's peer id and signature.
func (c *Client) Sign(ctx context.Context, persona string, ev *eventv1.Event) (*eventv1.Event, error) {
	resp, err := c.events.Sign(ctx, &brokerv1.SignRequest{Persona: persona, Event: ev})
	if err != nil {
		return nil, err
	}
	return resp.GetEvent(), nil
}

// SendOptions say how an event is sent; the zero value sends it unsigned and tries for 10 s.
type SendOptions struct {
	Sign    bool          // the broker signs it as the persona
	Timeout time.Duration // how long the broker tries; 2 minutes at most
}

// Send hands an event to one peer and returns nil once the receiving service has acknowledged it. Errors are faults;
// OutcomeUnknown tells whether the event may have been applied all the same. Without a deadline in ctx it ends a
// second after the broker must have given up.
func (c *Client) Send(ctx context.Context, persona, peerID string, ev *eventv1.Event, opts SendOptions) error {
	sender, err := c.caller()
	if err != nil {
		return err
	}
	req := &brokerv1.SendRequest{Persona: persona, PeerId: peerID, Event: ev, Sign: opts.Sign, TraceParent: tracing.Parent(ctx)}
	try := defaultSendTimeout
	if opts.Timeout > 0 {
		try = opts.Timeout
		req.Timeout = durationpb.New(try)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, try+sendSlack)
		defer cancel()
	}
	resp, err := sender.Call(ctx, req)
	if err != nil {
		return err
	}
	return FromFault(resp.GetFault())
}

func (c *Client) caller() (*mux.Caller[*brokerv1.SendRequest, *brokerv1.SendResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fault.New(codes.Canceled, mux.ReasonClosed, "the broker client was closed")
	}
	if c.sender == nil {
		c.sender = mux.NewCaller(
			func(ctx context.Context) (mux.Stream[*brokerv1.SendRequest, *brokerv1.SendResponse], error) {
				return c.events.Send(ctx)
			},
			func(r *brokerv1.SendRequest, seq uint64) { r.Seq = seq },
			(*brokerv1.SendResponse).GetSeq, nil)
	}
	return c.sender, nil
}

// FromFault makes an error of a frame's fault; nil of none.
func FromFault(f *eventv1.Fault) error {
	if f == nil {
		return nil
	}
	code := codes.Code(f.GetCode())
	if code == codes.OK || code > codes.Unauthenticated {
		code = codes.Unknown
	}
	return &fault.Error{Code: code, Reason: f.GetReason(), Message: f.GetMessage(), Meta: f.GetMeta()}
}

// OutcomeUnknown tells whether a failed Send may have reached the receiving service: then the same event, with the same
// id, must be sent again.
func OutcomeUnknown(err error) bool {
	if err == nil {
		return false
	}
	f := fault.From(err)
	switch f.Reason {
	case ReasonRejected, ReasonUnreachable, mux.ReasonNotSent:
		return false
	}
	return f.Code != codes.InvalidArgument
}
