package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/telemetry"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// History is what this node did lately.
type History interface {
	// Since returns the points of the last span, and the time of the oldest point that there is, of whichever span; zero where there is none.
	Since(span time.Duration) (step time.Duration, points []domain.Point, oldest time.Time)
}

// Trails remember the metrics of peers.
type Trails interface {
	Trail(peer string, each func(at time.Time, m *eventv1.Metric))
}

const defaultSpan = time.Hour

// GetHistory returns what this node did lately.
func (s *Service) GetHistory(_ context.Context, in *nodev1.GetHistoryRequest) (*nodev1.GetHistoryResponse, error) {
	span := defaultSpan
	if in.GetSpan() != nil {
		span = in.GetSpan().AsDuration()
	}
	if in.GetSpan().CheckValid() != nil && in.GetSpan() != nil || span <= 0 || span > domain.HistorySpan {
		return nil, fault.InvalidArgument("SPAN_INVALID", "span is %s: it must be more than nothing, and %s at most, such as 3600s", span, domain.HistorySpan)
	}
	step, points, oldest := s.cfg.History.Since(span)
	out := &nodev1.GetHistoryResponse{Step: durationpb.New(step), Replica: telemetry.Replica()}
	if !oldest.IsZero() {
		out.Since = timestamppb.New(oldest)
	}
	for i := range points {
		p := &points[i]
		m := &nodev1.HistoryPoint{Time: timestamppb.New(p.Time), Waiting: p.Waiting, Running: p.Running, Finished: p.Finished, Failed: p.Failed, Cpu: p.CPU, Memory: p.Memory,
			DiskUsed: p.Used, DiskFree: p.Free}
		if p.P99 > 0 {
			m.LatencyP50, m.LatencyP99 = durationpb.New(p.P50), durationpb.New(p.P99)
		}
		out.Points = append(out.Points, m)
	}
	return out, nil
}

// GetPeerMetricsHistory returns what was heard of a peer's resources.
func (s *Service) GetPeerMetricsHistory(ctx context.Context, in *nodev1.GetPeerMetricsHistoryRequest) (*nodev1.GetPeerMetricsHistoryResponse, error) {
	if err := checkPeerID(ctx, s.cfg.View, in.GetPeerId()); err != nil {
		return nil, err
	}
	out := &nodev1.GetPeerMetricsHistoryResponse{}
	s.cfg.Trails.Trail(in.GetPeerId(), func(at time.Time, m *eventv1.Metric) {
		q := m.GetQueue()
		out.Points = append(out.Points, &nodev1.PeerMetricPoint{Time: timestamppb.New(at), Cpu: m.GetCpu().GetLoad(), MemoryUsed: m.GetMemory().GetUsed(), MemoryTotal: m.GetMemory().GetTotal(),
			DiskUsed: m.GetDisk().GetUsed(), DiskTotal: m.GetDisk().GetTotal(), Running: q.GetRunning(), Waiting: q.GetPending(), Slots: q.GetSlots()})
	})
	if len(out.Points) == 0 {
		if _, err := s.cfg.View.GetPeer(ctx, in.GetPeerId()); err != nil {
			return nil, peerError(ctx, s.cfg.View, in.GetPeerId(), err, "this node does not know the peer")
		}
	}
	return out, nil
}
