package netsim

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The broker's parameters of gossipsub in open mode.
const (
	degree      = 4
	degreeLow   = degree - 1
	degreeHigh  = 2 * degree
	lazy        = 3 // peers outside the mesh that hear what there is
	heartbeat   = time.Second
	listedIn    = 3       // heartbeats that list a message
	listEntry   = 22      // bytes: a hash of 20, and how it is encoded
	listFrame   = 40      // bytes of a list beside its entries: the topic's name is 28
	gossipFrame = 40      // bytes around a message
	eventFrame  = 24      // bytes around an event that is sent to one
	ackFrame    = 56      // bytes of its acknowledgement, which repeats the id
	pingSize    = 64      // bytes there and back again, by connection and look at it
	dialSize    = 5 << 10 // bytes of a new connection: handshake, identify, subscriptions
)

// topic is what a message is about.
type topic int

const (
	announcements topic = iota
	metrics
	topics
)

// traffic is what a node has sent and received, in bytes on streams.
type traffic struct {
	gossip [topics]int64
	lists  int64
	events int64
	pings  int64
	heard  [topics]int64 // messages, not bytes
}

func (t *traffic) direct(out, in int) { t.events += int64(out + in) }

// heartbeats keep the mesh as gossipsub does: whoever has fewer than degreeLow takes peers that have room until there are degree,
// whoever has more than degreeHigh keeps degree.
func (w *World) heartbeats() {
	for pause(w.ctx, heartbeat) {
		w.mu.Lock()
		for n := range w.dirty {
			delete(w.dirty, n)
			if !n.gone && n.discovery != nil {
				n.graft()
			}
		}
		w.mu.Unlock()
	}
}

func (n *node) graft() {
	if len(n.mesh) < degreeLow {
		var fit []*node
		for p := range n.conns {
			if p.discovery != nil && !slices.Contains(n.mesh, p) {
				fit = append(fit, p)
			}
		}
		rand.Shuffle(len(fit), func(i, j int) { fit[i], fit[j] = fit[j], fit[i] })
		for _, p := range fit {
			if len(n.mesh) < degree && len(p.mesh) < degreeHigh {
				n.mesh, p.mesh = append(n.mesh, p), append(p.mesh, n)
			}
		}
		if len(n.mesh) < degreeLow && len(n.mesh) < len(fit) {
			n.world.dirty[n] = true // those that had no room may have some at the next heartbeat
		}
	}
	for len(n.mesh) > degreeHigh {
		n.prune(n.mesh[rand.IntN(len(n.mesh))])
	}
}

// prune takes b out of the mesh of a, and the reverse.
func (n *node) prune(b *node) {
	for _, x := range [][2]*node{{n, b}, {b, n}} {
		if i := slices.Index(x[0].mesh, x[1]); i >= 0 {
			x[0].mesh = slices.Delete(x[0].mesh, i, i+1)
			n.world.dirty[x[0]] = true
		}
	}
}

// listed is how many peers outside its mesh a node tells in a heartbeat what there is.
func (n *node) listed() int {
	outside := len(n.conns) - len(n.mesh)
	return max(0, min(outside, lazy))
}

// spread carries a message through the mesh, a hop at a time. Everybody passes it to all of its mesh but the one that it has it
// from: so a link that brought somebody the message first carries it once, and any other twice, since a copy is on its way by the
// time that the other end could say that it has it. deliver is called for everybody it reaches.
func (w *World) spread(author *node, about topic, size int, deliver func(to *node, via string)) {
	type arrival struct{ at, via *node }
	size += gossipFrame
	w.mu.Lock()
	seen := make([]bool, w.numbers)
	w.mu.Unlock()
	seen[author.number] = true
	for ring := []arrival{{author, nil}}; len(ring) > 0; {
		var next []arrival
		w.mu.Lock()
		for _, a := range ring {
			n := a.at
			if n.gone {
				continue
			}
			n.bytes.heard[about]++
			n.bytes.lists += 2 * int64(listedIn*listEntry*n.listed()) // what it lists and, in the mean, what is listed to it
			for _, p := range n.mesh {
				if p == a.via {
					continue
				}
				n.bytes.gossip[about] += int64(size)
				p.bytes.gossip[about] += int64(size)
				if p.number < len(seen) && !seen[p.number] {
					seen[p.number] = true
					next = append(next, arrival{p, n})
				}
			}
		}
		w.mu.Unlock()
		if !pause(w.ctx, hop) {
			return
		}
		w.mu.Lock()
		next = slices.DeleteFunc(next, func(a arrival) bool { return a.at.gone })
		w.mu.Unlock()
		sideBySide(len(next), 64, func(i int) { deliver(next[i].at, next[i].via.id) })
		ring = next
	}
}

// sideBySide calls f for 0 to n-1, at least so many calls one after the other.
func sideBySide(n, least int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), (n+least-1)/least)
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var all sync.WaitGroup
	var next atomic.Int64
	for range workers {
		all.Go(func() {
			for {
				from := int(next.Add(int64(least))) - least
				if from >= n {
					return
				}
				for i := from; i < min(from+least, n); i++ {
					f(i)
				}
			}
		})
	}
	all.Wait()
}
