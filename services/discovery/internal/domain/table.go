package domain

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// State of a peer.
type State string

// The states. A peer is unavailable when it was not heard of in time, or could not be reached after its connection broke.
const (
	Available   State = "available"
	Unavailable State = "unavailable"
	Leaving     State = "leaving"
)

// States are all that there are.
var States = []State{Available, Unavailable, Leaving}

// Peer is one row of the peer table.
type Peer struct {
	Announcement
	Signed    []byte // the announcement as its author signed it, to hand on
	State     State
	FirstSeen time.Time
	LastSeen  time.Time     // when it last spoke for itself
	RTT       time.Duration // 0 when not measured
	Connected bool
	// Vouched says that the peer was heard here: by gossip or from itself. What only another node's sample told is not
	// handed on, or a dead peer would live on in the samples of nodes that never heard it.
	Vouched bool

	news allowance
}

// Source is how news of a peer came.
type Source int

// The sources, by what they prove: a sample that the peer existed, gossip that it lived a short while ago (or that
// somebody replays it), itself that it lives.
const (
	FromSample Source = iota
	FromGossip
	FromItself
)

// Outcome is what the table made of news.
type Outcome int

// The outcomes.
const (
	Repeated Outcome = iota // this version is known
	Old                     // a newer one is known
	Full                    // the table has no place for it
	Newer                   // of a peer that was known
	Added                   // a peer not known before
	TooOften                // newer, from one who says more than anybody has to
)

// Table is a bounded view of the network. It is not safe for concurrent use.
type Table struct {
	max       int
	peers     map[string]*Peer
	available int             // of peers; every announcement that is heard asks for it
	judge     time.Time       // before it nobody who is available falls silent
	connect   map[string]bool // who is connected, in the table or not
}

// NewTable makes a table of at most max peers.
func NewTable(max int) *Table {
	return &Table{max: max, peers: make(map[string]*Peer), connect: make(map[string]bool)}
}

// Restore puts back a row that was stored. Nobody is connected or vouched for after a restart.
func (t *Table) Restore(p Peer) {
	if len(t.peers) < t.max {
		p.Connected, p.Vouched, p.RTT = false, false, 0
		t.remove(p.PeerID)
		state := p.State
		p.State = ""
		t.peers[p.PeerID] = &p
		t.setState(&p, state)
	}
}

// Mirror takes a row as another replica of this service has it, and tells whether it is news. Who is connected this one knows itself.
func (t *Table) Mirror(p Peer) bool {
	old := t.peers[p.PeerID]
	if old == nil && len(t.peers) >= t.max {
		return false
	}
	p.Connected, p.RTT = t.connect[p.PeerID], 0
	if old != nil {
		if old.Version == p.Version && old.State == p.State && old.LastSeen.Equal(p.LastSeen) && old.Vouched == p.Vouched {
			return false
		}
		p.RTT, p.news = old.RTT, old.news
	}
	t.remove(p.PeerID)
	state := p.State
	p.State = ""
	t.peers[p.PeerID] = &p
	t.setState(&p, state)
	return true
}

// Drop removes a row, and tells whether there was one.
func (t *Table) Drop(id string) bool {
	_, there := t.peers[id]
	t.remove(id)
	return there
}

// setState and remove keep the count of those that are available.
func (t *Table) setState(p *Peer, to State) {
	if p.State == Available {
		t.available--
	}
	if to == Available {
		t.available++
		t.judgeBy(p.LastSeen.Add(p.Interval)) // patience is for one interval at least
	}
	p.State = to
}

func (t *Table) judgeBy(at time.Time) {
	if at.Before(t.judge) {
		t.judge = at
	}
}

func (t *Table) remove(id string) {
	if p := t.peers[id]; p != nil {
		t.setState(p, "")
		delete(t.peers, id)
	}
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.peers) }

// CountAvailable is the number of peers that are available.
func (t *Table) CountAvailable() int { return t.available }

// Get returns a row.
func (t *Table) Get(id string) (Peer, bool) {
	if p := t.peers[id]; p != nil {
		return *p, true
	}
	return Peer{}, false
}

// All returns every row, ordered by peer id.
func (t *Table) All() []Peer {
	out := make([]Peer, 0, len(t.peers))
	for _, p := range t.peers {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Peer) int { return strings.Compare(a.PeerID, b.PeerID) })
	return out
}

