package component_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/pgtest"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Tasks that one replica has no slot for run at the others, each once, and their consumer hears of it as if there were one.
func TestReplicasShareOneQueue(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	scripts := []*script{newScript(), newScript(), newScript()}
	ps := n.addReplicas(3, func(i int, c *provider.Config) { withScript(scripts[i], 1)(c) })
	c := n.addConsumer(nil)
	const tasks = 24
	ids := make([]string, tasks)
	for i := range ids {
		ids[i] = c.submit(scriptSpec(step{Name: fmt.Sprint(i), Sleep: 50 * time.Millisecond, Stdout: 3}), ps[0])
	}
	for _, id := range ids {
		if task := c.await(id); task.GetState() != "COMPLETED" || task.GetAttempts() != 1 {
			t.Fatalf("the task is %v", task)
		}
		if got := c.result(id, "stdout"); got != "012" {
			t.Fatalf("stdout is %q", got)
		}
	}
	by := make([]int, len(scripts))
	for i := range tasks {
		all := 0
		for k, s := range scripts {
			all += s.ran(fmt.Sprint(i))
			by[k] += s.ran(fmt.Sprint(i))
		}
		if all != 1 {
			t.Errorf("task %d ran %d times", i, all)
		}
	}
	for k, ran := range by {
		if ran == 0 {
			t.Errorf("replica %d ran nothing: %v", k, by)
		}
	}
	t.Logf("ran %v", by)
	if q := ps[0].provider.Queue(); q.Pending != 0 || q.Running != 0 || q.Slots != 3 {
		t.Errorf("the queue is %+v afterwards", q)
	}
}

// A task that runs at another replica is stopped there, and one that waits is ended at once.
func TestReplicasCancel(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	scripts := []*script{newScript(), newScript()}
	ps := n.addReplicas(2, func(i int, c *provider.Config) { withScript(scripts[i], 1)(c) })
	c := n.addConsumer(nil)
	var running []string
	for i := range 2 {
		id := c.submit(scriptSpec(step{Name: fmt.Sprint(i), Wait: true}), ps[0])
		c.await(id, "RUNNING")
		running = append(running, id)
	}
	waiting := c.submit(scriptSpec(step{Name: "waits", Wait: true}), ps[0])
	c.await(waiting, "ACCEPTED")
	for _, id := range append([]string{waiting}, running...) {
		must[*taskv1.CancelTaskResponse](t)(c.client.CancelTask(t.Context(), &taskv1.CancelTaskRequest{TaskId: id}))
		if task := c.await(id, "CANCELLED"); task.GetState() != "CANCELLED" {
			t.Fatalf("the task is %v", task)
		}
	}
	if scripts[0].ran("waits")+scripts[1].ran("waits") != 0 {
		t.Error("what was cancelled in the queue has run")
	}
	for _, p := range ps {
		p.idle()
	}
}

// What a replica has not heard of a cancellation it learns when it says that it is there.
func TestReplicasCancelWhoeverIsDeaf(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	scripts := []*script{newScript(), newScript()}
	ps := n.addReplicas(2, func(i int, c *provider.Config) {
		withScript(scripts[i], 1)(c)
		if i == 1 {
			c.Fleet = &deaf{}
		}
	})
	c := n.addConsumer(nil)
	var running []string
	for i := range 2 {
		id := c.submit(scriptSpec(step{Name: fmt.Sprint(i), Wait: true}), ps[0])
		c.await(id, "RUNNING")
		running = append(running, id)
	}
	if scripts[1].ran("1") != 1 {
		t.Fatal("the one that is deaf has nothing to do")
	}
	for _, id := range running {
		must[*taskv1.CancelTaskResponse](t)(c.client.CancelTask(t.Context(), &taskv1.CancelTaskRequest{TaskId: id}))
		if task := c.await(id, "CANCELLED"); task.GetState() != "CANCELLED" {
			t.Fatalf("the task is %v", task)
		}
	}
	for _, p := range ps {
		p.idle()
	}
}

// A replica dies with what it runs: another one runs it again. The one that leads dies: another one leads, and nothing that was accepted is lost.
func TestReplicasDie(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	scripts := []*script{newScript(), newScript(), newScript()}
	ps := n.addReplicas(3, func(i int, c *provider.Config) { withScript(scripts[i], 1)(c) })
	c := n.addConsumer(nil)
	var ids []string
	for i := range 3 {
		id := c.submit(scriptSpec(step{Name: fmt.Sprint(i), Wait: true, Stdout: 2}), ps[0])
		c.await(id, "RUNNING")
		ids = append(ids, id)
	}
	for i := 3; i < 6; i++ { // these wait
		id := c.submit(scriptSpec(step{Name: fmt.Sprint(i), Stdout: 2}), ps[0])
		c.await(id, "ACCEPTED")
		ids = append(ids, id)
	}
	ps[2].crash()
	ps[0].crash()
	ps[1].takeOver()
	for i := range 3 {
		for _, s := range scripts {
			close(s.gate(fmt.Sprint(i)))
		}
	}
	for _, id := range ids {
		if task := c.await(id); task.GetState() != "COMPLETED" || task.GetAttempts() != 1 {
			t.Fatalf("the task is %v", task)
		}
		if got := c.result(id, "stdout"); got != "01" {
			t.Fatalf("stdout is %q", got)
		}
	}
}

