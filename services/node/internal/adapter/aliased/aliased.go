// Package aliased stands between node's API and its users in anonymous mode: requests name peers by alias, and no peer id and no address
// leaves in an answer or an error that did not ask for it. It looks at messages by their fields, whatever call they are of, so
// that a call that is added later tells no more than the others.
package aliased

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/fault"
)

// Peers returns the ids of all peers that the node knows, its own among them.
type Peers func(ctx context.Context) ([]string, error)

// Registrar registers services whose users see aliases.
type Registrar struct {
	to grpc.ServiceRegistrar
	m  *mask
}

// New makes one that registers with to.
func New(to grpc.ServiceRegistrar, key *alias.Key, peers Peers) Registrar {
	return Registrar{to, &mask{key: key, peers: peers, tokens: newTokens(key)}}
}

// RegisterService is of grpc.ServiceRegistrar.
func (r Registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		d.Methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: r.m.unary(m.Handler)}
	}
	d.Streams = make([]grpc.StreamDesc, len(desc.Streams))
	for i, s := range desc.Streams {
		inner := s.Handler
		s.Handler = func(srv any, ss grpc.ServerStream) error {
			st := &stream{ServerStream: ss, m: r.m}
			return r.m.err(inner(srv, st), st.show)
		}
		d.Streams[i] = s
	}
	r.to.RegisterService(&d, impl)
}

type methodHandler = func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error)

// unary works inside the server's interceptor, which turns errors into what crosses the wire.
func (m *mask) unary(inner methodHandler) methodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		return inner(srv, ctx, dec, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			masked := func(ctx context.Context, req any) (any, error) {
				if err := m.request(ctx, req); err != nil {
					return nil, m.err(err, shows(req))
				}
				resp, err := handler(ctx, req)
				if err != nil {
					return nil, m.err(err, shows(req))
				}
				return m.answer(resp, shows(req)), nil
			}
			if interceptor == nil {
				return masked(ctx, req)
			}
			return interceptor(ctx, req, info, masked)
		})
	}
}

// stream is one call; a request of it may ask for addresses.
type stream struct {
	grpc.ServerStream
	m    *mask
	show bool // only RecvMsg sets it, and before what answers the request is sent
}

func (s *stream) RecvMsg(msg any) error {
	if err := s.ServerStream.RecvMsg(msg); err != nil {
		return err
	}
	s.show = s.show || shows(msg)
	return s.m.request(s.Context(), msg)
}

func (s *stream) SendMsg(msg any) error { return s.ServerStream.SendMsg(s.m.answer(msg, s.show)) }

// shows tells whether a request asks for peer ids and addresses.
func shows(req any) bool {
	r, ok := req.(interface{ GetShowAddresses() bool })
	return ok && r.GetShowAddresses()
}

// answer returns a message as users may see it; msg itself may be seen by others, and stays as it is.
func (m *mask) answer(msg any, show bool) any {
	p, ok := msg.(proto.Message)
	if !ok || !speaksOfPeers(p.ProtoReflect().Descriptor()) {
		return msg
	}
	p = proto.Clone(p)
	m.message(p.ProtoReflect(), show)
	return p
}

// err is an error as users may see it. Its cause stays: it is for this process's log.
func (m *mask) err(err error, show bool) error {
	if err == nil || show {
		return err
	}
	f := fault.From(err)
	if f.Masked() {
		return err
	}
	out := fault.New(f.Code, f.Reason, "%s", m.key.Text(f.Message)).Because(f.Unwrap())
	for k, v := range f.Meta {
		out = out.With(k, m.key.Text(v))
	}
	return out
}