// Observe takes an announcement that has passed Check, whose signature is good. network is the estimated number of
// providers. It returns what it made of it and whom it put out for it.
//
// A full table lets go of a peer that leaves, then of one that is unavailable, the one not seen for the longest first. With
// none of these, a newcomer takes the place of a random peer that is no neighbour, with the chance that it has of being in
// a fair sample of the network: so the view stays one, and a flood of newcomers cannot push everybody out at once.
func (t *Table) Observe(a Announcement, signed []byte, src Source, network int, now time.Time) (Outcome, string) {
	a = a.Clamped()
	p := t.peers[a.PeerID]
	if p == nil {
		evicted, ok := t.makeRoom(network)
		if !ok {
			return Full, ""
		}
		p = &Peer{FirstSeen: now, Connected: t.connect[a.PeerID]}
		t.peers[a.PeerID] = p
		t.renew(p, a, signed, src, now)
		return Added, evicted
	}
	switch {
	case a.Version < p.Version:
		return Old, ""
	case a.Version > p.Version:
		if !p.news.take(now, p.Interval) {
			return TooOften, ""
		}
		t.renew(p, a, signed, src, now)
		return Newer, ""
	}
	if src == FromItself {
		p.LastSeen, p.Vouched = now, true
		if p.State == Unavailable {
			t.setState(p, Available)
		}
	}
	return Repeated, ""
}

func (t *Table) renew(p *Peer, a Announcement, signed []byte, src Source, now time.Time) {
	p.Announcement, p.Signed, p.LastSeen = a, signed, now
	p.Vouched = p.Vouched || src != FromSample
	if a.Leaving {
		t.setState(p, Leaving)
	} else {
		t.setState(p, Available)
	}
}

func (t *Table) makeRoom(network int) (evicted string, ok bool) {
	if len(t.peers) < t.max {
		return "", true
	}
	if worst := t.worst(); worst != "" {
		t.remove(worst)
		return worst, true
	}
	if rand.IntN(max(network, t.max)) >= t.max {
		return "", false
	}
	for id, p := range t.peers { // Go's order of a map is random enough
		if !p.Connected {
			t.remove(id)
			return id, true
		}
	}
	return "", false
}

// worst is the peer that is missed least; "" when all are available.
func (t *Table) worst() string {
	if t.available == len(t.peers) {
		return ""
	}
	var worst *Peer
	for _, p := range t.peers {
		if p.State == Available || p.Connected {
			continue
		}
		if worst == nil || p.State == Leaving && worst.State != Leaving ||
			p.State == worst.State && p.LastSeen.Before(worst.LastSeen) {
			worst = p
		}
	}
	if worst == nil {
		return ""
	}
	return worst.PeerID
}

// Patience is how long a peer may be silent, in multiples of the interval that it stated.
type Patience struct {
	Unavailable int
	Forgotten   int
	MinForget   time.Duration // it is kept for this long at least: it is also whom to dial after an outage
}

// Sweep judges every peer by its age, and returns who changed state and who was forgotten. onlineSince is since when
// this node hears anybody, zero while it does not: what it did not hear while it was cut off says nothing, so nobody is
// forgotten for that time.
func (t *Table) Sweep(now, onlineSince time.Time, by Patience) (changed []string, forgotten []Peer) {
	if t.available == len(t.peers) && now.Before(t.judge) {
		return nil, nil
	}
	t.judge = now.Add(MaxInterval)
	for id, p := range t.peers {
		if p.State == Available {
			if silent := p.LastSeen.Add(time.Duration(by.Unavailable) * p.Interval); !now.After(silent) {
				t.judgeBy(silent)
				continue
			}
			t.setState(p, Unavailable)
			changed = append(changed, id)
		}
		if onlineSince.IsZero() || p.Connected {
			continue
		}
		missed := now.Sub(p.LastSeen)
		if onlineSince.After(p.LastSeen) {
			missed = now.Sub(onlineSince)
		}
		if missed > max(time.Duration(by.Forgotten)*p.Interval, by.MinForget) {
			gone := *p
			t.remove(id)
			forgotten = append(forgotten, gone)
		}
	}
	return changed, forgotten
}

