// Package tap stands between the services of a node and its broker, passes on what they say, and shows it to a test: all that leaves a node goes through there.
package tap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Tap is a server at one Unix socket in front of another.
type Tap struct {
	server *grpc.Server
	conn   *grpc.ClientConn
	saw    func(method string, message []byte)
	heard  func(method string, message []byte)
}

// Listen serves at the path listen for the server at the path broker, which need not be there yet. saw gets every message that a client sends, with the full name of
// its method, and heard, where it is not nil, every message that is answered; they are called from several goroutines, and must not keep the bytes. Close it.
func Listen(listen, broker string, saw, heard func(method string, message []byte)) (*Tap, error) {
	conn, err := grpc.NewClient("unix:"+broker, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("a client of %s: %w", broker, err)
	}
	t := &Tap{conn: conn, saw: saw, heard: heard}
	t.server = grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(t.pass), grpc.MaxRecvMsgSize(64<<20))
	l, err := net.Listen("unix", listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %s: %w", listen, err), conn.Close())
	}
	if err := os.Chmod(listen, 0o600); err != nil {
		return nil, errors.Join(err, l.Close(), conn.Close())
	}
	go func() { _ = t.server.Serve(l) }()
	return t, nil
}

// Close ends all calls.
func (t *Tap) Close() error {
	t.server.Stop()
	return t.conn.Close()
}

func (t *Tap) pass(_ any, in grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(in)
	if !ok {
		return status.Error(codes.Internal, "a call without a method")
	}
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy())
	}
	out, err := t.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go func() { // what the client says; it ends with the call
		for {
			var m mem.BufferSlice
			err := in.RecvMsg(&m)
			if errors.Is(err, io.EOF) {
				_ = out.CloseSend()
				return
			}
			if err != nil {
				cancel()
				return
			}
			t.saw(method, m.Materialize())
			if out.SendMsg(m) != nil {
				return // the other direction knows why
			}
		}
	}()
	for first := true; ; first = false {
		var m mem.BufferSlice
		if err := out.RecvMsg(&m); err != nil {
			in.SetTrailer(out.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if t.heard != nil {
			t.heard(method, m.Materialize())
		}
		if first {
			if header, err := out.Header(); err == nil {
				_ = in.SetHeader(header)
			}
		}
		if err := in.SendMsg(m); err != nil {
			return err
		}
	}
}

// raw passes messages on as they are. It has the name of the codec whose messages they are.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(mem.BufferSlice)
	if !ok {
		return nil, fmt.Errorf("the tap was given a %T", v)
	}
	return m, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*mem.BufferSlice)
	if !ok {
		return fmt.Errorf("the tap was asked for a %T", v)
	}
	*m = mem.BufferSlice{mem.SliceBuffer(data.Materialize())} // data is the transport's again after this
	return nil
}
