package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/deployment"
	"github.com/shallot-net/shallot/test/internal/measure"
	"github.com/shallot-net/shallot/test/internal/module"
)

const (
	deployDir  = "../deploy" // of the folder that the bench is run in
	composeMax = 5 * time.Minute
	waits      = 50 * time.Millisecond // of a task of the throughput: the cores are not the limit
)

// compose is a provider and a consumer in containers, with TLS between services and PostgreSQL, beside the same on Unix sockets and SQLite.
func (s *session) compose(ctx context.Context) (figures []Figure, err error) {
	// One task at a time in each replica, so that replicas are what counts.
	over := filepath.Join(s.dir, "slots.yml")
	if err := os.WriteFile(over, []byte("services: {task: {environment: {SHALLOT_TASK_PROVIDER_SLOTS: \"1\"}}}\n"), 0o600); err != nil {
		return nil, err
	}
	p := deployment.New(deployDir, "shallot-bench")
	p.Files = append(p.Files, over)
	if err := p.Down(ctx); err != nil {
		return nil, err
	}
	if _, err := p.Compose(ctx, "build"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Down(context.WithoutCancel(ctx))) }()
	start, err := s.composeStart(ctx, p)
	if err != nil {
		return nil, err
	}
	figures = append(figures, start...)

	certs := filepath.Join(s.dir, "client")
	if err := os.MkdirAll(certs, 0o700); err != nil {
		return figures, err
	}
	creds, err := p.Client(ctx, "consumer-pki", "bench", certs)
	if err != nil {
		return figures, err
	}
	at, err := p.Port(ctx, "consumer-node", 7400)
	if err != nil {
		return figures, err
	}
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(creds))
	if err != nil {
		return figures, err
	}
	defer conn.Close()
	inside := &session{Config: s.Config, node: nodev1.NewNodeServiceClient(conn)}
	for _, row := range []func(context.Context, *deployment.Project, *session) ([]Figure, error){s.composeLatency, s.composeThroughput, s.composeKills} {
		f, err := row(ctx, p, inside)
		figures = append(figures, f...)
		if err != nil {
			return figures, err
		}
	}
	return figures, nil
}

// composeStart is the provider alone, and then both.
func (s *session) composeStart(ctx context.Context, p *deployment.Project) ([]Figure, error) {
	ctx, cancel := context.WithTimeout(ctx, composeMax)
	defer cancel()
	p.Profiles = nil
	timed := func(args ...string) (time.Duration, error) {
		begin := time.Now()
		_, err := p.Compose(ctx, args...)
		return time.Since(begin), err
	}
	first, err := timed("up", "-d", "--wait")
	if err != nil {
		return nil, err
	}
	stop, err := timed("stop")
	if err != nil {
		return nil, err
	}
	again, err := timed("up", "-d", "--wait")
	if err != nil {
		return nil, err
	}
	p.Profiles = []string{"consumer"}
	both, err := timed("up", "-d", "--wait")
	if err != nil {
		return nil, err
	}
	return []Figure{
		Figure{Name: "provider in containers: start to ready, images built", Unit: "s", Ours: first.Seconds(),
			Detail: map[string]float64{"again, with its data, s": again.Seconds(), "and a consumer beside it, s": both.Seconds()}}.atMost(15, "≤ 15 s"),
		Figure{Name: "the same: stop", Unit: "s", Ours: stop.Seconds()}.atMost(10, "≤ 10 s"),
	}, nil
}

func (s *session) composeLatency(ctx context.Context, _ *deployment.Project, inside *session) ([]Figure, error) {
	if err := s.network(ctx); err != nil {
		return nil, err
	}
	type run struct {
		do func() error
		d  []time.Duration
	}
	var figures []Figure
	for _, what := range []struct {
		name            string
		outside, inside func(context.Context) error
	}{{"sum", s.sum, inside.sum}, {"small wasm", s.small, inside.small}} {
		runs := []run{{do: func() error { return what.outside(ctx) }}, {do: func() error { return what.inside(ctx) }}}
		for _, r := range runs {
			if _, err := measure.Latencies(s.or(50, 3), r.do); err != nil {
				return figures, err
			}
		}
		for range batches {
			for i := range runs {
				d, err := measure.Latencies(s.or(30, 2), runs[i].do)
				if err != nil {
					return figures, err
				}
				runs[i].d = append(runs[i].d, d...)
			}
		}
		floor := measure.Quantile(runs[0].d, 0.5)
		f := Figure{Name: "in containers, TLS and PostgreSQL: " + what.name + ", latency p50", Unit: "ms", Ours: milliseconds(measure.Quantile(runs[1].d, 0.5)),
			Detail: map[string]float64{"p99, ms": milliseconds(measure.Quantile(runs[1].d, 0.99)), "floor p99, ms": milliseconds(measure.Quantile(runs[0].d, 0.99))}}.
			beside(milliseconds(floor), "sockets and SQLite")
		figures = append(figures, f.atMost(2*f.Floor, "≤ 2 × sockets and SQLite"))
	}
	return figures, nil
}