// Overdue returns up to n neighbours whose next announcement should have been heard by now: gossip may have lost it.
func (t *Table) Overdue(now time.Time, n int, ready func(id string) bool) []string {
	var out []string
	for id := range t.connect {
		p := t.peers[id]
		if p != nil && len(out) < n && p.State == Available && now.Sub(p.LastSeen) > p.Interval*5/4 && ready(id) {
			out = append(out, id)
		}
	}
	return out
}

// SetConnected notes that a peer is connected or no longer is, and tells whether its row changed.
func (t *Table) SetConnected(id string, connected bool) bool {
	if connected {
		t.connect[id] = true
	} else {
		delete(t.connect, id)
	}
	p := t.peers[id]
	if p == nil || p.Connected == connected {
		return false
	}
	p.Connected = connected
	if !connected {
		p.RTT = 0
	}
	return true
}

// Connected returns who is connected, in the table or not.
func (t *Table) Connected() []string {
	out := make([]string, 0, len(t.connect))
	for id := range t.connect {
		out = append(out, id)
	}
	return out
}

// IsConnected tells whether a peer is connected, in the table or not.
func (t *Table) IsConnected(id string) bool { return t.connect[id] }

// Neighbours returns the providers that are connected and available.
func (t *Table) Neighbours() []string {
	var out []string
	for id := range t.connect {
		if p := t.peers[id]; p != nil && p.State == Available {
			out = append(out, id)
		}
	}
	return out
}

// SetRTT notes a round trip, and tells whether it is news: the first, or one that differs by half.
func (t *Table) SetRTT(id string, rtt time.Duration) bool {
	p := t.peers[id]
	if p == nil || rtt <= 0 {
		return false
	}
	old := p.RTT
	if old > 0 && rtt < old*3/2 && rtt > old*2/3 {
		return false // kept as it was told, so that slow drift is news in the end
	}
	p.RTT = rtt
	return true
}

// Unreachable says that a peer that was connected cannot be dialled any more.
func (t *Table) Unreachable(id string) bool {
	p := t.peers[id]
	if p == nil || p.State != Available || p.Connected {
		return false
	}
	t.setState(p, Unavailable)
	return true
}

// Versions are those of up to limit peers that are available, by id. Of another one it is news that somebody holds it available.
func (t *Table) Versions(limit int) map[string]uint64 {
	out := make(map[string]uint64, min(limit, len(t.peers)))
	for id, p := range t.peers {
		if len(out) == limit {
			break
		}
		if p.State == Available && p.Vouched {
			out[id] = p.Version
		}
	}
	return out
}

// Sample draws up to limit peers that are available, vouched for, offer one of the types and are wanted.
func (t *Table) Sample(limit int, types []string, wanted func(*Peer) bool) []Peer {
	var fit []*Peer
	for _, p := range t.peers {
		if p.State == Available && p.Vouched && p.Has(types...) && wanted(p) {
			fit = append(fit, p)
		}
	}
	rand.Shuffle(len(fit), func(i, j int) { fit[i], fit[j] = fit[j], fit[i] })
	out := make([]Peer, 0, min(limit, len(fit)))
	for _, p := range fit[:min(limit, len(fit))] {
		out = append(out, *p)
	}
	return out
}

// Missing returns the peers that are not connected and not known to be there.
func (t *Table) Missing() []Peer {
	var out []Peer
	for _, p := range t.peers {
		if !p.Connected && p.State != Available {
			out = append(out, *p)
		}
	}
	return out
}

// Unseen draws a peer that is no neighbour, is taken to be available, and was not heard of since a time.
func (t *Table) Unseen(since time.Time, ready func(id string) bool) (Peer, bool) {
	var found *Peer
	n := 0
	for id, p := range t.peers {
		if p.State != Available || p.Connected || !p.LastSeen.Before(since) || !ready(id) {
			continue
		}
		if n++; rand.IntN(n) == 0 {
			found = p
		}
	}
	if found == nil {
		return Peer{}, false
	}
	return *found, true
}

// ToDial draws up to n peers to connect to, those that are available before the others.
func (t *Table) ToDial(n int, ready func(id string) bool) []Peer {
	var good, rest []Peer
	for id, p := range t.peers {
		if p.Connected || !ready(id) {
			continue
		}
		if p.State == Available {
			good = append(good, *p)
		} else {
			rest = append(rest, *p)
		}
	}
	for _, l := range [][]Peer{good, rest} {
		rand.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
	}
	all := append(good, rest...)
	return all[:min(n, len(all))]
}
