package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/measure"
	"github.com/shallot-net/shallot/test/internal/module"
)

// mapProviders is how many providers the row has.
const mapProviders = 4

// mapping is a job of many small shards, over several providers, beside as many tasks that a client keeps in flight itself on the same
// network. A job has the inputs on disk besides, and gives back every result with the watch that follows it.
func (s *session) mapping(ctx context.Context) (figures []Figure, err error) {
	net, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: filepath.Join(s.dir, "map"), Providers: mapProviders, Consumers: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, net.Stop()) }()
	jobs, err := net.Jobs("consumer-1")
	if err != nil {
		return nil, err
	}
	other := &session{Config: s.Config}
	if other.node, err = net.Node("consumer-1"); err != nil {
		return nil, err
	}
	small := func() error { return other.small(ctx) }
	n, rounds := s.or(1000, 60), s.or(2, 1)
	if _, err := measure.InFlight(n/2, inFlight, small); err != nil {
		return nil, err
	}
	if _, err := runJob(ctx, jobs, n/2); err != nil {
		return nil, err
	}
	var tasks, shards time.Duration
	extra := uint32(0)
	for range rounds {
		begin := time.Now()
		if _, err := measure.InFlight(n, inFlight, small); err != nil {
			return nil, err
		}
		tasks += time.Since(begin)
		begin = time.Now()
		job, err := runJob(ctx, jobs, n)
		if err != nil {
			return nil, err
		}
		shards += time.Since(begin)
		extra += job.GetCounts().GetExtra()
	}
	rate := func(d time.Duration) float64 { return float64(n*rounds) / d.Seconds() }
	f := Figure{Name: fmt.Sprintf("a job of %d small wasm shards, %d providers", n, mapProviders), Unit: "/s", Ours: rate(shards)}.beside(rate(tasks), "as many tasks")
	return []Figure{
		f.atLeast(0.8*f.Floor, "≥ 0.8 × as many tasks"),
		// A shard that does not end as it should is an error above. On a machine that is busy otherwise some leases run out.
		{Name: "the same, extra runs", Ours: float64(extra), Note: "of all rounds"},
	}, nil
}

// runJob runs a job from its making to its last result, and checks every one.
func runJob(ctx context.Context, jobs nodev1.JobServiceClient, n int) (*taskv1.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	made, err := jobs.CreateJob(ctx, &nodev1.CreateJobRequest{RequestId: rand.Text(), Spec: &taskv1.JobSpec{Total: uint32(n), Parallel: inFlight, Task: wasmSpec(inline(module.Small()), nil)}})
	if err != nil {
		return nil, err
	}
	id := made.GetJob().GetId()
	for i := 0; i < n; {
		add := &nodev1.AddShardsRequest{JobId: id}
		for ; i < n && len(add.Shards) < 500; i++ {
			add.Shards = append(add.Shards, &taskv1.NewShard{Index: uint32(i), Name: fmt.Sprintf("input-%d", i), Content: inline(fmt.Appendf(nil, "input %d", i))})
		}
		if _, err := jobs.AddShards(ctx, add); err != nil {
			return nil, err
		}
	}
	stream, err := jobs.WatchJob(ctx, &nodev1.WatchJobRequest{JobId: id, Stdout: true})
	if err != nil {
		return nil, err
	}
	ended := 0
	var job *taskv1.Job
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if sh := m.GetShard(); sh != nil {
			if ended++; string(sh.GetStdout()) != "done\n" {
				return nil, fmt.Errorf("shard %d printed %.100q and is %s: %v", sh.GetShard().GetIndex(), sh.GetStdout(), sh.GetShard().GetState(), sh.GetShard().GetError())
			}
		} else {
			job = m.GetJob()
		}
	}
	if job.GetState() != "COMPLETED" || ended != n {
		return nil, fmt.Errorf("the job is %s, and %d of %d shards have ended", job.GetState(), ended, n)
	}
	return job, nil
}
