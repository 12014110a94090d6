package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/measure"
)

// footprint is a provider alone on the machine: with others beside it, the pages of the programs would count less.
func (s *session) footprint(ctx context.Context) (figures []Figure, err error) {
	var ready []time.Duration
	for i := range s.or(3, 1) {
		net, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: filepath.Join(s.dir, fmt.Sprint("idle", i)), Providers: 1})
		if err != nil {
			return nil, err
		}
		ready = append(ready, net.ReadyAfter)
		if i == 0 {
			figures, err = s.idle(ctx, net)
		}
		if err = errors.Join(err, net.Stop()); err != nil {
			return nil, err
		}
	}
	const limit = 2
	f := Figure{Name: "start to ready, one provider, fresh home", Unit: "s", Ours: measure.Quantile(ready, 0.5).Seconds()}
	return append(figures, f.atMost(limit, "≤ 2 s")), nil
}

func (s *session) idle(ctx context.Context, net *dev.Network) ([]Figure, error) {
	settle := 5 * time.Second
	if s.Quick {
		settle = 100 * time.Millisecond
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	processes, err := net.Processes("provider-1")
	if err != nil {
		return nil, err
	}
	const mib, limit = 1 << 20, 130
	detail, sum := map[string]float64{}, 0.0
	for _, p := range processes {
		pss := float64(measure.PSS(p.Pid)) / mib
		detail[p.Name+", MiB"] += pss
		sum += pss
	}
	supervisor := float64(measure.PSS(net.Pid())) / mib
	node := Figure{Name: "idle provider node, memory (PSS)", Unit: "MiB", Ours: sum, Detail: detail, Note: fmt.Sprintf("%d processes", len(processes))}
	all := Figure{Name: "the same with its supervisor", Unit: "MiB", Ours: sum + supervisor, Detail: map[string]float64{"supervisor, MiB": supervisor}}
	return []Figure{node.atMost(limit, "≤ 130 MiB"), all}, nil
}
