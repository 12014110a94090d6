package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/measure"
	"github.com/shallot-net/shallot/test/internal/module"
)

// wait looks until f says true or an error, or ctx ends.
func wait(ctx context.Context, f func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lone is a node with a supervisor of its own: it can be lost for good, which a node of `shallot dev` cannot.
type lone struct {
	nodev1.NodeServiceClient
	cmd  *exec.Cmd
	conn *grpc.ClientConn
	info *nodev1.GetNodeResponse
	once sync.Once
}

// up starts a node and returns when it is ready.
func (s *session) up(ctx context.Context, name string, env []string, args ...string) (l *lone, err error) {
	dir := filepath.Join(s.dir, name)
	l = &lone{cmd: exec.Command(filepath.Join(s.Bin, "shallot"), append([]string{"--home", dir, "up", "--listen", "/ip4/127.0.0.1/tcp/0"}, args...)...)}
	l.cmd.Env = append(os.Environ(), env...)
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stderr, err := l.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.kill()
		}
	}()
	defer context.AfterFunc(ctx, l.kill)()
	lines := bufio.NewScanner(stderr)
	for ready := false; !ready; ready = lines.Text() == "ready" {
		if !lines.Scan() {
			return nil, errors.Join(ctx.Err(), fmt.Errorf("%s ended before it was ready", name))
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	h, err := home.Open(dir)
	if err != nil {
		return nil, err
	}
	if l.conn, err = rpc.Dial(h.Endpoint("node"), rpc.ClientConfig{}); err != nil {
		return nil, err
	}
	l.NodeServiceClient = nodev1.NewNodeServiceClient(l.conn)
	l.info, err = l.GetNode(ctx, &nodev1.GetNodeRequest{})
	return l, err
}

// kill ends every process of the node at once.
func (l *lone) kill() {
	l.once.Do(func() {
		_ = syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL)
		_ = l.cmd.Wait()
		if l.conn != nil {
			l.conn.Close()
		}
	})
}

// lost kills a provider with what it runs, for good. What a task loses is the time from that death to its end, less what it
// takes when it is run again at once.
func (s *session) lost(ctx context.Context) ([]Figure, error) {
	tasks, sleep := s.or(50, 4), 5*time.Second
	if s.Quick {
		sleep = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	slots := []string{fmt.Sprintf("SHALLOT_TASK_PROVIDER_SLOTS=%d", 4*tasks)} // so that all run, and none waits for another
	var nodes []*lone
	defer func() {
		for _, n := range nodes {
			n.kill()
		}
	}()
	var bootstrap []string
	for _, role := range []string{"provider", "provider", "provider", "consumer"} {
		n, err := s.up(ctx, fmt.Sprintf("lost-%d", len(nodes)), slots, append([]string{"--role", role}, bootstrap...)...)
		if err != nil {
			return nil, err
		}
		if nodes = append(nodes, n); bootstrap == nil {
			bootstrap = []string{"--bootstrap", n.info.GetNode().GetAddresses()[0]}
		}
	}
	consumer, victim := nodes[3], nodes[2]
	err := wait(ctx, func() (bool, error) {
		peers, err := consumer.ListPeers(ctx, &nodev1.ListPeersRequest{})
		known := 0
		for _, p := range peers.GetPeers() {
			if p.GetState() == "available" && len(p.GetCapabilities()) > 0 {
				known++
			}
		}
		return known == 3, err
	})
	if err != nil {
		return nil, fmt.Errorf("the consumer does not know the providers: %w", err)
	}
	lost, err := lose(ctx, consumer, victim, tasks, sleep)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("a provider killed with %d tasks running", len(lost))
	done := Figure{Name: name + ", done elsewhere", Ours: float64(len(lost))}
	return []Figure{
		done.atLeast(float64(len(lost)), "all"), // one that is not done is an error above
		{Name: "the same, time lost p50", Unit: "s", Ours: measure.Quantile(lost, 0.5).Seconds()},
		{Name: "the same, time lost at most", Unit: "s", Ours: measure.Quantile(lost, 1).Seconds()},
	}, nil
}

// lose submits tasks until so many run at the victim, kills it, and returns what each of those has lost.
func lose(ctx context.Context, consumer, victim *lone, tasks int, sleep time.Duration) ([]time.Duration, error) {
	peer := victim.info.GetNode().GetPeerId()
	var ids []string
	for range 3 * tasks { // the others get theirs
		t, err := consumer.SubmitTask(ctx, &nodev1.SubmitTaskRequest{Spec: wasmSpec(inline(module.Sleep(sleep)), nil)})
		if err != nil {
			return nil, err
		}
		ids = append(ids, t.GetTask().GetId())
	}
	var there []string
	for _, id := range ids {
		t, err := consumer.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: id})
		if err != nil {
			return nil, err
		}
		if t.GetTask().GetProvider() == peer && (t.GetTask().GetState() == "RUNNING" || t.GetTask().GetState() == "ACCEPTED" || t.GetTask().GetState() == "SUBMITTED") {
			there = append(there, id)
		}
	}
	died := time.Now()
	victim.kill()
	var lost []time.Duration
	for _, id := range there {
		var task *taskv1.Task
		err := wait(ctx, func() (bool, error) {
			t, err := consumer.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: id})
			task = t.GetTask()
			return task.GetFinishedAt() != nil, err
		})
		if err != nil {
			return nil, err
		}
		if task.GetFinishedAt().AsTime().Before(died) {
			continue
		}
		if task.GetState() != "COMPLETED" || task.GetProvider() == peer {
			return nil, fmt.Errorf("task %s ended as %s at %s: %v", id, task.GetState(), task.GetProvider(), task.GetError())
		}
		lost = append(lost, max(0, task.GetFinishedAt().AsTime().Sub(died)-sleep))
	}
	if len(lost) == 0 {
		return nil, errors.New("no task was running at the provider that was killed")
	}
	return lost, nil
}

