package api

import (
	"context"
	"os"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// GetNode returns this node and the health of its processes.
func (s *Service) GetNode(ctx context.Context, in *nodev1.GetNodeRequest) (*nodev1.GetNodeResponse, error) {
	self, err := s.cfg.Identity.Now(ctx)
	processes, ready := s.cfg.Processes.List()
	n := &nodev1.Node{PeerId: self.GetPeerId(), Role: s.cfg.Role, Mode: self.GetMode(), Capabilities: s.cfg.View.Capabilities(),
		ProvidersKnown: uint32(s.cfg.View.Available()), Ready: ready && err == nil,
		Version: s.cfg.Version, StartedAt: timestamppb.New(s.cfg.StartedAt)}
	n.Addresses = full(self.GetPeerId(), self.GetAddresses())
	if err == nil { // what a broker said that does not answer any more is not true any more
		n.Connections, n.Online = self.GetConnections(), self.GetOnline()
		if t := self.GetTor(); t != nil {
			n.Tor = &nodev1.Tor{State: t.GetState(), Progress: t.GetProgress(), Detail: t.GetDetail()}
			if n.Fence = "none"; self.GetEnclosed() {
				n.Fence = "enclosed"
			}
		}
	}
	for _, p := range processes {
		n.Processes = append(n.Processes, &nodev1.Process{Name: p.Name, Pid: p.PID, State: p.State, Detail: p.Detail})
	}
	n.Processes = append(n.Processes, &nodev1.Process{Name: "node", Pid: int64(os.Getpid()), State: app.ProcessServing})
	if in.GetUsage() && s.cfg.Usage != nil {
		used := s.cfg.Usage(ctx)
		for _, p := range n.Processes {
			if u, ok := used[p.GetName()]; ok {
				p.Memory, p.Cpu = u.Memory, durationpb.New(u.CPU)
				if !u.StartedAt.IsZero() {
					p.StartedAt = timestamppb.New(u.StartedAt)
				}
			}
		}
	}
	return &nodev1.GetNodeResponse{Node: n}, nil
}

// full are addresses that say whose they are.
func full(peer string, addresses []string) (out []string) {
	for _, a := range addresses {
		if !strings.Contains(a, "/p2p/") {
			a += "/p2p/" + peer
		}
		out = append(out, a)
	}
	return out
}

// GetSettings returns what all processes run with.
func (s *Service) GetSettings(ctx context.Context, _ *nodev1.GetSettingsRequest) (*nodev1.GetSettingsResponse, error) {
	return &nodev1.GetSettingsResponse{Version: s.cfg.Version, Processes: s.cfg.Settings(ctx)}, nil
}

// ConnectPeer joins the network through one more address.
func (s *Service) ConnectPeer(ctx context.Context, in *nodev1.ConnectPeerRequest) (*nodev1.ConnectPeerResponse, error) {
	if domain.AddressPeer(in.GetAddress()) == "" {
		return nil, fault.InvalidArgument("ADDRESS_INVALID", "address is %q: it must be a multiaddr that ends in /p2p/ID, as `shallot node --show-addresses` prints them at the other node", shown(in.GetAddress()))
	}
	id, err := s.cfg.View.Join(ctx, in.GetAddress())
	if err != nil {
		return nil, err
	}
	return &nodev1.ConnectPeerResponse{PeerId: id}, nil
}

// PeerIDs are those of all peers that this node knows of, and its own.
func (s *Service) PeerIDs(ctx context.Context) ([]string, error) {
	var ids []string
	self, err := s.cfg.Identity.Now(ctx)
	if err == nil {
		ids = append(ids, self.GetPeerId())
	}
	for token, pages := "", 0; pages < maxPeerPages; pages++ {
		peers, next, err := s.cfg.View.ListPeers(ctx, PeerQuery{PageSize: maxPage, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, p := range peers {
			ids = append(ids, p.GetPeerId())
		}
		if token = next; token == "" {
			break
		}
	}
	return ids, nil
}

// maxPeerPages bounds a list whose page tokens never end.
const maxPeerPages = 100

// ListPeers lists who is out there.
func (s *Service) ListPeers(ctx context.Context, in *nodev1.ListPeersRequest) (*nodev1.ListPeersResponse, error) {
	if err := checkPage(in.GetPageSize()); err != nil {
		return nil, err
	}
	if st := in.GetState(); st != "" {
		if err := oneOf("state", 0, st, domain.PeerStates); err != nil {
			return nil, err
		}
	}
	peers, next, err := s.cfg.View.ListPeers(ctx, PeerQuery{in.GetCapability(), in.GetState(), in.GetPageSize(), in.GetPageToken()})
	if err != nil {
		return nil, err
	}
	return &nodev1.ListPeersResponse{Peers: peers, NextPageToken: next}, nil
}

// GetPeer finds one.
func (s *Service) GetPeer(ctx context.Context, in *nodev1.GetPeerRequest) (*nodev1.GetPeerResponse, error) {
	if err := checkPeerID(ctx, s.cfg.View, in.GetPeerId()); err != nil {
		return nil, err
	}
	p, err := s.cfg.View.GetPeer(ctx, in.GetPeerId())
	if err != nil {
		return nil, peerError(ctx, s.cfg.View, in.GetPeerId(), err, "this node does not know the peer")
	}
	return &nodev1.GetPeerResponse{Peer: p}, nil
}

// ListMetrics lists what is known of the nodes' resources.
func (s *Service) ListMetrics(ctx context.Context, in *nodev1.ListMetricsRequest) (*nodev1.ListMetricsResponse, error) {
	if err := checkPage(in.GetPageSize()); err != nil {
		return nil, err
	}
	metrics, next, err := s.cfg.View.ListMetrics(ctx, in.GetPageSize(), in.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &nodev1.ListMetricsResponse{Metrics: metrics, NextPageToken: next}, nil
}

// GetPeerMetrics returns what is known of one node's resources.
func (s *Service) GetPeerMetrics(ctx context.Context, in *nodev1.GetPeerMetricsRequest) (*nodev1.GetPeerMetricsResponse, error) {
	if err := checkPeerID(ctx, s.cfg.View, in.GetPeerId()); err != nil {
		return nil, err
	}
	m, err := s.cfg.View.GetMetric(ctx, in.GetPeerId())
	if err != nil {
		return nil, peerError(ctx, s.cfg.View, in.GetPeerId(), err, "no fresh metric is known of the peer")
	}
	return &nodev1.GetPeerMetricsResponse{Metric: m}, nil
}
