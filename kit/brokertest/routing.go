package brokertest

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// Advertise tells the whole network: what is said is found from everywhere, until its broker goes down.
func (s *networkServer) Advertise(_ context.Context, r *brokerv1.AdvertiseRequest) (*brokerv1.AdvertiseResponse, error) {
	if _, err := s.b.alive(); err != nil {
		return nil, err
	}
	n := s.b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.b.names == nil {
		s.b.names = map[string]bool{}
	}
	s.b.names[r.GetCapability()] = true
	return &brokerv1.AdvertiseResponse{ValidFor: durationpb.New(3 * time.Hour), AgainAfter: durationpb.New(time.Hour)}, nil
}

// FindPeers finds who has advertised a name, this broker excluded.
func (s *networkServer) FindPeers(r *brokerv1.FindPeersRequest, stream grpc.ServerStreamingServer[brokerv1.FindPeersResponse]) error {
	if _, err := s.b.alive(); err != nil {
		return err
	}
	var out []*brokerv1.FindPeersResponse
	n := s.b.net
	n.mu.Lock()
	for id, b := range n.brokers {
		if b != s.b && !b.down && b.names[r.GetCapability()] && (r.GetLimit() == 0 || len(out) < int(r.GetLimit())) {
			out = append(out, &brokerv1.FindPeersResponse{PeerId: id, Addresses: []string{b.address}})
		}
	}
	n.mu.Unlock()
	for _, found := range out {
		if err := stream.Send(found); err != nil {
			return err
		}
	}
	return nil
}

// Offer advertises a name for a broker whose services are not there.
func (b *Broker) Offer(name string) {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	if b.names == nil {
		b.names = map[string]bool{}
	}
	b.names[name] = true
}

// Offers tells whether a broker has advertised a name.
func (b *Broker) Offers(name string) bool {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	return b.names[name]
}
