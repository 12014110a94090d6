package domain

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// DirectoryLimits bound a Directory. The zero value takes the defaults.
type DirectoryLimits struct {
	Size     int     // providers in view; 256, never below 128
	Patience float64 // stated intervals without a word until a provider is unavailable; 3
	Forget   float64 // the same until it is forgotten; 12
	Decay    time.Duration
}

// minView is the least that a view may be bounded to.
const minView = 128

// Directory is a consumer's view of the providers, learned from their announcements. Freshness is judged by the interval
// that each states, stretched to how often this node asks at all. Not safe for concurrent use.
type Directory struct {
	limits DirectoryLimits
	rows   map[string]*row
	view   []*Provider // the rows' providers, in no order
	asking time.Duration
	placed map[string]placement // this node's own unfinished tasks, by id
}

type row struct {
	Provider
	index     int       // in view
	heard     time.Time // the last sign of life: what it said itself, or a newer version through others
	suspect   time.Time // until then not even news through others clears it of suspicion
	suspected int       // times in a row that it could not be reached
	penalty   float64
	penaltyAt time.Time
	nonce     []byte // of its price
}

type placement struct {
	peer string
	at   time.Time
}

// maxPlaced bounds the tasks whose provider is remembered; past it placement only knows less.
const maxPlaced = 1 << 16

// NewDirectory makes an empty one.
func NewDirectory(l DirectoryLimits) *Directory {
	if l.Size <= 0 {
		l.Size = 256
	}
	l.Size = max(l.Size, minView)
	if l.Patience <= 0 {
		l.Patience = 3
	}
	if l.Forget <= l.Patience {
		l.Forget = 4 * l.Patience
	}
	if l.Decay <= 0 {
		l.Decay = 5 * time.Minute
	}
	return &Directory{limits: l, rows: map[string]*row{}, placed: map[string]placement{}}
}

// Change is what an announcement did to the view.
type Change int

// Changes.
const (
	Nothing Change = iota // old, or not kept
	Renewed               // a newer version of a known provider
	Learned               // a provider that was not known, or was not available
)

// Hear takes an announcement that has been checked. direct: its author itself handed it over.
func (d *Directory) Hear(a Announcement, direct bool, now time.Time) Change {
	r := d.rows[a.PeerID]
	if r == nil {
		if a.Leaving {
			return Nothing
		}
		if len(d.rows) >= d.limits.Size && !d.evict(direct, now) {
			return Nothing
		}
		r = &row{Provider: Provider{Announcement: a, FirstSeen: now}, index: len(d.view)}
		d.rows[a.PeerID] = r
		d.view = append(d.view, &r.Provider)
		d.alive(r, now)
		return Learned
	}
	newer := a.Version > r.Version
	was := r.State
	if newer {
		r.Announcement = a
		if !now.Before(r.suspect) {
			r.suspected = 0
		}
	}
	if direct {
		r.suspected, r.suspect = 0, time.Time{}
	}
	if newer || direct {
		d.alive(r, now)
	}
	switch {
	case was != StateAvailable && r.State == StateAvailable:
		return Learned
	case newer:
		return Renewed
	}
	return Nothing
}

// Vouch notes that a peer has told of a provider. What a provider says of itself does not count.
func (d *Directory) Vouch(peer, by string) {
	r := d.rows[peer]
	if r == nil || by == "" || by == peer || r.seenBy[0] == by {
		return
	}
	if r.seenBy[0] == "" {
		r.seenBy[0] = by
	} else {
		r.seenBy[1] = by
	}
}

// Name notes that the user has named a provider.
func (d *Directory) Name(peer string) {
	if r := d.rows[peer]; r != nil {
		r.Named = true
	}
}

// Contact notes a sign of life that came from the provider itself.
func (d *Directory) Contact(peer string, now time.Time) {
	if r := d.rows[peer]; r != nil {
		r.suspected, r.suspect = 0, time.Time{}
		d.alive(r, now)
	}
}

