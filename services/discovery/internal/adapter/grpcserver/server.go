// Package grpcserver serves shallot.discovery.v1.
package grpcserver

import (
	"context"
	"encoding/base64"
	"slices"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

const (
	defaultPage = 100
	maxPage     = 1000
	joinTimeout = 20 * time.Second
)

// Server translates calls.
type Server struct {
	discoveryv1.UnimplementedDiscoveryServiceServer
	app *app.Service
}

// Register serves a at r.
func Register(r grpc.ServiceRegistrar, a *app.Service) {
	discoveryv1.RegisterDiscoveryServiceServer(r, &Server{app: a})
}

// UpdateSelf sets what this node announces.
func (s *Server) UpdateSelf(ctx context.Context, r *discoveryv1.UpdateSelfRequest) (*discoveryv1.UpdateSelfResponse, error) {
	caps, err := broker.DecodeCapabilities(r.GetCapabilities())
	if err != nil {
		return nil, fault.InvalidArgument("SELF_INVALID", "%v", err)
	}
	if err := s.app.UpdatePuzzle(ctx, domain.Puzzle{Nonce: r.GetPuzzle().GetNonce(), Effort: r.GetPuzzle().GetEffort()}); err != nil {
		return nil, err
	}
	if err := s.app.UpdateSelf(ctx, app.Self{Capabilities: caps, SealingKey: r.GetSealingKey()}); err != nil {
		return nil, err
	}
	return &discoveryv1.UpdateSelfResponse{}, nil
}

// ListPeers pages through the table, ordered by peer id.
func (s *Server) ListPeers(ctx context.Context, r *discoveryv1.ListPeersRequest) (*discoveryv1.ListPeersResponse, error) {
	if st := domain.State(r.GetState()); st != "" && !slices.Contains(domain.States, st) {
		return nil, unknownState(r.GetState())
	}
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	size = min(size, maxPage)
	after, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil {
		return nil, fault.InvalidArgument("PAGE_TOKEN_INVALID", "the page token is none that ListPeers gave: begin without one")
	}
	peers := s.app.Peers(ctx)
	from := sort.Search(len(peers), func(i int) bool { return peers[i].PeerID > string(after) })
	out := &discoveryv1.ListPeersResponse{}
	for _, p := range peers[from:] {
		if r.GetCapability() != "" && !p.Has(r.GetCapability()) || r.GetState() != "" && p.State != domain.State(r.GetState()) {
			continue
		}
		if len(out.Peers) == size {
			out.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(out.Peers[size-1].GetPeerId()))
			break
		}
		out.Peers = append(out.Peers, peer(p))
	}
	return out, nil
}

func unknownState(state string) error {
	var names []string
	for _, st := range domain.States {
		names = append(names, string(st))
	}
	msg := "no state is called %q: there are " + strings.Join(names, ", ")
	if hint := fault.Suggest(state, names); hint != "" {
		msg += "; " + hint
	}
	return fault.InvalidArgument("STATE_UNKNOWN", msg, state)
}

// GetPeer returns one row.
func (s *Server) GetPeer(_ context.Context, r *discoveryv1.GetPeerRequest) (*discoveryv1.GetPeerResponse, error) {
	p, err := s.app.Peer(r.GetPeerId())
	if err != nil {
		return nil, err
	}
	return &discoveryv1.GetPeerResponse{Peer: peer(p)}, nil
}

// WatchPeers streams the table, then its changes.
func (s *Server) WatchPeers(_ *discoveryv1.WatchPeersRequest, stream grpc.ServerStreamingServer[discoveryv1.WatchPeersResponse]) error {
	now, w := s.app.Watch()
	defer w.Stop()
	for _, p := range now {
		if err := stream.Send(change(app.Change{Peer: p})); err != nil {
			return err
		}
	}
	if err := stream.Send(&discoveryv1.WatchPeersResponse{Change: &discoveryv1.WatchPeersResponse_Synced{Synced: &discoveryv1.Synced{}}}); err != nil {
		return err
	}
	for {
		select {
		case c, ok := <-w.C:
			if !ok {
				return w.Err()
			}
			if err := stream.Send(change(c)); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}

// Ping measures a round trip.
func (s *Server) Ping(ctx context.Context, r *discoveryv1.PingRequest) (*discoveryv1.PingResponse, error) {
	rtt, err := s.app.Ping(ctx, r.GetPeerId())
	if err != nil {
		return nil, err
	}
	return &discoveryv1.PingResponse{Rtt: durationpb.New(rtt)}, nil
}

// Join dials an address.
func (s *Server) Join(ctx context.Context, r *discoveryv1.JoinRequest) (*discoveryv1.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	id, err := s.app.Join(ctx, r.GetAddress())
	if err != nil {
		return nil, err
	}
	return &discoveryv1.JoinResponse{PeerId: id}, nil
}

func change(c app.Change) *discoveryv1.WatchPeersResponse {
	if c.Forgotten != "" {
		return &discoveryv1.WatchPeersResponse{Change: &discoveryv1.WatchPeersResponse_ForgottenPeerId{ForgottenPeerId: c.Forgotten}}
	}
	return &discoveryv1.WatchPeersResponse{Change: &discoveryv1.WatchPeersResponse_Peer{Peer: peer(c.Peer)}}
}

func peer(p domain.Peer) *discoveryv1.Peer {
	out := &discoveryv1.Peer{PeerId: p.PeerID, Role: p.Role, State: string(p.State), Capabilities: broker.EncodeCapabilities(p.Capabilities),
		SealingKey: p.SealingKey, Addresses: p.Addresses, FirstSeen: timestamppb.New(p.FirstSeen), LastSeen: timestamppb.New(p.LastSeen),
		Connected: p.Connected, Version: p.Version}
	if p.RTT > 0 {
		out.Rtt = durationpb.New(p.RTT)
	}
	var ev eventv1.Event
	if proto.Unmarshal(p.Signed, &ev) == nil {
		out.Announcement = &ev
	}
	return out
}
