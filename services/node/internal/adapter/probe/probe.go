// Package probe looks at the node's other processes: their health, which process they are, and their metrics.
package probe

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// gatherTimeout bounds what the replicas of one service may hold up an answer with everybody's metrics, and oneTimeout what one of them may.
const (
	gatherTimeout = 2500 * time.Millisecond
	oneTimeout    = time.Second
)

// Process is one of them.
type Process struct {
	name      string
	health    healthpb.HealthClient
	telemetry telemetryv1.TelemetryServiceClient
}

// New makes a probe over a connection.
func New(name string, conn grpc.ClientConnInterface) *Process {
	return &Process{name, healthpb.NewHealthClient(conn), telemetryv1.NewTelemetryServiceClient(conn)}
}

// WatchHealth follows its health; see app.Prober.
func (p *Process) WatchHealth(ctx context.Context, serving func(bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := p.health.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		serving(r.GetStatus() == healthpb.HealthCheckResponse_SERVING)
	}
}

// PID asks which process it is.
func (p *Process) PID(ctx context.Context) (int64, error) {
	r, err := p.telemetry.Gather(ctx, &telemetryv1.GatherRequest{})
	if err != nil {
		return 0, err
	}
	for _, m := range r.GetProcesses() {
		if m.GetPid() != 0 {
			return m.GetPid(), nil
		}
	}
	return 0, nil
}

// Gather asks every process for its metrics, and every replica of it; who does not answer in time is there with an error.
func Gather(ctx context.Context, processes []*Process) ([]*telemetryv1.ProcessMetrics, error) {
	return every(ctx, processes, func(ctx context.Context, p *Process) ([]*telemetryv1.ProcessMetrics, error) {
		r, err := p.telemetry.Gather(ctx, &telemetryv1.GatherRequest{})
		return r.GetProcesses(), err
	}, func(p *Process, err string) *telemetryv1.ProcessMetrics {
		return &telemetryv1.ProcessMetrics{Process: p.name, Error: err}
	}), nil
}

// Settings asks every process what it runs with, as Gather does.
func Settings(ctx context.Context, processes []*Process) []*telemetryv1.ProcessSettings {
	return every(ctx, processes, func(ctx context.Context, p *Process) ([]*telemetryv1.ProcessSettings, error) {
		r, err := p.telemetry.GetSettings(ctx, &telemetryv1.GetSettingsRequest{})
		if err != nil {
			return nil, err
		}
		return []*telemetryv1.ProcessSettings{r.GetSettings()}, nil
	}, func(p *Process, err string) *telemetryv1.ProcessSettings {
		return &telemetryv1.ProcessSettings{Name: p.name, Error: err}
	})
}

// every asks all replicas of all processes, the processes side by side.
func every[T any](ctx context.Context, processes []*Process, ask func(context.Context, *Process) ([]T, error), silent func(p *Process, err string) T) []T {
	out := make([][]T, len(processes))
	var wg sync.WaitGroup
	for i, p := range processes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, gatherTimeout)
			defer cancel()
			err := rpc.Every(ctx, oneTimeout, func(ctx context.Context) error {
				r, err := ask(ctx, p)
				out[i] = append(out[i], r...)
				return err
			})
			if err != nil { // also where others of its replicas did
				out[i] = append(out[i], silent(p, "it does not answer: "+fault.From(err).Message))
			}
		})
	}
	wg.Wait()
	var all []T
	for _, o := range out {
		all = append(all, o...)
	}
	return all
}