// SetConnected notes whether a connection to the peer stands.
func (d *Directory) SetConnected(peer string, on bool, now time.Time) {
	r := d.rows[peer]
	if r == nil {
		return
	}
	r.Connected = on
	if on {
		r.suspected, r.suspect = 0, time.Time{}
		d.judge(r, now)
	}
}

// SetPrice notes what a provider has said itself that a submission costs there now. A nonce of another length is none.
func (d *Directory) SetPrice(peer string, effort uint32, nonce []byte) {
	if r := d.rows[peer]; r != nil && ValidEffort(effort) {
		r.Effort, r.nonce = effort, nil
		if len(nonce) == NonceSize {
			r.nonce = nonce
		}
	}
}

// Nonce is that of the price that a provider has said last; nil where it has said none.
func (d *Directory) Nonce(peer string) []byte {
	if r := d.rows[peer]; r != nil {
		return r.nonce
	}
	return nil
}

// SetRTT notes the round trip to a connected peer.
func (d *Directory) SetRTT(peer string, rtt time.Duration) {
	if r := d.rows[peer]; r != nil {
		r.RTT = rtt
	}
}

// Suspect notes that a provider could not be reached: it is unavailable until it is, or has spoken, or, after a while
// that is longer each time in a row, others have heard news of it.
func (d *Directory) Suspect(peer string, now time.Time) {
	r := d.rows[peer]
	if r == nil {
		return
	}
	r.suspected++
	r.suspect = now.Add(Backoff{First: 2 * time.Second, Max: time.Minute}.After(r.suspected, func() float64 { return 0.5 }))
	d.judge(r, now)
}

// SetLoad takes a provider's newest metric; older versions are ignored.
func (d *Directory) SetLoad(peer string, l Load, now time.Time) bool {
	r := d.rows[peer]
	if r == nil || r.Load != nil && r.Load.Version > l.Version {
		return false
	}
	r.Load = &l
	r.PlacedSince = 0
	for _, p := range d.placed {
		if p.peer == peer && p.at.After(l.At) {
			r.PlacedSince++
		}
	}
	d.Contact(peer, now)
	return true
}

// Placed notes that a task of this node's is at a provider now; before it may have been at another.
func (d *Directory) Placed(task, peer string, now time.Time) {
	if old, ok := d.placed[task]; ok {
		if old.peer == peer {
			return
		}
		d.Finished(task)
	}
	if len(d.placed) >= maxPlaced {
		return
	}
	d.placed[task] = placement{peer, now}
	if r := d.rows[peer]; r != nil {
		r.Placed++
		r.PlacedSince++
	}
}

// Finished notes that a task is no longer at its provider.
func (d *Directory) Finished(task string) {
	p, ok := d.placed[task]
	if !ok {
		return
	}
	delete(d.placed, task)
	if r := d.rows[p.peer]; r != nil {
		r.Placed = max(r.Placed-1, 0)
		if r.Load != nil && p.at.After(r.Load.At) {
			r.PlacedSince = max(r.PlacedSince-1, 0)
		}
	}
}

// At is where this node's task is, as far as it is remembered.
func (d *Directory) At(task string) string { return d.placed[task].peer }

// What is held against a provider, in tasks, and the most that each kind comes to.
const (
	faultWeight, mostFaults     = 4, 32
	refusalWeight, mostRefusals = 1, 4
)

// Penalise notes a fault of the provider's own: it counts as a few tasks of work, and decays.
func (d *Directory) Penalise(peer string, now time.Time) { d.hold(peer, faultWeight, mostFaults, now) }

// Refused notes that a provider has refused a task. That is its right, so many refusals come to one fault; but one that says that it is idle
// and refuses again and again must look no better than one that works.
func (d *Directory) Refused(peer string, now time.Time) {
	d.hold(peer, refusalWeight, mostRefusals, now)
}

func (d *Directory) hold(peer string, weight, most float64, now time.Time) {
	r := d.rows[peer]
	if r == nil {
		return
	}
	held := d.decayed(r, now)
	r.penalty = max(held, min(held+weight, most))
	r.penaltyAt = now
	r.Penalty = r.penalty
}