// scale is a whole network on this machine: what the seed of this project was measured by.
func (s *session) scale(ctx context.Context) (figures []Figure, err error) {
	providers, consumers, tasks := s.or(100, 3), s.or(30, 2), s.or(200, 4)
	begin := time.Now()
	net, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: filepath.Join(s.dir, "scale"), Providers: providers, Consumers: consumers, Timeout: 15 * time.Minute})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, net.Stop()) }()
	known := time.Since(begin)
	memory, processes := int64(0), 0
	for _, node := range net.Nodes() {
		found, err := net.Processes(node)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			memory += measure.PSS(p.Pid)
			processes++
		}
	}
	nodes := providers + consumers
	before, err := said(ctx, net)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	name := fmt.Sprintf("%d providers and %d consumers, %d processes", providers, consumers, processes)
	each, err := spreadTasks(ctx, net, tasks)
	if err != nil {
		return nil, err
	}
	after, err := said(ctx, net)
	if err != nil {
		return nil, err
	}
	traffic := Figure{Name: "the same, traffic a node while they ran", Unit: "KiB/min", Detail: map[string]float64{}}
	for kind, b := range after {
		each := (b - before[kind]) / time.Since(began).Minutes() / float64(nodes) / 1024
		traffic.Detail[kind+", KiB/min"] = each
		traffic.Ours += each
	}
	return []Figure{
		{Name: name + ": start until all know each other", Unit: "s", Ours: known.Seconds()},
		{Name: "the same, memory a node (PSS)", Unit: "MiB", Ours: float64(memory) / float64(nodes) / (1 << 20)},
		traffic,
		Figure{Name: fmt.Sprintf("the same, of %d tasks completed", tasks), Ours: float64(len(each))}.atLeast(float64(tasks), "all"),
		{Name: "the same, task latency p50", Unit: "ms", Ours: milliseconds(measure.Quantile(each, 0.5))},
		{Name: "the same, task latency p99", Unit: "ms", Ours: milliseconds(measure.Quantile(each, 0.99))},
	}, nil
}

// spreadTasks has the consumers take turns with small tasks, as many at a time as there are consumers, and returns how long each task took.
func spreadTasks(ctx context.Context, net *dev.Network, tasks int) ([]time.Duration, error) {
	var mu sync.Mutex
	turn := 0
	return measure.InFlight(tasks, net.Consumers, func() error {
		mu.Lock()
		turn++
		client, err := net.Node(fmt.Sprintf("consumer-%d", turn%net.Consumers+1))
		mu.Unlock()
		if err != nil {
			return err
		}
		one := session{node: client}
		_, _, err = one.runTask(ctx, wasmSpec(inline(module.Small()), nil), []byte("done\n"))
		return err
	})
}
