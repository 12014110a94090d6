// Package delivery hands events to consumer groups: each event to one member of every group that wants it. It decides and remembers;
// time is told to it, and what is to be done it tells its Sink.
//
// Directed events of one sender form a lane: they go to one member, the lane's holder, in the order of their arrival, until that member
// leaves, lets one run out of time, or asks for one to be delivered again; then another takes the lane over. Gossip has a lane per topic without a holder: any member with
// room takes the next, and when all are slow the oldest are dropped.
package delivery

import (
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// Item is one event on its way to the groups. The first six fields are the caller's to set.
type Item struct {
	Persona string
	Sender  string // the peer it came from
	Topic   string // empty: directed
	Type    event.Type
	Size    int // bytes
	Value   any // not looked at

	open    int // groups that have not finished it
	applied int // groups for which it was of use
	outcome event.Outcome
}

// Useful tells whether any group has applied the item.
func (i *Item) Useful() bool { return i.applied > 0 }

// Verdict is what a service makes of a delivery.
type Verdict uint8

// Verdicts.
const (
	Applied Verdict = iota
	Ignored
	Refused
	Retry
	Misconduct // refused, and no mistake
)

// String is for counting.
func (v Verdict) String() string {
	switch v {
	case Applied:
		return "applied"
	case Ignored:
		return "ignored"
	case Refused:
		return "rejected"
	case Misconduct:
		return "misconduct"
	}
	return "retry"
}

// Drop says why gossip was let go.
type Drop string

// Reasons to let gossip go. Directed events are never dropped: they end with an outcome.
const (
	DropNoSubscriber Drop = "no_subscriber"
	DropOverflow     Drop = "overflow"
	DropTimeout      Drop = "timeout"
)

// Sink does what the Hub decides. Its methods are called from within the Hub's and must neither block nor call the Hub.
type Sink interface {
	// Deliver hands an item to a member.
	Deliver(m *Member, id uint64, item *Item, redelivered bool)
	// Done tells the outcome of a directed event, once.
	Done(item *Item, o event.Outcome)
	// Dropped tells that a group has let gossip go.
	Dropped(item *Item, why Drop)
}

// Config bounds a Hub; the zero value of a field takes its default.
type Config struct {
	Linger     time.Duration // how long events wait for a group's first or next member; default 5 s
	RetryFirst time.Duration // before an event that a member asked for again comes back, doubling; default 50 ms
	RetryMost  time.Duration // the longest such wait; default 2 s
	RetryFor   time.Duration // after which such an event ends; default 2 min
	Parked     int           // events that wait for a group; default 1024
	Gossip     int           // events that a gossip lane holds; default 1024
	GossipSize int           // the same in bytes; default 8 MiB
	IdleLanes  int           // senders of a group whose holder is remembered while nothing is on its way; default 4096
}

func (c *Config) defaults() {
	set(&c.Linger, 5*time.Second)
	set(&c.RetryFirst, 50*time.Millisecond)
	set(&c.RetryMost, 2*time.Second)
	set(&c.RetryFor, 2*time.Minute)
	set(&c.Parked, 1024)
	set(&c.Gossip, 1024)
	set(&c.GossipSize, 8<<20)
	set(&c.IdleLanes, 4096)
}

func set[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Filter is what a member wants.
type Filter struct {
	Topics []string
	Types  []event.Type // of directed events
}

// Member is one subscription. Its fields are the Hub's.
type Member struct {
	Value any // the caller's

	group      *group
	topics     map[string]bool
	types      map[event.Type]bool
	max        int
	ackTimeout time.Duration

	inFlight map[uint64]*delivery
	gossip   int     // of those in flight
	order    []due   // hand-overs by deadline; those that ended are skipped
	lanes    int     // held
	waiting  []*lane // with something for this member, in turn
	gone     bool
}

type due struct {
	id uint64
	at time.Time
}

// delivery is an item in one group.
type delivery struct {
	item        *Item
	id          uint64 // of the present hand-over; 0 while it waits
	lane        *lane
	member      *Member
	first       time.Time // when a member first asked for it again
	retries     int
	redelivered bool
}

type laneKey struct{ persona, sender, topic string }

type lane struct {
	key       laneKey
	group     *group
	holder    *Member
	queue     []*delivery
	queued    int // bytes of what is in queue
	inFlight  int
	waiting   bool      // in some waiting list
	notBefore time.Time // nothing is handed over until then
}

type group struct {
	name    string
	members []*Member
	lanes   map[laneKey]*lane
	waiting []*lane   // gossip lanes with something for any member
	until   time.Time // when a group without members gives up
	topics  map[string]bool
	types   map[event.Type]bool // what its last member wanted, for as long as it lingers
}

func (m *Member) wants(item *Item) bool {
	if item.Topic != "" {
		return m.topics[item.Topic]
	}
	return m.types[item.Type]
}

func (g *group) wants(item *Item) bool {
	for _, m := range g.members {
		if m.wants(item) {
			return true
		}
	}
	if len(g.members) > 0 {
		return false
	}
	if item.Topic != "" {
		return g.topics[item.Topic]
	}
	return g.types[item.Type]
}

// room tells whether a member may have one more. Gossip may fill half of what a member takes at once, so that a flood of it never keeps
// directed events waiting.
func (m *Member) room(item *Item) bool {
	if len(m.inFlight) >= m.max {
		return false
	}
	return item.Topic == "" || m.gossip < (m.max+1)/2
}
