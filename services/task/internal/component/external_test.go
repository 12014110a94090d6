package component_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor"
	"github.com/shallot-net/shallot/services/task/internal/adapter/external"
	"github.com/shallot-net/shallot/services/task/internal/adapter/external/externaltest"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

// odd is an external executor and the provider that has it.
type odd struct {
	*node
	server *externaltest.Server
	path   string
}

func (n *network) addOdd(change func(*provider.Config)) *odd {
	n.t.Helper()
	o := &odd{server: externaltest.New(n.t, "odd"), path: filepath.Join(n.t.TempDir(), "s")}
	e := must[*external.Executor](n.t)(external.New(external.Config{Address: external.Address{Type: "odd", Endpoint: "unix:" + o.path}}))
	o.node = n.addProvider(func(c *provider.Config) {
		c.Executors = []app.Executor{executor.Sum{}, e}
		c.Policy.Slots = 4
		if change != nil {
			change(c)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		<-done
		e.Close()
	})
	return o
}

// start starts the executor and waits until the provider says that it offers the type.
func (o *odd) begin() *odd {
	o.t.Helper()
	o.server.Start(o.path)
	o.offers(true)
	return o
}

// offers follows what node follows until the type is offered, or is not.
func (o *odd) offers(want bool) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.ctx, 15*time.Second)
	defer cancel()
	stream := must[grpc.ServerStreamingClient[taskv1.WatchQueueResponse]](o.t)(o.client.WatchQueue(ctx, &taskv1.WatchQueueRequest{}))
	for {
		d := must[*taskv1.DescribeResponse](o.t)(o.client.Describe(ctx, &taskv1.DescribeRequest{}))
		has := false
		for _, c := range d.GetCapabilities() {
			has = has || c.GetType() == "odd"
		}
		if has == want {
			return
		}
		if _, err := stream.Recv(); err != nil {
			o.t.Fatalf("the type is offered: %v, want %v: %v", has, want, err)
		}
	}
}

func oddSpec(d externaltest.Do, parts ...*taskv1.InputFile) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "odd", Payload: &taskv1.TaskSpec_External{External: &taskv1.ExternalPayload{Options: d.Options(), Parts: parts}}}
}

func inlinePart(name, content string) *taskv1.InputFile {
	return &taskv1.InputFile{Path: name, Content: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: []byte(content)}}}
}

func TestATypeOfOnesOwn(t *testing.T) {
	net := newNetwork(t)
	c := net.addConsumer(nil)
	p := net.addOdd(nil).begin()
	c.useProviders(p.node)
	large := strings.Repeat("large ", 50_000)
	id := c.submit(oddSpec(externaltest.Do{Echo: true, Exit: 3, Stderr: "words", Name: "output:x"}, inlinePart("stdin", "hello"), inlinePart("input:big.txt", large)), p.node)
	task := c.await(id, "COMPLETED")
	if task.GetExitCode() != 3 || c.result(id, "stdout") != "stdin:helloinput:big.txt:"+large || c.result(id, "stderr") != "words" || c.result(id, "output:x") != "x" {
		t.Errorf("%v; stdout has %d bytes", task, len(c.result(id, "stdout")))
	}
	starts, _ := p.server.Starts()
	if len(starts) != 1 || starts[0].GetTaskId() != id || starts[0].GetAttempt() != 1 || starts[0].GetLimits().GetMemory() == 0 {
		t.Errorf("the executor got %v", starts)
	}
	bad := c.await(c.submit(oddSpec(externaltest.Do{Invalid: true}), p.node))
	if bad.GetState() != "FAILED" || bad.GetError().GetReason() != "PAYLOAD_INVALID" || !strings.Contains(bad.GetError().GetMessage(), "no good") || bad.GetAttempts() != 1 {
		t.Errorf("a payload that the executor refuses: %v", bad)
	}
}

func TestAnExecutorThatDiesIsTheProvidersFailure(t *testing.T) {
	net := newNetwork(t)
	c := net.addConsumer(nil)
	first, second := net.addOdd(nil).begin(), net.addOdd(nil).begin()
	c.useProviders(first.node, second.node)
	// Both would die of it: here only the first one's does.
	second.server.Immortal()
	id := c.submit(oddSpec(externaltest.Do{Die: true}), first.node)
	task := c.await(id, "COMPLETED")
	if what := happened(task); !slices.Contains(what, "FAILED_AT_PROVIDER") || task.GetProvider() != second.peer || task.GetAttempts() != 2 {
		t.Errorf("%v at the second: %v", what, task)
	}
	first.offers(false)
	// What is submitted there now is refused, and goes on to the other.
	id = c.submit(oddSpec(externaltest.Do{}), first.node)
	if task := c.await(id, "COMPLETED"); task.GetProvider() != second.peer || !slices.Contains(happened(task), "REFUSED") {
		t.Errorf("%v", happened(task))
	}
	// Its own types are as before.
	id = c.submit(sumSpec("1", "2"), first.node)
	if task := c.await(id, "COMPLETED"); task.GetProvider() != first.peer {
		t.Errorf("sum ran at %s", task.GetProvider())
	}
}

