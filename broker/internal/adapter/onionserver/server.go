// Package onionserver is shallot.onion.v1 in gRPC.
package onionserver

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
	onionv1 "github.com/shallot-net/shallot/proto/shallot/onion/v1"
)

// gather is how long changes are gathered before they are told: a service that is published is a dozen of them.
const gather = 50 * time.Millisecond

// Server serves shallot.onion.v1.OnionService.
type Server struct {
	onionv1.UnimplementedOnionServiceServer
	keeper *onions.Keeper
}

// Register serves a keeper.
func Register(s grpc.ServiceRegistrar, k *onions.Keeper) {
	onionv1.RegisterOnionServiceServer(s, &Server{keeper: k})
}

// Publish makes an onion service.
func (s *Server) Publish(ctx context.Context, r *onionv1.PublishRequest) (*onionv1.PublishResponse, error) {
	id, err := s.keeper.Publish(ctx, onionsvc.Request{Seed: r.GetKeySeed(), Socket: r.GetSocket(), Port: r.GetPort(), MaxStreams: r.GetMaxStreams(),
		Work: r.GetProofOfWork(), ClientKeys: r.GetClientKeys()})
	if err != nil {
		return nil, err
	}
	return &onionv1.PublishResponse{ServiceId: id}, nil
}

// Withdraw ends one.
func (s *Server) Withdraw(ctx context.Context, r *onionv1.WithdrawRequest) (*onionv1.WithdrawResponse, error) {
	if err := s.keeper.Withdraw(ctx, r.GetServiceId()); err != nil {
		return nil, err
	}
	return &onionv1.WithdrawResponse{}, nil
}

// Authorize gives tor a client's key.
func (s *Server) Authorize(ctx context.Context, r *onionv1.AuthorizeRequest) (*onionv1.AuthorizeResponse, error) {
	if err := s.keeper.Authorize(ctx, r.GetServiceId(), r.GetClientKey()); err != nil {
		return nil, err
	}
	return &onionv1.AuthorizeResponse{}, nil
}

// Watch streams the whole state; whoever reads slowly gets the newest when they read.
func (s *Server) Watch(_ *onionv1.WatchRequest, stream grpc.ServerStreamingServer[onionv1.WatchResponse]) error {
	ctx := stream.Context()
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		tor, services, changed := s.keeper.State()
		if err := stream.Send(toProto(tor, services)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
		wait.Reset(gather)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wait.C:
		}
	}
}

func toProto(t onions.TorState, services []onions.ServiceState) *onionv1.WatchResponse {
	out := &onionv1.WatchResponse{Tor: &onionv1.Tor{State: t.State, Progress: uint32(t.Progress), Detail: t.Detail, Version: t.Version, Since: timestamppb.New(t.Since)}}
	for _, s := range services {
		p := &onionv1.Service{ServiceId: s.ID, State: s.State, Uploads: s.Uploads}
		if !s.PublishedAt.IsZero() {
			p.PublishedAt = timestamppb.New(s.PublishedAt)
		}
		out.Services = append(out.Services, p)
	}
	return out
}