func (d *Directory) decayed(r *row, now time.Time) float64 {
	if r.penalty == 0 {
		return 0
	}
	return r.penalty * math.Exp2(-now.Sub(r.penaltyAt).Seconds()/d.limits.Decay.Seconds())
}

// SetAsking says how often this node asks for news: nobody can look fresher than that.
func (d *Directory) SetAsking(every time.Duration) { d.asking = every }

func (d *Directory) alive(r *row, now time.Time) {
	r.heard, r.LastSeen = now, now
	d.judge(r, now)
}

func (d *Directory) judge(r *row, now time.Time) {
	r.Suspected = r.suspected > 0
	switch {
	case r.Leaving:
		r.State = StateLeaving
	case r.Suspected, !d.within(r, d.limits.Patience, now):
		r.State = StateUnavailable
	default:
		r.State = StateAvailable
	}
}

func (d *Directory) within(r *row, times float64, now time.Time) bool {
	span := max(r.Interval, d.asking)
	return now.Sub(r.heard) <= time.Duration(times*float64(span))
}

// Sweep judges everybody again, and forgets who was not heard of for long. It returns how many are available and who
// was forgotten. Loads that are too old are dropped.
func (d *Directory) Sweep(now time.Time) (available int, forgotten []string) {
	for id, r := range d.rows {
		if !d.within(r, d.limits.Forget, now) || r.Leaving && !d.within(r, d.limits.Patience, now) {
			forgotten = append(forgotten, id)
			d.remove(r)
			continue
		}
		d.judge(r, now)
		if r.State == StateAvailable {
			available++
		}
		if r.Load != nil && now.Sub(r.Load.At) > time.Duration(d.limits.Patience*float64(max(r.Load.Interval, d.asking))) {
			r.Load = nil
		}
		if r.Penalty = d.decayed(r, now); r.Penalty < 0.1 {
			r.penalty, r.Penalty = 0, 0
		}
	}
	return available, forgotten
}

func (d *Directory) remove(r *row) {
	last := d.view[len(d.view)-1]
	d.view[r.index] = last
	d.rows[last.PeerID].index = r.index
	d.view[len(d.view)-1] = nil
	d.view = d.view[:len(d.view)-1]
	delete(d.rows, r.PeerID)
}

// turn is for how long whoever is available stays in a full view at least. Where providers announce themselves every few hours, that others have
// heard of one lately is what tells that it is there; whether it is, it is asked before it gets a task.
const turn = 10 * time.Minute

// evict makes room for a newcomer. Whoever has a connection or a task of ours stays; of the others goes the one that has
// been silent longest, but hearsay alone (direct false) displaces nobody who is available and whose turn is not over: a stranger must not be
// able to fill the view with inventions at once.
func (d *Directory) evict(direct bool, now time.Time) bool {
	var victim *row
	for _, r := range d.rows {
		d.judge(r, now)
		if r.Connected || r.Placed > 0 || !direct && r.State == StateAvailable && now.Sub(r.heard) <= turn {
			continue
		}
		if victim == nil || less(r, victim) {
			victim = r
		}
	}
	if victim == nil {
		return false
	}
	d.remove(victim)
	return true
}

func less(a, b *row) bool {
	if av, bv := a.State == StateAvailable, b.State == StateAvailable; av != bv {
		return bv
	}
	return a.heard.Before(b.heard)
}

// View is every provider, in no order. It is this directory's own: not to be kept or changed.
func (d *Directory) View() []*Provider { return d.view }

// Get finds one; nil when it is not known.
func (d *Directory) Get(peer string) *Provider {
	if r := d.rows[peer]; r != nil {
		return &r.Provider
	}
	return nil
}

// List copies those that keep wants, by peer id, after the given one, limit at most; more tells whether there are others.
func (d *Directory) List(after string, limit int, keep func(*Provider) bool) (out []Provider, more bool) {
	var found []*Provider
	for _, p := range d.view {
		if p.PeerID > after && keep(p) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b *Provider) int { return cmp.Compare(a.PeerID, b.PeerID) })
	if len(found) > limit {
		found, more = found[:limit], true
	}
	for _, p := range found {
		out = append(out, *p)
	}
	return out, more
}
