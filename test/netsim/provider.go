package netsim

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/pace"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/discoverytest"
	"github.com/shallot-net/shallot/services/metric/metrictest"
)

var errBusy = errors.New("busy")

// How often hosts are measured: more seldom than nodes do, because here nothing changes unseen.
const (
	sampled       = 10 * time.Second
	sampledSeldom = time.Minute // of thousands
)

// self is what a provider announces: a real one's is as long.
func self() discoverytest.Self {
	limits := discoverytest.Limits{Time: time.Hour, Memory: 1 << 30, Output: 1 << 30}
	return discoverytest.Self{SealingKey: "age1pq1" + strings.Repeat("q", 1952), Capabilities: []discoverytest.Capability{
		{Type: "sum", Version: "1", MaxLimits: limits},
		{Type: "wasm", Version: "1", MaxLimits: limits, Attributes: map[string]string{"engine": "wasmtime", "wasi": "preview1"}}}}
}

// make is a provider that does not run yet.
func (w *World) make(bootstrap []string) (*node, error) {
	n := w.newNode()
	ctx, cancel := context.WithCancel(w.ctx)
	n.ctx, n.stop = ctx, cancel
	var err error
	n.discovery, err = discoverytest.New(ctx, discoverytest.Config{Bootstrap: bootstrap, Network: n, Events: discoveryEvents{n}, Store: &store{}})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start discovery: %w", err)
	}
	n.metric = metrictest.New(ctx, metrictest.Config{Sample: w.sample, Host: n, Events: metricEvents{n}, Versions: &store{}})
	return n, nil
}

// run starts a provider that was made, its metric service only after a while.
func (w *World) run(n *node, metric time.Duration) error {
	w.mu.Lock()
	n.since, n.place = time.Now(), len(w.providers)
	w.providers = append(w.providers, n)
	w.mu.Unlock()
	w.runs.Go(func() {
		defer close(n.lost)
		if err := n.discovery.Run(n.ctx); err != nil {
			w.fail(err)
		}
	})
	w.runs.Go(func() {
		if metric > 0 && !pause(n.ctx, metric) {
			return
		}
		if err := n.metric.Run(n.ctx); err != nil {
			w.fail(err)
		}
	})
	return n.discovery.UpdateSelf(n.ctx, self())
}

// Join has n providers join the network, evenly over d. One in twenty becomes a bootstrap node, and each joins through two of
// these.
func (w *World) Join(n int, over time.Duration) error {
	for range n {
		if _, err := w.join(nil); err != nil {
			return err
		}
		if !pause(w.ctx, over/time.Duration(n)) {
			return w.ctx.Err()
		}
	}
	return nil
}

func (w *World) join(follow *reach) (*node, error) {
	n, err := w.make(w.entrances(2))
	if err != nil {
		return nil, err
	}
	n.reach = follow
	if n.number%20 == 0 {
		w.mu.Lock()
		w.bootstrap = append(w.bootstrap, n)
		w.mu.Unlock()
	}
	return n, w.run(n, 0)
}

// muted is for how long nobody hears what a service gossips that Settle has started: it says more then, and these have started long ago.
const muted = 30 * time.Second

// Settle makes a network of n providers that have been there for long: each has heard everybody once. It returns when the next
// announcements and metrics come as evenly as they do for ever, and says for how long they do.
//
// They all start now, and speak again after half of their interval to one and a half, each time as likely as any other. So in
// the time between, they speak as often as those do that started at different times.
func (w *World) Settle(n int) (steady time.Duration, err error) {
	announce, tell := discoverytest.DefaultPace.Interval(n), metrictest.DefaultPace.Interval(n)
	if n > 2000 {
		w.sample = sampledSeldom
	}
	var nodes []*node
	var said []discoverytest.Heard
	var told []metrictest.Metric
	for i := range n {
		x, err := w.make(nil)
		if err != nil {
			return 0, err
		}
		a := discoverytest.Announcement{PeerID: x.id, Version: 1, Role: "provider", SealingKey: self().SealingKey, Capabilities: self().Capabilities,
			Addresses: x.addresses(), Interval: pace.Stated(announce)}
		signed, err := discoveryEvents{x}.Sign(w.ctx, a)
		if err != nil {
			return 0, err
		}
		h, err := w.hear(signed)
		if err != nil {
			return 0, err
		}
		m := x.Measure(w.ctx)
		m.PeerID, m.Version, m.Interval = x.id, 1, pace.Stated(tell)
		nodes, said, told = append(nodes, x), append(said, h), append(told, m)
		x.muted = muted
		if i%20 == 0 {
			w.bootstrap = append(w.bootstrap, x)
		}
	}
	sideBySide(len(nodes), 1, func(at int) {
		x := nodes[at]
		order := rand.Perm(n)
		for k, i := range order {
			if said[i].Announcement.PeerID != x.id { // it does not know yet who it is
				x.discovery.HandleAnnouncement(x.id, true, said[i])
			}
			if m := told[order[(k+n/2)%n]]; m.PeerID != x.id { // in another order, so that the tables hold different ones
				x.metric.HandleMetric(x.id, "", m)
			}
		}
	})
	// What counts is how many they think there are: samples of 256 are a few in a hundred off.
	thought := w.thought(nodes)
	announce, tell = discoverytest.DefaultPace.Interval(thought), metrictest.DefaultPace.Interval(thought)
	// Announcements are the more seldom of the two: the metric services start so much later that both are even from the same time on.
	late := (announce - tell) / 2
	for _, x := range nodes {
		x.metricMuted = late + muted
		if err := w.run(x, late); err != nil {
			return 0, err
		}
		if !pause(w.ctx, muted/time.Duration(2*n)) {
			return 0, w.ctx.Err()
		}
	}
	first, last := announce/2, min(announce*3/2, late+tell*3/2)*9/10 // those that think of fewer end sooner
	pause(w.ctx, first+muted)                                        // some seconds of which each spent with starting
	return last - first - 2*muted, nil
}

