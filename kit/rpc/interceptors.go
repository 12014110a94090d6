package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// interceptor is one for all concerns: a chain of small ones costs an allocation each per call.
type interceptor struct {
	log     *slog.Logger
	metrics *callMetrics
	panics  prometheus.Counter
	drain   context.Context // ends when the server is about to stop
}

func (i *interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ServerTimeout)
		defer cancel()
	}
	defer func() {
		if p := recover(); p != nil {
			err = i.panicked(info.FullMethod, p)
		}
		code := codes.OK
		if err != nil {
			resp, err = nil, i.public(info.FullMethod, err)
			code = status.Code(err)
		}
		i.metrics.done(info.FullMethod, code, start)
	}()
	return handler(ctx, req)
}

func (i *interceptor) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, cancel := context.WithCancelCause(ss.Context())
	stop := context.AfterFunc(i.drain, func() { cancel(context.Cause(i.drain)) })
	defer func() {
		if p := recover(); p != nil {
			err = i.panicked(info.FullMethod, p)
		}
		stop()
		cancel(nil)
		code := codes.OK
		if err != nil {
			err = i.public(info.FullMethod, err)
			code = status.Code(err)
		}
		i.metrics.done(info.FullMethod, code, time.Time{})
	}()
	return handler(srv, &drainStream{ss, ctx})
}

// drainStream's context also ends when the server is about to stop, with SHUTTING_DOWN as its cause: otherwise
// long-lived streams would hold up every stop until it is forced.
type drainStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *drainStream) Context() context.Context { return s.ctx }

func (i *interceptor) panicked(method string, p any) error {
	if i.panics != nil {
		i.panics.Inc()
	}
	i.log.Error("handler panicked", logging.KeyMethod, method, logging.KeyError, fmt.Sprint(p), logging.KeyStack, string(debug.Stack()))
	return fmt.Errorf("panic: %v", p)
}

// public is what the caller may see of an error: faults and statuses as they are, anything else as a reference
// into this process's log.
func (i *interceptor) public(method string, err error) error {
	f := fault.From(err)
	switch {
	case f.Masked():
		ref := rand.Text()[:12]
		i.log.Error("call failed", logging.KeyMethod, method, logging.KeyReference, ref, logging.Err(err))
		f = fault.New(codes.Internal, fault.ReasonInternal, "internal error, reference %s", ref).With("reference", ref)
	case f.Unwrap() == nil:
	case f.Code == codes.Internal || f.Code == codes.DataLoss:
		i.log.Error("call failed", logging.KeyMethod, method, logging.Err(err))
	default:
		i.log.Debug("call failed", logging.KeyMethod, method, logging.Err(err))
	}
	return f.GRPCStatus().Err()
}

// Timeout is a call option: how long this unary call may take when its context has no deadline.
func Timeout(d time.Duration) grpc.CallOption { return timeoutOption{d: d} }

type timeoutOption struct {
	grpc.EmptyCallOption
	d time.Duration
}

// ReasonUnreachable is of an UNAVAILABLE fault: there was no connection until the call's deadline, so nothing was sent.
const ReasonUnreachable = "SERVICE_UNREACHABLE"

type clientInterceptor struct {
	service string
	metrics *callMetrics
	timeout time.Duration
}

func (c *clientInterceptor) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	start := time.Now()
	if _, ok := ctx.Deadline(); !ok {
		d := c.timeout
		for _, o := range opts {
			if t, ok := o.(timeoutOption); ok {
				d = t.d
			}
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err == nil {
		c.metrics.done(method, codes.OK, start)
		return nil
	}
	f := fault.From(err)
	if f.Code == codes.DeadlineExceeded && cc.GetState() != connectivity.Ready {
		// gRPC's own text for this names its inner parts, and the address.
		f = fault.Wrap(errors.Join(context.DeadlineExceeded, err), codes.Unavailable, ReasonUnreachable,
			"%s cannot be reached: is it running?", c.service).With("method", method)
	}
	c.metrics.done(method, f.Code, start)
	return f
}

func (c *clientInterceptor) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
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