// Replicas that are told to end give back what they have: nobody waits for a lease.
func TestReplicasLeave(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	scripts := []*script{newScript(), newScript()}
	ps := n.addReplicas(2, func(i int, c *provider.Config) {
		withScript(scripts[i], 1)(c)
		c.Lease = time.Hour
	})
	c := n.addConsumer(nil)
	var ids []string
	for i := range 2 {
		id := c.submit(scriptSpec(step{Name: fmt.Sprint(i), Wait: true, Stdout: 2}), ps[0])
		c.await(id, "RUNNING")
		ids = append(ids, id)
	}
	ps[1].stop()
	for i := range 2 {
		close(scripts[0].gate(fmt.Sprint(i)))
	}
	for _, id := range ids {
		if task := c.await(id); task.GetState() != "COMPLETED" {
			t.Fatalf("the task is %v", task)
		}
	}
}

// The one that leads is cut off from the store alone: it has stepped down before another one leads, a node that watches its queue hears of it, and what it had goes on at the other one.
func TestReplicasCutOff(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	scripts := []*script{newScript(), newScript()}
	proxy := pgtest.Shared(t).NewProxy(t)
	ps := n.addReplicas(2, func(i int, c *provider.Config) { withScript(scripts[i], 1)(c) }, proxy)
	c := n.addConsumer(nil)
	first := c.submit(scriptSpec(step{Name: "first", Wait: true, Stdout: 2}), ps[0])
	c.await(first, "RUNNING")
	queue := must[grpc.ServerStreamingClient[taskv1.WatchQueueResponse]](t)(ps[0].client.WatchQueue(t.Context(), &taskv1.WatchQueueRequest{}))
	must[*taskv1.WatchQueueResponse](t)(queue.Recv())
	proxy.Pause()
	defer proxy.Resume()
	ps[1].takeOver()
	if ps[0].provider.Leading() {
		t.Error("it leads beside another one")
	}
	var err error
	for err == nil {
		_, err = queue.Recv()
	}
	if f := fault.From(err); f.Reason != "NOT_LEADING" {
		t.Errorf("whoever watches its queue hears %v", err)
	}
	session := must[grpc.BidiStreamingClient[taskv1.SessionRequest, taskv1.SessionResponse]](t)(ps[0].client.Session(t.Context()))
	if _, err := session.Recv(); fault.From(err).Reason != "NOT_LEADING" {
		t.Errorf("a session with it: %v", err)
	}
	for _, s := range scripts {
		close(s.gate("first"))
	}
	ps[1].sealing = ps[0].sealing
	second := c.submit(scriptSpec(step{Name: "second", Stdout: 2}), ps[1])
	for _, id := range []string{first, second} {
		if task := c.await(id); task.GetState() != "COMPLETED" || task.GetAttempts() != 1 {
			t.Fatalf("the task is %v", task)
		}
		if got := c.result(id, "stdout"); got != "01" {
			t.Fatalf("stdout is %q", got)
		}
	}
}

// The store is away for everybody, for longer than a lease: nobody leads, but the session stands and consumers hear of what runs, so that nobody places it elsewhere. Afterwards the same one leads.
func TestReplicasKeepSessionsWithoutStore(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	server := pgtest.Start(t)
	s := newScript()
	p := n.addNode("provider")
	p.database = &database{server, server.Database(t)}
	p.pconf.Evaluator = domain.Local{}
	p.pconf.Progress = 100 * time.Millisecond
	withScript(s, 1)(&p.pconf)
	p.start()
	c := n.addConsumer(nil)
	id := c.submit(scriptSpec(step{Name: "long", Wait: true, Stdout: 2}), p)
	c.await(id, "RUNNING")
	leads := func(want bool) {
		t.Helper()
		news, stop := p.provider.WatchQueue()
		defer stop()
		end := time.After(time.Minute)
		for p.provider.Leading() != want {
			select {
			case <-news:
			case <-end:
				t.Fatalf("in a minute it did not become so that it leads: %v", want)
			}
		}
	}
	server.Stop(t)
	leads(false)
	heard := c.heard(eventv1.EventType_EVENT_TYPE_TASK_PROGRESS)
	end := time.Now().Add(time.Minute)
	for c.heard(eventv1.EventType_EVENT_TYPE_TASK_PROGRESS) < heard+5 {
		if time.Now().After(end) {
			t.Fatal("its consumer hears no more of the task")
		}
		pause(50 * time.Millisecond)
	}
	server.Restart(t)
	leads(true)
	close(s.gate("long"))
	if task := c.await(id); task.GetState() != "COMPLETED" || task.GetAttempts() != 1 {
		t.Fatalf("the task is %v", task)
	}
}

