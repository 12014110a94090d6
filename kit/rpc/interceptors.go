package rpc

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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
	gate    *gate           // nil where callers are not known
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
	if err := i.gate.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
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
	if err := i.gate.admit(ctx, info.FullMethod); err != nil {
		return err
	}
	defer i.gate.age(info.FullMethod, cancel)()
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
