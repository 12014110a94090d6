package delivery

import (
	"slices"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// Ack takes a member's verdict on a delivery. False: the delivery is not the member's (any more).
func (h *Hub) Ack(m *Member, id uint64, v Verdict, detail string, now time.Time) bool {
	d, ok := m.inFlight[id]
	if !ok {
		return false
	}
	switch v {
	case Retry:
		h.retry(d, now)
	case Refused, Misconduct:
		h.end(d, event.Outcome{Status: event.Rejected, Detail: event.Detail(detail), Misconduct: v == Misconduct})
	case Ignored:
		h.end(d, event.Outcome{})
	default:
		d.item.applied++
		h.end(d, event.Outcome{})
	}
	h.freed(m, now)
	return true
}

// end finishes a delivery that a member has.
func (h *Hub) end(d *delivery, o event.Outcome) {
	h.unassign(d)
	h.finish(d, o)
}

// finish takes one group off an item, and reports the outcome with the last.
func (h *Hub) finish(d *delivery, o event.Outcome) {
	h.rest(d.lane)
	d.item.outcome = d.item.outcome.Worse(o)
	if d.item.open--; d.item.open == 0 && d.item.Topic == "" {
		h.sink.Done(d.item, d.item.outcome)
	}
}

func (h *Hub) drop(d *delivery, why Drop) {
	h.sink.Dropped(d.item, why)
	h.finish(d, event.Outcome{})
}

// rest keeps an idle lane for its holder's sake, and forgets some idle one when there are too many.
func (h *Hub) rest(l *lane) {
	if len(l.queue) > 0 || l.inFlight > 0 {
		return
	}
	g := l.group
	if len(g.lanes) <= h.cfg.IdleLanes {
		return
	}
	for k, o := range g.lanes {
		if len(o.queue) == 0 && o.inFlight == 0 {
			h.forget(o)
			delete(g.lanes, k)
			break
		}
	}
}

func (h *Hub) forget(l *lane) {
	h.hold(l, nil)
	delete(h.delayed, l)
}

// retry hands the item over again a little later, to another member if there is one.
func (h *Hub) retry(d *delivery, now time.Time) {
	m := d.member
	if d.retries == 0 {
		d.first = now
	}
	if now.Sub(d.first) >= h.cfg.RetryFor {
		h.giveUp(d)
		return
	}
	wait := min(h.cfg.RetryMost, h.cfg.RetryFirst<<min(d.retries, 16))
	d.retries++
	l := d.lane
	h.takeBack(d)
	if other := h.other(m, d.item); other != nil && d.item.Topic == "" {
		h.move(l, other)
	}
	l.notBefore = now.Add(wait)
	h.pump(l, now)
}

// timeout ends a hand-over that was not acknowledged in time.
func (h *Hub) timeout(d *delivery, now time.Time) {
	m := d.member
	other := h.other(m, d.item)
	if other == nil || d.item.Topic != "" && d.redelivered {
		h.giveUp(d)
		return
	}
	l := d.lane
	h.takeBack(d)
	if d.item.Topic == "" {
		h.move(l, other)
	}
	h.pump(l, now)
}

func (h *Hub) giveUp(d *delivery) {
	if d.item.Topic != "" {
		h.unassign(d)
		h.drop(d, DropTimeout)
		return
	}
	h.end(d, event.Outcome{Status: event.TimedOut})
}

// other is the member of the group, not m, that has the least to do and wants the item.
func (h *Hub) other(m *Member, item *Item) *Member {
	var best *Member
	for _, o := range m.group.members {
		if o != m && o.wants(item) && (best == nil || len(o.inFlight) < len(best.inFlight)) {
			best = o
		}
	}
	return best
}

// move hands a lane to another member, wherever it has lined up.
func (h *Hub) move(l *lane, m *Member) {
	if old := l.holder; old != nil && l.waiting {
		old.waiting = slices.DeleteFunc(old.waiting, func(o *lane) bool { return o == l })
		l.waiting = false
	}
	h.hold(l, m)
}

// freed gives room that a member has again to the lanes in line for it, one item each in turn.
func (h *Hub) freed(m *Member, now time.Time) {
	for len(m.waiting) > 0 && len(m.inFlight) < m.max {
		l := m.waiting[0]
		m.waiting = m.waiting[1:]
		h.next(l, now)
	}
	g := m.group
	for n := len(g.waiting); n > 0 && len(m.inFlight) < m.max && m.gossip < (m.max+1)/2; n-- { // each once: m may not want it
		l := g.waiting[0]
		g.waiting = g.waiting[1:]
		h.next(l, now)
	}
	if len(m.waiting) == 0 {
		m.waiting = nil
	}
	if len(g.waiting) == 0 {
		g.waiting = nil
	}
}

// next hands over one item of a lane that was in line and lines it up again for the rest.
func (h *Hub) next(l *lane, now time.Time) {
	l.waiting = false
	if len(l.queue) == 0 {
		return
	}
	if now.Before(l.notBefore) {
		h.delayed[l] = struct{}{}
		return
	}
	if h.handOver(l, now) && len(l.queue) > 0 && !l.waiting {
		if m := l.holder; m != nil {
			m.waiting = append(m.waiting, l)
			l.waiting = true
			return
		}
		h.pump(l, now)
	}
}

// Tick does what is due. Call it at Next's time.
func (h *Hub) Tick(now time.Time) {
	for l := range h.delayed {
		if !now.Before(l.notBefore) {
			delete(h.delayed, l)
			h.pump(l, now)
		}
	}
	for name, g := range h.groups {
		for _, m := range g.members {
			for d, at := m.due(); d != nil && !now.Before(at); d, at = m.due() {
				h.timeout(d, now)
			}
			h.freed(m, now)
		}
		if len(g.members) == 0 && !now.Before(g.until) {
			h.dissolve(g)
			delete(h.groups, name)
		}
	}
	n := 0
	for n < len(h.parked) && !now.Before(h.parked[n].until) { // they are in order: all wait equally long
		h.sink.Done(h.parked[n].item, event.Outcome{Status: event.NoSubscriber})
		h.parked[n].item = nil
		n++
	}
	h.parked = h.parked[n:]
}

// dissolve ends what a group without members still has.
func (h *Hub) dissolve(g *group) {
	for _, l := range g.lanes {
		for len(l.queue) > 0 {
			d := l.pop()
			if d.item.Topic != "" {
				h.drop(d, DropNoSubscriber)
				continue
			}
			h.finish(d, event.Outcome{Status: event.NoSubscriber})
		}
		h.forget(l)
	}
}

// due is the hand-over whose deadline is next. All of a member's have the same time, so they are due in order.
func (m *Member) due() (*delivery, time.Time) {
	for len(m.order) > 0 {
		o := m.order[0]
		if d, ok := m.inFlight[o.id]; ok {
			return d, o.at
		}
		m.order = m.order[1:]
	}
	m.order = nil
	return nil, time.Time{}
}

// Next is when Tick has something to do; false when it has not.
func (h *Hub) Next() (time.Time, bool) {
	var at time.Time
	earlier := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for l := range h.delayed {
		earlier(l.notBefore)
	}
	for _, g := range h.groups {
		if len(g.members) == 0 {
			earlier(g.until)
		}
		for _, m := range g.members {
			if d, deadline := m.due(); d != nil {
				earlier(deadline)
			}
		}
	}
	if len(h.parked) > 0 {
		earlier(h.parked[0].until)
	}
	return at, !at.IsZero()
}