// thought is how many providers there are in the mind of nearly all: of 20 the highest.
func (w *World) thought(nodes []*node) int {
	all := make([]int, len(nodes))
	sideBySide(len(nodes), 1, func(i int) { all[i] = max(nodes[i].discovery.Figures().Network, nodes[i].metric.Figures().Network) })
	return spreadOf(all)[2]
}

// store keeps nothing: nobody comes back as who they were.
type store struct{ next atomic.Uint64 }

func (*store) LoadPeers(context.Context) ([]discoverytest.Peer, error) { return nil, nil }
func (*store) SavePeers([]discoverytest.Peer, []string)                {}
func (*store) SaveSelf(context.Context, discoverytest.Self) error      { return nil }
func (*store) LoadSelf(context.Context) (discoverytest.Self, bool, error) {
	return discoverytest.Self{}, false, nil
}
func (s *store) ReserveVersions(_ context.Context, n, _ uint64) (uint64, error) {
	return s.next.Add(n) - n + 2, nil // the first is that of Settle
}
func (s *store) Reserve(ctx context.Context, n, atLeast uint64) (uint64, error) {
	return s.ReserveVersions(ctx, n, atLeast)
}

// ---- discovery's network

func (n *node) Self(context.Context) (discoverytest.Identity, error) {
	return discoverytest.Identity{PeerID: n.id, Addresses: n.addresses()}, nil
}

func (n *node) Connect(ctx context.Context, id string, addresses []string) (string, error) {
	return n.connect(ctx, id, addresses)
}

func (n *node) Neighbours(context.Context) ([]discoverytest.Neighbour, error) {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	out := make([]discoverytest.Neighbour, 0, len(n.conns))
	for p := range n.conns {
		n.bytes.pings += pingSize
		p.bytes.pings += pingSize
		out = append(out, discoverytest.Neighbour{PeerID: p.id, RTT: 2 * hop})
	}
	return out, nil
}

func (n *node) Watch(ctx context.Context, changed func(string, bool)) error {
	n.world.mu.Lock()
	n.changed = changed
	var now []string
	for p := range n.conns {
		now = append(now, p.id)
	}
	n.world.mu.Unlock()
	for _, id := range now {
		changed(id, true)
	}
	<-ctx.Done()
	return ctx.Err()
}

// ---- discovery's events

type discoveryEvents struct{ *node }

func (n *node) event(kind eventv1.EventType, payload proto.Message, sign bool) (*eventv1.Event, error) {
	ev, err := brokerclient.NewEvent(kind, payload)
	if err == nil && sign {
		ev.Author = n.id
		ev.Signature = ed25519.Sign(n.key, brokerclient.SignedBytes(ev))
	}
	return ev, err
}

func (n discoveryEvents) Sign(_ context.Context, a discoverytest.Announcement) ([]byte, error) {
	ev, err := n.event(eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, discoverytest.Encode(a), true)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(ev)
}

func (n discoveryEvents) Publish(_ context.Context, signed []byte) error {
	h, err := n.world.hear(signed)
	if err != nil {
		return err
	}
	if time.Since(n.since) < n.muted {
		return nil
	}
	if n.reach != nil {
		n.reach.began(n.world)
	}
	n.world.runs.Go(func() {
		n.world.spread(n.node, announcements, len(signed), func(to *node, via string) {
			to.discovery.HandleAnnouncement(via, true, h)
			if n.reach != nil {
				n.reach.reached(to)
			}
		})
	})
	return nil
}

