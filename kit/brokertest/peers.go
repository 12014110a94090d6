package brokertest

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

type networkServer struct {
	brokerv1.UnimplementedNetworkServiceServer
	b *Broker
}

func (s *networkServer) Self(context.Context, *brokerv1.SelfRequest) (*brokerv1.SelfResponse, error) {
	if _, err := s.b.alive(); err != nil {
		return nil, err
	}
	s.b.net.mu.Lock()
	defer s.b.net.mu.Unlock()
	return &brokerv1.SelfResponse{PeerId: s.b.id, Addresses: []string{s.b.address}, Mode: "open", Connections: uint32(len(s.b.peers)), Online: true, PrivateNetwork: s.b.private}, nil
}

func (s *networkServer) Connect(_ context.Context, r *brokerv1.ConnectRequest) (*brokerv1.ConnectResponse, error) {
	if _, err := s.b.alive(); err != nil {
		return nil, err
	}
	n := s.b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	id, addresses := r.GetPeerId(), slices.Clone(r.GetAddresses())
	for i, a := range addresses {
		if id == "" || strings.Contains(a, "/p2p/") {
			at, p2p, ok := strings.Cut(a, "/p2p/")
			if !ok || id != "" && p2p != id {
				return nil, fault.InvalidArgument("ADDRESS_INVALID", "address %d does not end in the peer's /p2p/ID", i+1)
			}
			id, addresses[i] = p2p, at
		}
	}
	for _, a := range addresses {
		s.b.known[a] = id
	}
	if r.GetRememberOnly() {
		return &brokerv1.ConnectResponse{PeerId: id}, nil
	}
	to := n.brokers[id]
	if id == s.b.id {
		return nil, fault.InvalidArgument("PEER_IS_SELF", "the peer is this node")
	}
	if _, there := s.b.peers[id]; !there && (to == nil || !slices.Contains(addresses, to.address) || !n.connectLocked(s.b, to)) {
		return nil, fault.Unavailable(brokerclient.ReasonUnreachable, "none of %d addresses could be dialled", len(addresses))
	}
	return &brokerv1.ConnectResponse{PeerId: id}, nil
}

func (s *networkServer) Disconnect(_ context.Context, r *brokerv1.DisconnectRequest) (*brokerv1.DisconnectResponse, error) {
	n := s.b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if to := n.brokers[r.GetPeerId()]; to != nil {
		n.disconnectLocked(s.b, to)
	}
	return &brokerv1.DisconnectResponse{}, nil
}

func (s *networkServer) ListPeers(context.Context, *brokerv1.ListPeersRequest) (*brokerv1.ListPeersResponse, error) {
	if _, err := s.b.alive(); err != nil {
		return nil, err
	}
	s.b.net.mu.Lock()
	defer s.b.net.mu.Unlock()
	out := &brokerv1.ListPeersResponse{}
	for id, since := range s.b.peers {
		out.Peers = append(out.Peers, &brokerv1.ConnectedPeer{PeerId: id, Addresses: []string{s.b.net.brokers[id].address}, ConnectedAt: timestamppb.New(since)})
	}
	return out, nil
}

func (s *networkServer) Watch(_ *brokerv1.WatchRequest, stream grpc.ServerStreamingServer[brokerv1.WatchResponse]) error {
	life, err := s.b.alive()
	if err != nil {
		return err
	}
	n := s.b.net
	n.mu.Lock()
	w := make(chan *brokerv1.WatchResponse, 1024)
	for id := range s.b.peers {
		w <- &brokerv1.WatchResponse{PeerId: id, Connected: true}
	}
	s.b.watchers[w] = struct{}{}
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(s.b.watchers, w)
		n.mu.Unlock()
	}()
	for {
		select {
		case r, ok := <-w:
			if !ok {
				return fault.ResourceExhausted("WATCHER_TOO_SLOW", "the watcher does not read")
			}
			if err := stream.Send(r); err != nil {
				return err
			}
		case <-life:
			return errDown
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}

func (s *networkServer) Protect(context.Context, *brokerv1.ProtectRequest) (*brokerv1.ProtectResponse, error) {
	return &brokerv1.ProtectResponse{}, nil
}
