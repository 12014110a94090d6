// Package conduct keeps what is held against each peer. Points fade with time; a peer that collects too many is to be cut off for
// a while, for longer each time that it comes back and goes on.
package conduct

import "time"

// Offence is something that a well-behaved node does not do.
type Offence struct {
	Name   string
	Points float64
	Free   float64 // as many a minute are not held against a peer
}

// The offences and what they weigh. Honest nodes never send garbage, so two such streams are a mistake and ten are an attack;
// repeats and unknown types are normal after a broken stream or an upgrade, in moderation.
var (
	Garbage   = Offence{Name: "garbage", Points: 20}
	Forged    = Offence{Name: "forged", Points: 20}
	Malformed = Offence{Name: "malformed", Points: 10}
	Refused   = Offence{Name: "rejected", Points: 2, Free: 10}
	// Cheated is what a service says is no mistake, such as work that is claimed and was not done.
	Cheated     = Offence{Name: "cheated", Points: Limit}
	Repeated    = Offence{Name: "repeated", Points: 0.1, Free: 600}
	Unknown     = Offence{Name: "unknown_type", Points: 0.1, Free: 600}
	Overrunning = Offence{Name: "overrun", Points: 5}

	// Useless is an event that a service has ignored: a repeat, or about a task that is not here. After a crash or a cancel there are some.
	Useless = Offence{Name: "useless", Points: 0.1, Free: 600}
	// Hurried is a question that came faster than anybody has to ask, and waited. The free ones are two seconds at the full rate.
	Hurried = Offence{Name: "hurried", Points: 0.5, Free: 400}
	// Stalled is a frame that was begun and not ended. Each takes the receiver's patience of 30 s, in which as many points fade: so a link that fails
	// now and then costs the stream alone, and four stalls on end the connection.
	Stalled = Offence{Name: "stalled", Points: 45}
	// Unread is a write that a peer did not take in time. It may be busy rather than hostile, so six on end, three minutes, are borne.
	Unread = Offence{Name: "unread", Points: 40}
	// Flooding is a second in which a peer sent grossly more than the rates allow, or a thousand messages too many: two on end are no accident.
	Flooding = Offence{Name: "flooding", Points: 46}
	// Graylisted is a gossip score so low that nothing of the peer's is heard any more.
	Graylisted = Offence{Name: "graylisted", Points: Limit}
)

// Limits of the ledger.
const (
	Limit    = 90.0            // points at which a peer is cut off: five streams of garbage within ten seconds
	Fade     = 1.0             // points that fade in a second
	CutOff   = 2 * time.Minute // how long it is cut off the first time; twice as long each time more
	maxTwice = 5               // so 64 minutes at most
	Forgive  = time.Hour       // after which one time is forgotten
	maxPeers = 4096            // peers remembered
	freeSpan = time.Minute     // what Free counts over
	maxKinds = 8               // offences counted apart, as a rule
)

// Ledger is not safe for concurrent use.
type Ledger struct {
	peers map[string]*account
}

type account struct {
	points float64
	at     time.Time
	since  time.Time // start of the span that free counts
	free   map[string]float64
	times  int       // that it was cut off, those that are forgiven not counted
	last   time.Time // when, or when one was forgiven
}

// NewLedger makes an empty one.
func NewLedger() *Ledger { return &Ledger{peers: make(map[string]*account)} }

// Charge holds an offence against a peer and tells for how long it is to be cut off, when that was one too many; else 0. The points are
// gone then, for being cut off is the price; how often it was is kept.
func (l *Ledger) Charge(peer string, o Offence, now time.Time) (cutOff time.Duration) {
	a := l.account(peer, now)
	a.points = max(0, a.points-Fade*now.Sub(a.at).Seconds())
	a.at = now
	if o.Free > 0 {
		if now.Sub(a.since) > freeSpan {
			a.since = now
			clear(a.free)
		}
		if a.free == nil {
			a.free = make(map[string]float64, maxKinds)
		}
		a.free[o.Name]++
		if a.free[o.Name] <= o.Free {
			return 0
		}
	}
	a.points += o.Points
	if a.points < Limit {
		return 0
	}
	a.forgive(now)
	cutOff = CutOff << min(a.times, maxTwice)
	a.points, a.since, a.free, a.last = 0, now, nil, now
	a.times++
	return cutOff
}

// forgive forgets one time for every Forgive that has passed since the last.
func (a *account) forgive(now time.Time) {
	if n := int(now.Sub(a.last) / Forgive); a.times > 0 && n > 0 {
		a.times = max(0, a.times-n)
		a.last = a.last.Add(time.Duration(n) * Forgive)
	}
}

// Points are what is held against a peer now.
func (l *Ledger) Points(peer string, now time.Time) float64 {
	a, ok := l.peers[peer]
	if !ok {
		return 0
	}
	return max(0, a.points-Fade*now.Sub(a.at).Seconds())
}

func (l *Ledger) account(peer string, now time.Time) *account {
	if a, ok := l.peers[peer]; ok {
		return a
	}
	if len(l.peers) >= maxPeers {
		l.forget(now)
	}
	a := &account{at: now, since: now}
	l.peers[peer] = a
	return a
}

// forget makes room for one: of a few accounts, chosen by the map's own chance, it drops those that have faded and were not cut off lately, and the
// lightest when none has. Identities are free, so those who flood the ledger with them must neither grow it nor make each of them costly.
func (l *Ledger) forget(now time.Time) {
	const sample = 32
	var lightest string
	least, seen := 0.0, 0
	for p, a := range l.peers {
		a.forgive(now)
		points := a.points - Fade*now.Sub(a.at).Seconds() + Limit*float64(a.times)
		if points <= 0 {
			delete(l.peers, p)
		} else if lightest == "" || points < least {
			lightest, least = p, points
		}
		if seen++; seen == sample {
			break
		}
	}
	if len(l.peers) >= maxPeers {
		delete(l.peers, lightest)
	}
}