func (n discoveryEvents) SendAnnouncement(ctx context.Context, id string, signed []byte) error {
	h, err := n.world.hear(signed)
	if err != nil {
		return err
	}
	return n.hand(ctx, id, len(signed), func(to *node) error { return verdict(to.discovery.HandleAnnouncement(n.id, false, h)) })
}

func verdict(v discoverytest.Verdict) error {
	if v == discoverytest.Retry {
		return errBusy
	}
	return nil
}

func (n discoveryEvents) SendDiscover(ctx context.Context, id string, q discoverytest.Question) error {
	return n.hand(ctx, id, 64+4*len(q.Has), func(to *node) error {
		if to.discovery == nil {
			return errUnreachable // a consumer has none
		}
		return verdict(to.discovery.HandleDiscover(n.id, q))
	})
}

func (n discoveryEvents) SendDiscoverResponse(ctx context.Context, id string, r discoverytest.DiscoverResponse) error {
	size := 80
	for _, signed := range r.Signed {
		size += len(signed) + 4
	}
	return n.hand(ctx, id, size, func(to *node) error {
		if to.consumer != nil {
			return to.discoverResponse(n.node, r)
		}
		var all []discoverytest.Heard
		for _, signed := range r.Signed {
			h, err := n.world.hear(signed)
			if err != nil {
				return err
			}
			all = append(all, h)
		}
		return verdict(to.discovery.HandleDiscoverResponse(n.id, r.InReplyTo, all, r.Known))
	})
}

func (n discoveryEvents) Ping(ctx context.Context, id string) error {
	return n.hand(ctx, id, 40, func(*node) error { return nil })
}

// parsed keeps what announcements say that were read before: one is heard by thousands, and each would check its signature.
type parsed struct{ young, old map[*byte]discoverytest.Heard }

const keepParsed = 1 << 15

func (w *World) hear(signed []byte) (discoverytest.Heard, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := &signed[0] // announcements are handed on as they are
	h, ok := w.heard.young[key]
	if ok {
		return h, nil
	}
	if h, ok = w.heard.old[key]; !ok {
		var ev eventv1.Event
		if err := proto.Unmarshal(signed, &ev); err != nil {
			return h, err
		}
		var err error
		if h, err = discoverytest.Hear(&ev); err != nil {
			return h, err
		}
		h.Signed = signed
	}
	if w.heard.young == nil || len(w.heard.young) >= keepParsed {
		w.heard.old, w.heard.young = w.heard.young, map[*byte]discoverytest.Heard{}
	}
	w.heard.young[key] = h
	return h, nil
}

// ---- metric's host and events

func (n *node) Measure(context.Context) metrictest.Metric {
	return metrictest.Metric{CPU: metrictest.CPU{Model: "AMD EPYC 7B13 64-Core Processor", Cores: 8, Threads: 16, MHz: 2450, Load: 0.05, Load1: 0.3},
		Memory: metrictest.Space{Total: 64 << 30, Free: 48 << 30, Used: 16 << 30}, Disk: metrictest.Space{Total: 512 << 30, Free: 300 << 30, Used: 212 << 30}}
}

type metricEvents struct{ *node }

func (n metricEvents) Whoami(context.Context) (string, error) { return n.id, nil }

func (n metricEvents) told(m metrictest.Metric, inReplyTo string) (*eventv1.Event, error) {
	return n.event(eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, &eventv1.MetricAvailable{Metric: metrictest.Encode(m), InReplyTo: inReplyTo}, true)
}

func (n metricEvents) Publish(_ context.Context, m metrictest.Metric) error {
	ev, err := n.told(m, "")
	if err != nil {
		return err
	}
	if err := m.Check(); err != nil || time.Since(n.since) < n.metricMuted {
		return err
	}
	n.world.runs.Go(func() {
		n.world.spread(n.node, metrics, proto.Size(ev), func(to *node, via string) { to.metric.HandleMetric(via, "", m) })
	})
	return nil
}

func (n metricEvents) SendQuery(ctx context.Context, id, question string) error {
	return n.hand(ctx, id, 40, func(to *node) error { return to.askedForMetric(n.id, question) })
}

func (n *node) askedForMetric(from, question string) error {
	if n.metric == nil {
		return errUnreachable
	}
	if n.metric.HandleQuery(from, question) == metrictest.Retry {
		return errBusy
	}
	return nil
}

func (n metricEvents) SendMetric(ctx context.Context, id, inReplyTo string, m metrictest.Metric) error {
	ev, err := n.told(m, inReplyTo)
	if err != nil {
		return err
	}
	return n.hand(ctx, id, proto.Size(ev), func(to *node) error {
		if to.consumer != nil {
			to.consumer.MetricAvailable(n.id, ev)
			return nil
		}
		to.metric.HandleMetric(n.id, inReplyTo, m)
		return nil
	})
}
