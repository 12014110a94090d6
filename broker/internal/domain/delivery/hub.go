package delivery

import (
	"slices"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// Hub holds the groups. It is not safe for concurrent use.
type Hub struct {
	cfg     Config
	sink    Sink
	groups  map[string]*group
	parked  []parked
	delayed map[*lane]struct{} // lanes that wait for their notBefore
	lastID  uint64
}

type parked struct {
	item  *Item
	until time.Time
}

// NewHub makes a Hub without groups.
func NewHub(cfg Config, sink Sink) *Hub {
	cfg.defaults()
	return &Hub{cfg: cfg, sink: sink, groups: make(map[string]*group), delayed: make(map[*lane]struct{})}
}

// Join adds a member to a group, which is made if need be, and hands it what waited for one.
func (h *Hub) Join(name string, f Filter, maxInFlight int, ackTimeout time.Duration, value any, now time.Time) *Member {
	g, ok := h.groups[name]
	if !ok {
		g = &group{name: name, lanes: make(map[laneKey]*lane)}
		h.groups[name] = g
	}
	m := &Member{Value: value, group: g, topics: make(map[string]bool), types: make(map[event.Type]bool),
		max: maxInFlight, ackTimeout: ackTimeout, inFlight: make(map[uint64]*delivery)}
	for _, t := range f.Topics {
		m.topics[t] = true
	}
	for _, t := range f.Types {
		m.types[t] = true
	}
	g.members = append(g.members, m)
	for _, l := range g.lanes {
		h.pump(l, now)
	}
	h.unpark(m, now)
	return m
}

// unpark gives a new member's group what waited for one like it.
func (h *Hub) unpark(m *Member, now time.Time) {
	rest := h.parked[:0]
	for _, p := range h.parked {
		if !m.wants(p.item) {
			rest = append(rest, p)
			continue
		}
		p.item.open = 1
		h.enqueue(m.group, p.item, now)
	}
	clear(h.parked[len(rest):])
	h.parked = rest
}

// Leave takes a member out. What it had not acknowledged goes to the others, or waits for the next member.
func (h *Hub) Leave(m *Member, now time.Time) {
	if m.gone {
		return
	}
	m.gone = true
	g := m.group
	g.members = slices.DeleteFunc(g.members, func(o *Member) bool { return o == m })
	for _, l := range m.waiting {
		l.waiting = false
	}
	m.waiting = nil
	for _, l := range g.lanes {
		if l.holder == m {
			l.holder = nil
		}
	}
	unacked := make([]*delivery, 0, len(m.inFlight))
	for _, d := range m.inFlight {
		unacked = append(unacked, d)
	}
	slices.SortFunc(unacked, func(a, b *delivery) int { return int(int64(b.id) - int64(a.id)) }) // the youngest first: each goes to the front
	for _, d := range unacked {
		h.takeBack(d)
	}
	if len(g.members) == 0 {
		g.until, g.topics, g.types = now.Add(h.cfg.Linger), m.topics, m.types
	}
	for _, l := range g.lanes {
		h.pump(l, now)
	}
}

// takeBack ends a hand-over and puts the item at the front of its lane.
func (h *Hub) takeBack(d *delivery) {
	h.unassign(d)
	d.redelivered = true
	d.lane.queue = slices.Insert(d.lane.queue, 0, d)
	d.lane.queued += d.item.Size
}

// pop takes the first of a lane's queue.
func (l *lane) pop() *delivery {
	d := l.queue[0]
	l.queue[0] = nil
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.queued -= d.item.Size
	return d
}

func (h *Hub) unassign(d *delivery) {
	m := d.member
	delete(m.inFlight, d.id)
	if d.item.Topic != "" {
		m.gossip--
	}
	d.lane.inFlight--
	d.id, d.member = 0, nil
}

// Offer takes an item in. A directed one ends in Done, whatever happens.
func (h *Hub) Offer(item *Item, now time.Time) {
	var wanting []*group
	var one [1]*group // by far the usual number
	wanting = one[:0]
	for _, g := range h.groups {
		if g.wants(item) {
			wanting = append(wanting, g)
		}
	}
	if len(wanting) == 0 {
		h.park(item, now)
		return
	}
	item.open = len(wanting) // before the first: it may end at once
	for _, g := range wanting {
		h.enqueue(g, item, now)
	}
}

func (h *Hub) park(item *Item, now time.Time) {
	switch {
	case item.Topic != "":
		h.sink.Dropped(item, DropNoSubscriber)
	case len(h.parked) >= h.cfg.Parked:
		h.sink.Done(item, event.Outcome{Status: event.Busy})
	default:
		h.parked = append(h.parked, parked{item, now.Add(h.cfg.Linger)})
	}
}

func (h *Hub) enqueue(g *group, item *Item, now time.Time) {
	key := laneKey{item.Persona, item.Sender, item.Topic}
	if item.Topic != "" {
		key.sender = ""
	}
	l, ok := g.lanes[key]
	if !ok {
		l = &lane{key: key, group: g}
		g.lanes[key] = l
	}
	l.queue = append(l.queue, &delivery{item: item, lane: l})
	l.queued += item.Size
	h.pump(l, now)
	for item.Topic != "" && (len(l.queue) > h.cfg.Gossip || l.queued > h.cfg.GossipSize) {
		h.drop(l.pop(), DropOverflow)
	}
}

// pump hands over what a lane has, as far as members have room.
func (h *Hub) pump(l *lane, now time.Time) {
	for len(l.queue) > 0 && !l.waiting {
		if now.Before(l.notBefore) {
			h.delayed[l] = struct{}{}
			return
		}
		if !h.handOver(l, now) {
			return
		}
	}
}

// handOver gives the lane's next item to a member. False: there is none with room, and the lane has lined up where there will be.
func (h *Hub) handOver(l *lane, now time.Time) bool {
	d := l.queue[0]
	m := h.choose(l, d.item)
	if m == nil {
		if d.item.Topic != "" && len(l.group.members) > 0 {
			l.group.waiting = append(l.group.waiting, l)
			l.waiting = true
		}
		return false
	}
	if !m.room(d.item) {
		m.waiting = append(m.waiting, l)
		l.waiting = true
		return false
	}
	l.pop()
	h.lastID++
	d.id, d.member = h.lastID, m
	m.inFlight[d.id] = d
	m.order = append(m.order, due{d.id, now.Add(m.ackTimeout)})
	l.inFlight++
	if d.item.Topic != "" {
		m.gossip++
	}
	h.sink.Deliver(m, d.id, d.item, d.redelivered)
	return true
}

// choose finds the member for an item: the lane's holder while it wants it, else the one with the fewest lanes; for gossip, the least busy
// one that has room.
func (h *Hub) choose(l *lane, item *Item) *Member {
	if item.Topic == "" && l.holder != nil && l.holder.wants(item) {
		return l.holder
	}
	var best *Member
	for _, m := range l.group.members {
		switch {
		case !m.wants(item), item.Topic != "" && !m.room(item):
		case best == nil, less(m, best, item.Topic != ""):
			best = m
		}
	}
	if best != nil && item.Topic == "" {
		h.hold(l, best)
	}
	return best
}

func less(a, b *Member, gossip bool) bool {
	if !gossip && a.lanes != b.lanes {
		return a.lanes < b.lanes
	}
	return len(a.inFlight) < len(b.inFlight)
}

func (h *Hub) hold(l *lane, m *Member) {
	if l.holder != nil {
		l.holder.lanes--
	}
	if l.holder = m; m != nil {
		m.lanes++
	}
}
