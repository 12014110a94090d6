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

// torScaleStart bounds the start of a large network over Tor: each node has a tor of its own, which has to join.
const torScaleStart = 20 * time.Minute

// torScale is a large network over a private Tor network on this machine. Every node has its own tor, as in the world: one for all would be one client with one set of guards, and
// would have to publish all onion services at once.
func (s *session) torScale(ctx context.Context) (figures []Figure, err error) {
	providers, consumers, tasks := s.or(20, 2), s.or(10, 1), s.or(200, 3)
	net, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: filepath.Join(s.dir, "torscale"), Providers: providers, Consumers: consumers, Args: []string{"--anonymous"}, Timeout: torScaleStart})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, net.Stop()) }()
	nodes, tors, processes := int64(0), int64(0), 0
	for _, node := range net.Nodes() {
		found, err := net.Processes(node)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			nodes += measure.PSS(p.Pid)
		}
		pid, err := torPid(net.Home(node))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", node, err)
		}
		tors += measure.PSS(pid)
		processes += len(found) + 1
	}
	each, err := spreadTasks(ctx, net, tasks)
	if err != nil {
		return nil, err
	}
	count := float64(providers + consumers)
	const mib = 1 << 20
	return []Figure{
		{Name: fmt.Sprintf("%d providers and %d consumers over Tor, %d processes: start until all know each other", providers, consumers, processes), Unit: "s", Ours: net.ReadyAfter.Seconds(),
			Detail: map[string]float64{"memory a node (PSS), MiB": float64(nodes) / count / mib, "and its tor, MiB": float64(tors) / count / mib}},
		Figure{Name: fmt.Sprintf("the same, of %d tasks completed", tasks), Ours: float64(len(each))}.atLeast(float64(tasks), "all"),
		{Name: "the same, task latency p50", Unit: "ms", Ours: milliseconds(measure.Quantile(each, 0.5)), Note: fmt.Sprintf("%d at a time", consumers)},
		{Name: "the same, task latency p99", Unit: "ms", Ours: milliseconds(measure.Quantile(each, 0.99))},
	}, nil
}
