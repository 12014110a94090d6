// Package grpcserver is the broker's services in gRPC.
package grpcserver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/kit/tracing"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// Network serves shallot.broker.v1.NetworkService.
type Network struct {
	brokerv1.UnimplementedNetworkServiceServer
	broker *app.Broker
}

// Register serves events and network of a broker.
func Register(s grpc.ServiceRegistrar, b *app.Broker, trace *tracing.Tracer) {
	brokerv1.RegisterNetworkServiceServer(s, &Network{broker: b})
	brokerv1.RegisterEventServiceServer(s, &Events{broker: b, trace: trace})
}

// Self describes a persona.
func (n *Network) Self(_ context.Context, r *brokerv1.SelfRequest) (*brokerv1.SelfResponse, error) {
	s, err := n.broker.Self(r.GetPersona())
	if err != nil {
		return nil, err
	}
	out := &brokerv1.SelfResponse{PeerId: s.PeerID, Addresses: s.Addresses, Mode: s.Mode, Connections: uint32(s.Connections), Online: s.Reach.Online, Enclosed: s.Reach.Enclosed,
		PrivateNetwork: s.Private}
	if s.Reach.State != "" {
		out.Tor = &brokerv1.Tor{State: s.Reach.State, Progress: s.Reach.Progress, Detail: s.Reach.Detail}
	}
	return out, nil
}

// Connect dials a peer or remembers where it is.
func (n *Network) Connect(ctx context.Context, r *brokerv1.ConnectRequest) (*brokerv1.ConnectResponse, error) {
	id, err := n.broker.Connect(ctx, r.GetPersona(), app.Target{Peer: r.GetPeerId(), Addresses: r.GetAddresses(), Vouched: r.GetVouched()}, r.GetRememberOnly())
	if err != nil {
		return nil, err
	}
	return &brokerv1.ConnectResponse{PeerId: id}, nil
}

// Disconnect closes the connections to a peer.
func (n *Network) Disconnect(_ context.Context, r *brokerv1.DisconnectRequest) (*brokerv1.DisconnectResponse, error) {
	if err := n.broker.Disconnect(r.GetPersona(), r.GetPeerId()); err != nil {
		return nil, err
	}
	return &brokerv1.DisconnectResponse{}, nil
}

// ListPeers lists who is connected.
func (n *Network) ListPeers(_ context.Context, r *brokerv1.ListPeersRequest) (*brokerv1.ListPeersResponse, error) {
	peers, err := n.broker.Peers(r.GetPersona())
	if err != nil {
		return nil, err
	}
	out := &brokerv1.ListPeersResponse{Peers: make([]*brokerv1.ConnectedPeer, 0, len(peers))}
	for _, p := range peers {
		c := &brokerv1.ConnectedPeer{PeerId: p.ID, Addresses: p.Addresses, ConnectedAt: timestamppb.New(p.Since), Inbound: p.Inbound}
		if p.RTT > 0 {
			c.Rtt = durationpb.New(p.RTT)
		}
		out.Peers = append(out.Peers, c)
	}
	return out, nil
}

// ListKnownPeers lists whom this node has reached.
func (n *Network) ListKnownPeers(_ context.Context, r *brokerv1.ListKnownPeersRequest) (*brokerv1.ListKnownPeersResponse, error) {
	known, err := n.broker.KnownPeers(r.GetPersona())
	if err != nil {
		return nil, err
	}
	out := &brokerv1.ListKnownPeersResponse{}
	for _, e := range known {
		out.Peers = append(out.Peers, &brokerv1.KnownPeer{PeerId: e.Peer, Addresses: e.Addresses, LastConnectedAt: timestamppb.New(e.At)})
	}
	return out, nil
}

// Watch streams who comes and goes.
func (n *Network) Watch(r *brokerv1.WatchRequest, stream grpc.ServerStreamingServer[brokerv1.WatchResponse]) error {
	w, err := n.broker.Watch(r.GetPersona())
	if err != nil {
		return err
	}
	defer w.Close()
	ctx := stream.Context()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c, ok := <-w.C:
			if !ok {
				return w.Err()
			}
			if err := stream.Send(&brokerv1.WatchResponse{PeerId: c.Peer, Connected: c.Connected}); err != nil {
				return err
			}
		}
	}
}

// Protect keeps connections from being trimmed.
func (n *Network) Protect(_ context.Context, r *brokerv1.ProtectRequest) (*brokerv1.ProtectResponse, error) {
	if err := n.broker.Protect(r.GetPersona(), r.GetTag(), r.GetPeerIds()); err != nil {
		return nil, err
	}
	return &brokerv1.ProtectResponse{}, nil
}

// OpenPersona makes an identity.
func (n *Network) OpenPersona(_ context.Context, r *brokerv1.OpenPersonaRequest) (*brokerv1.OpenPersonaResponse, error) {
	p, err := n.broker.OpenPersona(r.GetPersona())
	if err != nil {
		return nil, err
	}
	return &brokerv1.OpenPersonaResponse{Persona: personaToProto(p)}, nil
}

// ClosePersona ends an identity.
func (n *Network) ClosePersona(_ context.Context, r *brokerv1.ClosePersonaRequest) (*brokerv1.ClosePersonaResponse, error) {
	if err := n.broker.ClosePersona(r.GetPersona()); err != nil {
		return nil, err
	}
	return &brokerv1.ClosePersonaResponse{}, nil
}

// ListPersonas lists the open ones.
func (n *Network) ListPersonas(context.Context, *brokerv1.ListPersonasRequest) (*brokerv1.ListPersonasResponse, error) {
	out := &brokerv1.ListPersonasResponse{}
	for _, p := range n.broker.Personas() {
		out.Personas = append(out.Personas, personaToProto(p))
	}
	return out, nil
}

func personaToProto(p app.PersonaInfo) *brokerv1.Persona {
	return &brokerv1.Persona{Name: p.Name, PeerId: p.PeerID, OpenedAt: timestamppb.New(p.OpenedAt)}
}