// The only provider is asked again, once its executor is back.
func TestTheOnlyExecutorIsTriedAgain(t *testing.T) {
	net := newNetwork(t)
	c := net.addConsumer(nil)
	p := net.addOdd(nil).begin()
	c.useProviders(p.node)
	id := c.submit(oddSpec(externaltest.Do{Die: true}), p.node)
	p.offers(false)
	p.server.Immortal()
	p.begin()
	if task := c.await(id, "COMPLETED"); task.GetAttempts() < 2 {
		t.Errorf("%v", happened(task))
	}
	starts, _ := p.server.Starts()
	if n := len(starts); n < 2 || starts[n-1].GetTaskId() != id || starts[n-1].GetAttempt() < 2 {
		t.Errorf("the executor got %v", starts)
	}
}

func TestProgressIsShown(t *testing.T) {
	net := newNetwork(t)
	c := net.addConsumer(nil)
	p := net.addOdd(func(cfg *provider.Config) { cfg.Express = 1 }).begin()
	c.useProviders(p.node)
	id := c.submit(oddSpec(externaltest.Do{Progress: 0.5, Text: "half", Stderr: "words", Hang: true}), p.node)
	c.await(id, "RUNNING")
	until(t, "a progress", func() bool { return c.get(id).GetProgress() != nil })
	if got := c.get(id).GetProgress(); got.GetFraction() != 0.5 || got.GetText() != "half" || got.GetAt() == nil {
		t.Errorf("progress %v", got)
	}
	must[*taskv1.CancelTaskResponse](t)(c.client.CancelTask(t.Context(), &taskv1.CancelTaskRequest{TaskId: id}))
	if task := c.await(id, "CANCELLED"); task.GetProgress() != nil {
		t.Errorf("a task that is over shows %v", task.GetProgress())
	}
	<-p.server.Ended()
}

// One that takes a single run at a time does not hold up the others' tasks, and gets its own one by one.
func TestAFullExecutorHoldsNobodyUp(t *testing.T) {
	net := newNetwork(t)
	c := net.addConsumer(nil)
	p := net.addOdd(func(cfg *provider.Config) { cfg.Policy.Slots = 2; cfg.Express = 1 })
	p.server.About.Concurrency = 1
	p.begin()
	c.useProviders(p.node)
	hanging := c.submit(oddSpec(externaltest.Do{Hang: true}), p.node)
	c.await(hanging, "RUNNING")
	waiting := c.submit(oddSpec(externaltest.Do{}), p.node)
	c.await(waiting, "ACCEPTED")
	c.await(c.submit(sumSpec("1"), p.node), "COMPLETED")
	if task := c.get(waiting); task.GetState() != "ACCEPTED" {
		t.Errorf("the second is %s beside the first", task.GetState())
	}
	must[*taskv1.CancelTaskResponse](t)(c.client.CancelTask(t.Context(), &taskv1.CancelTaskRequest{TaskId: hanging}))
	c.await(waiting, "COMPLETED")
}

func TestMemoryThatAnExecutorNeeds(t *testing.T) {
	net := newNetwork(t)
	c := net.addConsumer(nil)
	p := net.addOdd(nil)
	p.server.About.Memory = 1 << 30
	p.begin()
	c.useProviders(p.node)
	id := c.submit(oddSpec(externaltest.Do{}), p.node)
	c.await(id, "COMPLETED")
	if starts, _ := p.server.Starts(); starts[0].GetLimits().GetMemory() != 1<<30 {
		t.Errorf("it needs 1 GiB and got %d", starts[0].GetLimits().GetMemory())
	}
	little := oddSpec(externaltest.Do{})
	little.Limits = &eventv1.Limits{Memory: 1 << 20}
	id = c.submit(little, p.node)
	until(t, "a refusal", func() bool { return slices.Contains(happened(c.get(id)), "REFUSED") })
	if h := c.get(id).GetHistory(); !strings.Contains(h[len(h)-1].GetDetail()+h[len(h)-2].GetDetail(), "LIMITS_TOO_LOW") {
		t.Errorf("history %v", h)
	}
}