// composeThroughput is how tasks that wait get on with more replicas.
func (s *session) composeThroughput(ctx context.Context, p *deployment.Project, inside *session) ([]Figure, error) {
	task := wasmSpec(inline(module.Sleep(waits)), nil)
	var figures []Figure
	var one float64
	for _, n := range []int{1, 2, 4} {
		if err := scale(ctx, p, map[string]int{"task": n}); err != nil {
			return figures, err
		}
		do := func() error { _, _, err := inside.runTask(ctx, task, nil); return err }
		width := 6 * n
		if _, err := measure.InFlight(s.or(40, 4)*n, width, do); err != nil {
			return figures, err
		}
		begin := time.Now()
		each, err := measure.InFlight(s.or(200, 6)*n, width, do)
		if err != nil {
			return figures, err
		}
		f := Figure{Name: fmt.Sprintf("tasks that wait %v, one at a time in each of %d replicas", waits, n), Unit: "/s", Ours: float64(len(each)) / time.Since(begin).Seconds()}
		if n == 1 {
			one = f.Ours
			f = f.beside(float64(time.Second)/float64(waits), "waiting alone")
		} else {
			f = f.beside(one*float64(n), "linear")
			f = f.atLeast(0.9*f.Floor, "≥ 0.9 × linear")
		}
		figures = append(figures, f)
	}
	return figures, nil
}

func scale(ctx context.Context, p *deployment.Project, to map[string]int) error {
	args := []string{"up", "-d", "--wait", "--no-recreate"}
	for name, n := range to {
		args = append(args, "--scale", fmt.Sprintf("%s=%d", name, n))
	}
	_, err := p.Compose(ctx, args...)
	return err
}

// composeKills is 500 tasks while a replica of each service dies every five seconds.
func (s *session) composeKills(ctx context.Context, p *deployment.Project, inside *session) ([]Figure, error) {
	replicas := map[string]int{"task": 4, "node": 3, "discovery": 2, "metric": 2, "gateway": 2}
	if err := scale(ctx, p, replicas); err != nil {
		return nil, err
	}
	tasks := s.or(500, 12)
	killing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var kills int
	var killed error
	wg.Go(func() { kills, killed = kill(killing, p, replicas) })
	spec := wasmSpec(inline(module.Sleep(400*time.Millisecond)), nil)
	var mu sync.Mutex
	attempts, next := 0, 0
	each, err := measure.InFlight(tasks, 4, func() error {
		mu.Lock()
		next++
		request := fmt.Sprintf("kills-%d", next)
		mu.Unlock()
		n, err := inside.through(ctx, request, spec)
		mu.Lock()
		attempts += n
		mu.Unlock()
		return err
	})
	stop()
	wg.Wait()
	if err := errors.Join(err, killed); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%d tasks, a replica of each service killed every 5 s", tasks)
	return []Figure{
		Figure{Name: name + ": completed, one outcome each", Ours: float64(len(each)), Note: fmt.Sprintf("%d kills", kills)}.atLeast(float64(tasks), "all"),
		{Name: "the same, attempts beyond one a task", Ours: float64(attempts - tasks)},
		{Name: "the same, latency p99", Unit: "ms", Ours: milliseconds(measure.Quantile(each, 0.99)),
			Detail: map[string]float64{"p50, ms": milliseconds(measure.Quantile(each, 0.5)), "slowest, ms": milliseconds(measure.Quantile(each, 1))}},
	}, nil
}

// kill ends one container of each service, drawn anew each time, and starts it again at once, until ctx ends.
func kill(ctx context.Context, p *deployment.Project, replicas map[string]int) (kills int, err error) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	after := context.WithoutCancel(ctx) // what was killed is started
	for {
		select {
		case <-ctx.Done():
			return kills, nil
		case <-tick.C:
		}
		var victims []string
		for name := range replicas {
			all, err := p.Containers(after, name)
			if err != nil || len(all) == 0 {
				return kills, fmt.Errorf("the containers of %s: %w", name, err)
			}
			victims = append(victims, all[rand.IntN(len(all))])
		}
		for _, how := range []string{"kill", "start"} {
			if _, err := deployment.Docker(after, append([]string{how}, victims...)...); err != nil {
				return kills, err
			}
		}
		kills += len(victims)
	}
}

// through sees a task through whatever happens to the node meanwhile, and returns its attempts. A repeated submission is the same task by its request id.
func (s *session) through(ctx context.Context, request string, spec *taskv1.TaskSpec) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, composeMax)
	defer cancel()
	id := ""
	var last error
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		one, end := context.WithTimeout(ctx, 5*time.Second)
		if id == "" {
			var t *nodev1.SubmitTaskResponse
			if t, last = s.node.SubmitTask(one, &nodev1.SubmitTaskRequest{RequestId: request, Spec: spec}); last == nil {
				id = t.GetTask().GetId()
			}
		} else {
			var t *nodev1.GetTaskResponse
			if t, last = s.node.GetTask(one, &nodev1.GetTaskRequest{TaskId: id}); last == nil {
				switch state := t.GetTask().GetState(); state {
				case "COMPLETED":
					end()
					tick.Stop()
					return int(t.GetTask().GetAttempts()), nil
				case "FAILED", "CANCELLED", "EXPIRED":
					end()
					tick.Stop()
					return 0, fmt.Errorf("task %s is %s", id, state)
				}
			}
		}
		end()
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return 0, fmt.Errorf("task %s: %w", id, errors.Join(ctx.Err(), last))
		}
	}
}
