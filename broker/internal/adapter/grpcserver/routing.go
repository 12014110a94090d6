package grpcserver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/broker/internal/app"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// FindPeers streams who has advertised a name.
func (n *Network) FindPeers(r *brokerv1.FindPeersRequest, stream grpc.ServerStreamingServer[brokerv1.FindPeersResponse]) error {
	return n.broker.FindPeers(stream.Context(), r.GetPersona(), r.GetCapability(), int(r.GetLimit()), func(t app.Target) error {
		return stream.Send(&brokerv1.FindPeersResponse{PeerId: t.Peer, Addresses: t.Addresses})
	})
}

// Advertise says that a persona has a name.
func (n *Network) Advertise(ctx context.Context, r *brokerv1.AdvertiseRequest) (*brokerv1.AdvertiseResponse, error) {
	a, err := n.broker.Advertise(ctx, r.GetPersona(), r.GetCapability())
	if err != nil {
		return nil, err
	}
	return &brokerv1.AdvertiseResponse{ValidFor: durationpb.New(a.ValidFor), AgainAfter: durationpb.New(a.Again)}, nil
}
