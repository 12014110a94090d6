package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/policy"
)

// Timeout is a call option: how long this unary call may take when its context has no deadline. A call that changes nothing and gets no answer from one
// replica is made once more at another, within as long again.
func Timeout(d time.Duration) grpc.CallOption { return timeoutOption{d: d} }

type timeoutOption struct {
	grpc.EmptyCallOption
	d time.Duration
}

// ReasonUnreachable is of an UNAVAILABLE fault: there was no connection until the call's deadline, so nothing was sent.
const ReasonUnreachable = "SERVICE_UNREACHABLE"

type clientInterceptor struct {
	service  string
	metrics  *callMetrics
	timeout  time.Duration
	replicas bool          // there may be several behind the name that is called
	trouble  *mtls.Trouble // nil without TLS
}

func (c *clientInterceptor) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	start := time.Now()
	timeout := c.timeout
	for _, o := range opts {
		if t, ok := o.(timeoutOption); ok {
			timeout = t.d
		}
	}
	var err error
	if c.replicas {
		err = c.among(ctx, cc, method, timeout, func(ctx context.Context) error { return invoke(ctx, method, req, reply, cc, opts...) })
	} else {
		limited, cancel := within(ctx, timeout)
		defer cancel()
		err = invoke(limited, method, req, reply, cc, opts...)
	}
	if err == nil {
		c.metrics.done(method, codes.OK, start)
		return nil
	}
	f := fault.From(err)
	if f.Code == codes.DeadlineExceeded && cc.GetState() != connectivity.Ready {
		// gRPC's own text for this names its inner parts, and the address.
		f = fault.Wrap(errors.Join(context.DeadlineExceeded, err), codes.Unavailable, ReasonUnreachable,
			"%s cannot be reached: is it running?", c.service).With("method", method)
		if c.trouble != nil && c.trouble.Err() != nil { // the connection broke under this call, and there was no other
			f = c.trouble.Err()
		}
	}
	c.metrics.done(method, f.Code, start)
	return f
}

// within adds a deadline where there is none.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// among makes a call at one of several replicas. One that gives no answer is cut off at timeout, or at half of the time that the caller has; a call that changes
// nothing is then made at another.
func (c *clientInterceptor) among(ctx context.Context, cc *grpc.ClientConn, method string, timeout time.Duration, invoke func(context.Context) error) error {
	if a, ok := ctx.Value(attemptsKey{}).(*attempts); ok && a.every {
		limited, cancel := within(ctx, timeout)
		defer cancel()
		if err := c.trusted(limited, cc); err != nil {
			return err
		}
		return invoke(limited)
	}
	a := &attempts{}
	ctx = context.WithValue(ctx, attemptsKey{}, a)
	try := func(limit time.Duration) error {
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if err := c.trusted(limited, cc); err != nil {
			return err
		}
		return invoke(limited)
	}
	if !policy.Read(method) {
		limited, cancel := within(ctx, timeout)
		defer cancel()
		if err := c.trusted(limited, cc); err != nil {
			return err
		}
		return invoke(limited)
	}
	first := timeout
	if d, ok := ctx.Deadline(); ok {
		first = min(first, time.Until(d)/2)
	}
	err := try(first)
	if err == nil || ctx.Err() != nil || !again(err) {
		return err
	}
	a.avoid()
	return try(timeout)
}

// mostReplicas bounds Every.
const mostReplicas = 64

// Every makes a unary call at each replica of a service that is in rotation, one after the other, each within per: call makes it once, under the context that it is given. It returns the errors of those that failed.
// What is called on one machine is called once.
func Every(ctx context.Context, per time.Duration, call func(ctx context.Context) error) error {
	a := &attempts{every: true}
	ctx = context.WithValue(ctx, attemptsKey{}, a)
	var errs []error
	for n := 1; n <= mostReplicas && ctx.Err() == nil; n++ {
		one, cancel := context.WithTimeout(ctx, per)
		err := call(one)
		cancel()
		a.mu.Lock()
		ended, been := a.ended, len(a.avoided)
		a.mu.Unlock()
		if ended {
			break
		}
		errs = append(errs, err)
		if been < n { // it went to none of several: there is one, or none
			break
		}
	}
	return errors.Join(errs...)
}

// again tells whether another replica may do better.
func again(err error) bool {
	code := fault.From(err).Code
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// trusted waits for a connection, and ends early where there will be none because one side does not take the other's certificate: waiting would not mend that, and
// gRPC itself would say nothing of it.
func (c *clientInterceptor) trusted(ctx context.Context, cc *grpc.ClientConn) error {
	if c.trouble == nil {
		return nil
	}
	for {
		state := cc.GetState()
		switch state {
		case connectivity.Ready, connectivity.Shutdown:
			return nil
		case connectivity.Idle:
			cc.Connect()
		case connectivity.TransientFailure:
			if f := c.trouble.Err(); f != nil {
				return f
			}
		}
		if !cc.WaitForStateChange(ctx, state) {
			return nil // the call itself says that its time is over
		}
	}
}

func (c *clientInterceptor) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := c.trusted(ctx, cc); err != nil {
		c.metrics.done(method, fault.From(err).Code, time.Time{})
		return nil, err
	}
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		f := fault.From(err)
		c.metrics.done(method, f.Code, time.Time{})
		return nil, f
	}
	return &faultStream{ClientStream: s, method: method, metrics: c.metrics}, nil
}

// faultStream gives faults where the bare stream gives statuses.
type faultStream struct {
	grpc.ClientStream
	method  string
	metrics *callMetrics
	ended   bool // only RecvMsg touches it, and that is never called twice at once
}

func (s *faultStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		return nil
	}
	code := codes.OK
	if !errors.Is(err, io.EOF) {
		f := fault.From(err)
		code, err = f.Code, f
	}
	if !s.ended {
		s.ended = true
		s.metrics.done(s.method, code, time.Time{})
	}
	return err
}

func (s *faultStream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fault.From(err)
}