// The store goes away for a moment under load: one outcome each.
func TestReplicasWithoutStore(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	server := pgtest.Start(t)
	db := &database{server, server.Database(t)}
	s := newScript()
	p := n.addNode("provider")
	p.database = db
	p.pconf.Evaluator = domain.Local{}
	withScript(s, 2)(&p.pconf)
	p.start()
	c := n.addConsumer(nil)
	const tasks = 12
	ids := make([]string, tasks)
	var wg sync.WaitGroup
	for i := range ids {
		ids[i] = c.submit(scriptSpec(step{Name: fmt.Sprint(i), Sleep: 20 * time.Millisecond, Stdout: 2}), p)
		if i == tasks/3 {
			wg.Go(func() {
				server.Stop(t)
				server.Restart(t)
			})
		}
	}
	wg.Wait()
	for _, id := range ids {
		if task := c.await(id); task.GetState() != "COMPLETED" {
			t.Fatalf("the task is %v", task)
		}
	}
	if !c.saw(eventv1.EventType_EVENT_TYPE_TASK_RESULT) {
		t.Error("no result was delivered")
	}
}

// BenchmarkReplicas is how many tasks that wait 50 ms end in a second, with four slots a replica: slots decide, and not the processor.
func BenchmarkReplicas(b *testing.B) {
	for _, count := range []int{1, 2, 4} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			n := newNetwork(b)
			ps := n.addReplicas(count, func(_ int, c *provider.Config) {
				withScript(newScript(), 4)(c)
				c.Lease = 10 * time.Second
			})
			c := n.addConsumer(nil)
			tasks := 100 * count
			for b.Loop() {
				begin := time.Now()
				var wg sync.WaitGroup
				turns := make(chan struct{}, 16*count) // under way
				for i := range tasks {
					turns <- struct{}{}
					wg.Go(func() {
						id := c.submit(scriptSpec(step{Name: fmt.Sprint(i), Sleep: 50 * time.Millisecond}), ps[0])
						c.await(id, "COMPLETED")
						<-turns
					})
				}
				wg.Wait()
				rate := float64(tasks) / time.Since(begin).Seconds()
				b.ReportMetric(rate, "tasks/s")
				b.ReportMetric(rate/float64(4*count*20)*100, "%-of-slots")
			}
		})
	}
}

// A consumer on PostgreSQL: its job goes on where it was when its process ends in the middle, and every input has one end.
func TestConsumerOnPostgres(t *testing.T) {
	t.Parallel()
	n, program := newNetwork(t), newProgram()
	p := n.addProvider(program.at("a", 4))
	server := pgtest.Shared(t)
	c := n.addNode("consumer")
	c.database = &database{server, server.Database(t)}
	c.start()
	c.useProviders(p)
	texts := numbered(40)
	id := c.startJob(jobSpec(0), texts...)
	c.restart()
	c.useProviders(p)
	job, ended := c.watchJob(id, 0)
	if job.GetState() != "COMPLETED" || len(ended) != len(texts) {
		t.Fatalf("the job is %v, and %d have ended", job, len(ended))
	}
	checkAll(t, ended, texts)
}

// awayStore is a journal whose payloads cannot be read for a while.
type awayStore struct {
	provider.Store
	away  atomic.Bool
	asked atomic.Int32
}

func (a *awayStore) Material(ctx context.Context, k domain.EntryKey) (app.Material, error) {
	if a.away.Load() {
		a.asked.Add(1)
		return app.Material{}, fault.Unavailable("STORE_AWAY", "the store is away")
	}
	return a.Store.Material(ctx, k)
}

// The store is away while a large payload is to be fetched, for longer than a fetch is tried: the attempt is given back each time, and runs when the store is well again.
func TestReplicasStageWithoutStore(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	server := pgtest.Shared(t)
	p := n.addNode("provider")
	p.database = &database{server, server.Database(t)}
	p.pconf.Evaluator, p.pconf.Lease = domain.Local{}, time.Second // alone: nobody supersedes it
	withScript(s, 1)(&p.pconf)
	away := &awayStore{}
	away.away.Store(true)
	p.journal = func(st provider.Store) provider.Store { away.Store = st; return away }
	p.start()
	c := n.addConsumer(nil)
	data := strings.Repeat("x", 200_000)
	id := c.submit(withInput(step{Name: "large", Show: true}, "input:large", nil, []byte(data)), p)
	until(t, "more looks than a fetch has tries", func() bool { return away.asked.Load() > 10 })
	if s.ran("large") != 0 {
		t.Error("it has run without its payload")
	}
	away.away.Store(false)
	if task := c.await(id); task.GetState() != "COMPLETED" || task.GetAttempts() != 1 {
		t.Fatalf("the task is %v", task)
	}
	if got := c.result(id, ""); got != data {
		t.Errorf("%d bytes came back of %d", len(got), len(data))
	}
}
