package netsim

import (
	"math"
	"slices"
	"time"

	"github.com/shallot-net/shallot/services/discovery/discoverytest"
)

// Traffic is what one node sends and receives in a minute, both together, in bytes on streams; the mean over nodes.
type Traffic struct {
	Announcements, Metrics, Lists, Events, Pings float64
	// Messages of each kind that a node hears for the first time in a minute.
	AnnouncementsHeard, MetricsHeard float64
}

// Total is all of it.
func (t Traffic) Total() float64 { return t.Announcements + t.Metrics + t.Lists + t.Events + t.Pings }

// Listen counts what the providers that are there all the while say in d.
func (w *World) Listen(d time.Duration) Traffic {
	before := w.counts()
	if !pause(w.ctx, d) {
		return Traffic{}
	}
	var t Traffic
	n := 0.0
	for id, after := range w.counts() {
		was, ok := before[id]
		if !ok {
			continue
		}
		n++
		t.Announcements += float64(after.gossip[announcements] - was.gossip[announcements])
		t.Metrics += float64(after.gossip[metrics] - was.gossip[metrics])
		t.Events += float64(after.events - was.events)
		t.Pings += float64(after.pings - was.pings)
		t.Lists += float64(after.lists-was.lists) + 2*float64(after.listed)*listFrames(d,
			after.heard[announcements]-was.heard[announcements], after.heard[metrics]-was.heard[metrics])
		t.AnnouncementsHeard += float64(after.heard[announcements] - was.heard[announcements])
		t.MetricsHeard += float64(after.heard[metrics] - was.heard[metrics])
	}
	for _, v := range []*float64{&t.Announcements, &t.Metrics, &t.Lists, &t.Events, &t.Pings, &t.AnnouncementsHeard, &t.MetricsHeard} {
		*v /= n * d.Minutes()
	}
	return t
}

type count struct {
	traffic
	listed int
}

func (w *World) counts() map[string]count {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]count, len(w.providers))
	for _, n := range w.providers {
		out[n.id] = count{n.bytes, n.listed()}
	}
	return out
}

// listFrames is what the lists of d cost one node for each peer, beside their entries: a list is said in each heartbeat for
// every topic of which a message was heard in the last few.
func listFrames(d time.Duration, heard ...int64) float64 {
	bytes := 0.0
	for _, n := range heard {
		rate := float64(n) * float64(listedIn) * float64(heartbeat) / float64(d)
		bytes += listFrame * float64(d/heartbeat) * (1 - math.Exp(-rate))
	}
	return bytes
}

// View is what providers think of the network.
type View struct {
	Size      int // providers that there are
	Known     [3]int
	Estimated [3]int // the network's size, by discovery: the lowest in 20, the median, the highest in 20
	ByMetric  [3]int // the same by metric
	Degree    float64
	Conns     float64
}

// Look asks every provider that has run for a while.
func (w *World) Look() View {
	w.mu.Lock()
	nodes := slices.Clone(w.providers)
	v := View{Size: len(nodes)}
	for _, n := range nodes {
		v.Degree += float64(len(n.mesh)) / float64(len(nodes))
		v.Conns += float64(len(n.conns)) / float64(len(nodes))
	}
	w.mu.Unlock()
	var known, size, metric []int
	for _, n := range nodes {
		f := n.discovery.Figures()
		known, size, metric = append(known, f.Available), append(size, f.Network), append(metric, n.metric.Figures().Network)
	}
	v.Known, v.Estimated, v.ByMetric = spreadOf(known), spreadOf(size), spreadOf(metric)
	return v
}

func spreadOf(v []int) [3]int {
	if len(v) == 0 {
		return [3]int{}
	}
	slices.Sort(v)
	return [3]int{v[len(v)/20], v[len(v)/2], v[len(v)-1-len(v)/20]}
}

// reach follows one newcomer; guarded by World.mu.
type reach struct {
	said time.Time
	by   map[string]bool
	most time.Duration // until nine in ten had heard of it
	want int
}

func (r *reach) began(w *World) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.said.IsZero() {
		r.said, r.by, r.want = time.Now(), map[string]bool{}, len(w.providers)*9/10
	}
}

func (r *reach) reached(to *node) {
	to.world.mu.Lock()
	defer to.world.mu.Unlock()
	if r.by[to.id] = true; len(r.by) >= r.want && r.most == 0 {
		r.most = time.Since(r.said)
	}
}

// Newcomer is how one that joined got on.
type Newcomer struct {
	Knows   time.Duration // until it knew enough providers
	HeardBy time.Duration // until nine in ten providers had heard of it
	KeptBy  int           // providers that have it in their tables a minute after it came
}

// enough is how many providers a newcomer should know, or all that there are.
const enough = 64

// Follow has a provider join and follows it for a minute; 0 is for what did not come to pass.
func (w *World) Follow() (Newcomer, error) {
	var out Newcomer
	began := time.Now()
	follow := &reach{}
	n, err := w.join(follow)
	if err != nil {
		return out, err
	}
	w.mu.Lock()
	want := min(enough, len(w.providers)-1)
	w.mu.Unlock()
	for time.Since(began) < time.Minute {
		if n.discovery.Figures().Available >= want && out.Knows == 0 {
			out.Knows = time.Since(began)
		}
		if !pause(w.ctx, 50*time.Millisecond) {
			break
		}
	}
	w.mu.Lock()
	if follow.most > 0 {
		out.HeardBy = follow.said.Sub(began) + follow.most
	}
	others := slices.Clone(w.providers)
	w.mu.Unlock()
	for _, o := range others {
		if p, err := o.discovery.Peer(n.id); err == nil && p.State == discoverytest.Available {
			out.KeptBy++
		}
	}
	return out, nil
}
