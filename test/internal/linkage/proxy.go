package linkage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shallot-net/shallot/kit/rpc"
)

// proxy stands between a node's services and its broker. It passes everything on as it is, whatever the service, and shows eye each message.
type proxy struct {
	server *grpc.Server
	broker *grpc.ClientConn
	eye    func(call *call, toBroker bool, message []byte)
}

// call is one RPC that goes through.
type call struct {
	method string
	asked  map[uint64]question // requests of a Send stream that are not answered yet
}

// raw passes messages on as bytes.
type raw struct{}

type frame struct{ b []byte }

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("a %T cannot be passed on", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(f.b)}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("a %T cannot be passed on", v)
	}
	f.b = data.Materialize()
	return nil
}

// startProxy listens on a Unix socket. The broker need not be there yet: calls wait for it.
func startProxy(socket, broker string, eye func(*call, bool, []byte)) (*proxy, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	p := &proxy{eye: eye}
	// Not kit/rpc's client, which would translate errors: every call goes on with the deadline that it came with, and its answer comes back as it is.
	if p.broker, err = grpc.NewClient(broker, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(rpc.MaxMessage), grpc.MaxCallSendMsgSize(rpc.MaxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 3 * time.Second, Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}}),
	); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	p.server = grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(p.pass), grpc.MaxRecvMsgSize(rpc.MaxMessage), grpc.MaxSendMsgSize(rpc.MaxMessage),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	go func() { _ = p.server.Serve(l) }()
	return p, nil
}

func (p *proxy) close() {
	p.server.Stop()
	_ = p.broker.Close()
}

func (p *proxy) pass(_ any, in grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(in)
	if !ok {
		return status.Error(codes.Internal, "the call has no method")
	}
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	out, err := p.broker.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodecV2(raw{}))
	if err != nil {
		return err
	}
	c := &call{method: method, asked: map[uint64]question{}}
	go func() {
		for {
			var f frame
			err := in.RecvMsg(&f)
			if errors.Is(err, io.EOF) {
				_ = out.CloseSend()
				return
			}
			if err != nil { // then ctx ends, and the broker's side with it
				return
			}
			p.eye(c, true, f.b)
			if out.SendMsg(&f) != nil {
				return
			}
		}
	}()
	if header, err := out.Header(); err == nil {
		_ = in.SetHeader(header)
	}
	for {
		var f frame
		err := out.RecvMsg(&f)
		if errors.Is(err, io.EOF) {
			in.SetTrailer(out.Trailer())
			return nil
		}
		if err != nil {
			in.SetTrailer(out.Trailer())
			return err
		}
		p.eye(c, false, f.b)
		if err := in.SendMsg(&f); err != nil {
			return err
		}
	}
}
