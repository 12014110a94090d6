// Package grpcserver serves shallot.metric.v1.
package grpcserver

import (
	"context"
	"encoding/base64"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// Server translates calls.
type Server struct {
	metricv1.UnimplementedMetricServiceServer
	app *app.Service
}

// Register serves a at r.
func Register(r grpc.ServiceRegistrar, a *app.Service) {
	metricv1.RegisterMetricServiceServer(r, &Server{app: a})
}

// ReportQueue sets the queue figures.
func (s *Server) ReportQueue(ctx context.Context, r *metricv1.ReportQueueRequest) (*metricv1.ReportQueueResponse, error) {
	if r.GetQueue() == nil {
		return nil, fault.InvalidArgument("QUEUE_MISSING", "the request has no queue figures")
	}
	if err := s.app.ReportQueue(ctx, broker.DecodeQueue(r.GetQueue())); err != nil {
		return nil, err
	}
	return &metricv1.ReportQueueResponse{}, nil
}

// GetMetric returns one node's metric.
func (s *Server) GetMetric(_ context.Context, r *metricv1.GetMetricRequest) (*metricv1.GetMetricResponse, error) {
	c, err := s.app.Get(r.GetPeerId())
	if err != nil {
		return nil, err
	}
	return &metricv1.GetMetricResponse{Metric: known(c.Metric, c.Own)}, nil
}

// ListMetrics pages through what is fresh: this node's own, then the others by peer id.
func (s *Server) ListMetrics(_ context.Context, r *metricv1.ListMetricsRequest) (*metricv1.ListMetricsResponse, error) {
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	size = min(size, maxPage)
	after, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil {
		return nil, fault.InvalidArgument("PAGE_TOKEN_INVALID", "the page token is none that ListMetrics gave: begin without one")
	}
	list := s.app.List()
	if r.GetPageToken() != "" {
		list = slices.DeleteFunc(list, func(c app.Change) bool {
			return c.Own || c.Metric.PeerID <= string(after)
		})
	}
	out := &metricv1.ListMetricsResponse{}
	for _, c := range list[:min(size, len(list))] {
		out.Metrics = append(out.Metrics, known(c.Metric, c.Own))
	}
	if len(list) > size {
		last := list[size-1]
		token := last.Metric.PeerID
		if last.Own {
			token = "" // its id may come after the others'
		}
		out.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(token + "\x00")) // never empty
	}
	return out, nil
}

// WatchMetrics streams every metric, then what changes.
func (s *Server) WatchMetrics(_ *metricv1.WatchMetricsRequest, stream grpc.ServerStreamingServer[metricv1.WatchMetricsResponse]) error {
	now, w := s.app.Watch()
	defer w.Stop()
	for _, c := range now {
		if err := stream.Send(change(c)); err != nil {
			return err
		}
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

// RefreshMetrics asks peers.
func (s *Server) RefreshMetrics(ctx context.Context, r *metricv1.RefreshMetricsRequest) (*metricv1.RefreshMetricsResponse, error) {
	var timeout time.Duration
	if r.GetTimeout() != nil {
		if timeout = r.GetTimeout().AsDuration(); r.GetTimeout().CheckValid() != nil || timeout <= 0 || timeout > app.LongestRefresh {
			return nil, fault.InvalidArgument("TIMEOUT_INVALID", "the timeout is %v: it must be more than 0 and at most %v", timeout, app.LongestRefresh)
		}
	}
	found, err := s.app.Refresh(ctx, r.GetPeerIds(), timeout)
	if err != nil {
		return nil, err
	}
	out := &metricv1.RefreshMetricsResponse{}
	own, _ := s.app.Get("")
	for _, k := range found {
		out.Metrics = append(out.Metrics, known(k, k.PeerID == own.Metric.PeerID))
	}
	return out, nil
}

func change(c app.Change) *metricv1.WatchMetricsResponse {
	if c.Expired != "" {
		return &metricv1.WatchMetricsResponse{Change: &metricv1.WatchMetricsResponse_ExpiredPeerId{ExpiredPeerId: c.Expired}}
	}
	return &metricv1.WatchMetricsResponse{Change: &metricv1.WatchMetricsResponse_Metric{Metric: known(c.Metric, c.Own)}}
}

func known(k domain.Known, own bool) *metricv1.KnownMetric {
	return &metricv1.KnownMetric{Metric: broker.Encode(k.Metric), ReceivedAt: timestamppb.New(k.ReceivedAt),
		Age: durationpb.New(max(time.Since(k.ReceivedAt), 0)), Own: own}
}
