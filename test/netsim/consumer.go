package netsim

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/discovery/discoverytest"
	"github.com/shallot-net/shallot/services/metric/metrictest"
	"github.com/shallot-net/shallot/services/node/nodetest"
)

// slots of every provider: so many tasks run side by side, others wait.
const slots = 4

// queue is what a provider has to do; guarded by World.mu.
type queue struct {
	running int
	waiting []func() // start them
}

func (n *node) report() {
	q := metrictest.Queue{Running: uint32(n.queue.running), Pending: uint32(len(n.queue.waiting)), Slots: slots, Capacity: 64}
	if err := n.metric.ReportQueue(context.Background(), q); err != nil {
		n.world.fail(err)
	}
}

// addConsumer starts a consumer's view of the network.
func (w *World) addConsumer() *node {
	n := w.newNode()
	ctx, cancel := context.WithCancel(w.ctx)
	n.stop = cancel
	addresses := w.entrances(2)
	n.consumer = nodetest.NewConsumer(nodetest.ConsumerConfig{Bootstrap: func() []string { return addresses }}, consumerNetwork{n})
	n.changed = n.consumer.Connected
	w.runs.Go(func() {
		defer close(n.lost)
		if err := n.consumer.Run(ctx); err != nil {
			w.fail(err)
		}
	})
	return n
}

type consumerNetwork struct{ *node }

func (n consumerNetwork) Connect(ctx context.Context, id string, addresses []string) (string, error) {
	return n.connect(ctx, id, addresses)
}

func (n consumerNetwork) ConnectVouched(ctx context.Context, id string, addresses []string) (string, error) {
	return n.connect(ctx, id, addresses)
}

func (consumerNetwork) Known(context.Context) ([]nodetest.KnownPeer, error) { return nil, nil }

// Find finds nobody: gossip and questions are what is simulated.
func (n consumerNetwork) Find(context.Context, string, int, func(nodetest.KnownPeer)) error {
	return nil
}

func (n consumerNetwork) SendEvent(ctx context.Context, id string, kind eventv1.EventType, question string, payload proto.Message, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return n.hand(ctx, id, proto.Size(payload)+40, func(to *node) error {
		switch m := payload.(type) {
		case *eventv1.Discover:
			if to.discovery == nil {
				return errUnreachable
			}
			return verdict(to.discovery.HandleDiscover(n.id, discoverytest.Question{ID: question, Types: m.GetTypes(), Limit: int(m.GetLimit()), Has: m.GetHas()}))
		case *eventv1.MetricQuery:
			return to.askedForMetric(n.id, question)
		}
		return errUnreachable
	})
}

// discoverResponse hands an answer to a consumer, which decodes and checks it itself.
func (n *node) discoverResponse(from *node, r discoverytest.DiscoverResponse) error {
	m := &eventv1.DiscoverResponse{InReplyTo: r.InReplyTo, Known: uint32(r.Known)}
	for _, signed := range r.Signed {
		var ev eventv1.Event
		if err := proto.Unmarshal(signed, &ev); err != nil {
			return err
		}
		m.Announcements = append(m.Announcements, &ev)
	}
	ev, err := from.event(eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE, m, false)
	if err != nil {
		return err
	}
	n.consumer.DiscoverResponse(from.id, ev)
	return nil
}

// Placements is what became of tasks that consumers placed.
type Placements struct {
	Placed, Nowhere int
	Waited          int             // tasks that found all slots of their provider taken
	Ages            []time.Duration // of the metric that the choice was made by
	Blind           int             // choices of a provider whose metric was not known
	Known           int             // fit providers that were known, over all choices
	Took            []time.Duration // that a choice took: where metrics are fresh it takes none
	Bytes           int64           // that the consumers sent and received meanwhile
	Loads           []int           // tasks that each provider got
}

// Warm is for how long consumers look around before they place tasks.
const Warm = 30 * time.Second

// Place starts so many consumers, gives them Warm, and has them place tasks all over the world for d, at a rate that keeps the given share of all slots busy; a task takes
// a minute in the mean.
func (w *World) Place(consumers int, share float64, d time.Duration) *Placements {
	const mean = time.Minute
	all := make([]*node, consumers)
	for i := range all {
		all[i] = w.addConsumer()
	}
	pause(w.ctx, Warm)
	p := &Placements{}
	w.mu.Lock()
	every := time.Duration(float64(mean) / (share * slots * float64(len(w.providers))))
	w.mu.Unlock()
	got := map[*node]int{}
	var placing sync.WaitGroup
	before := w.heardBy(all)
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		if !pause(w.ctx, time.Duration(rand.ExpFloat64()*float64(every))) {
			break
		}
		takes := time.Duration(rand.ExpFloat64() * float64(mean))
		placing.Go(func() { w.placeOne(p, got, all[i%len(all)], i, takes) })
	}
	placing.Wait()
	p.Bytes = w.heardBy(all) - before
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.providers {
		p.Loads = append(p.Loads, got[n])
	}
	return p
}

// heardBy is what nodes have sent and received as events and pings.
func (w *World) heardBy(nodes []*node) (bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range nodes {
		bytes += n.bytes.events + n.bytes.pings
	}
	return bytes
}

func (w *World) placeOne(p *Placements, got map[*node]int, c *node, i int, takes time.Duration) {
	need := &nodetest.Need{TaskID: taskID(i), Type: "wasm"}
	began := time.Now()
	candidate, _ := c.consumer.Place(w.ctx, need)
	took := time.Since(began)
	w.mu.Lock()
	at := w.nodes[candidate.GetPeerId()]
	nowhere := at == nil || at.gone
	if nowhere {
		p.Nowhere++ // nobody known, or one that has gone: the task service would hear that, and ask again
	}
	w.mu.Unlock()
	if nowhere {
		if candidate != nil {
			c.consumer.Unreachable(candidate.GetPeerId())
		}
		return
	}
	known, _ := c.consumer.Providers("", 1, func(q *nodetest.Provider) bool { return q.PeerID == at.id })
	_, all, _ := c.consumer.Figures()
	w.mu.Lock()
	p.Placed++
	got[at]++
	p.Took = append(p.Took, took)
	if len(known) == 1 && known[0].Load != nil {
		p.Ages = append(p.Ages, time.Since(known[0].Load.At))
	} else {
		p.Blind++
	}
	p.Known += all
	w.mu.Unlock()
	task := &taskv1.Task{Id: need.TaskID, Provider: at.id, State: "RUNNING"}
	c.consumer.TaskChanged(task)
	w.begin(at, p, takes, func() {
		c.consumer.TaskChanged(&taskv1.Task{Id: need.TaskID, Provider: at.id, State: "COMPLETED"})
	})
}

// begin puts a task into a provider's queue.
func (w *World) begin(at *node, p *Placements, takes time.Duration, ended func()) {
	run := func() { // with the lock
		at.queue.running++
		w.runs.Go(func() {
			pause(w.ctx, takes)
			ended()
			w.mu.Lock()
			at.queue.running--
			if q := at.queue.waiting; len(q) > 0 {
				at.queue.waiting = q[1:]
				q[0]()
			}
			w.mu.Unlock()
			at.report()
		})
	}
	w.mu.Lock()
	if at.queue.running < slots {
		run()
	} else {
		p.Waited++
		at.queue.waiting = append(at.queue.waiting, run)
	}
	w.mu.Unlock()
	at.report()
}

func taskID(i int) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 32)
	for k := range b {
		b[k] = digits[i>>(4*(k%8))&15]
	}
	return string(b)
}
