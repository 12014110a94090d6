package domain

import (
	"strconv"
	"time"
)

// RoleProvider is the only role that announces itself.
const RoleProvider = "provider"

// States of a provider in a view.
const (
	StateAvailable   = "available"
	StateUnavailable = "unavailable" // not heard of in time, or not reached
	StateLeaving     = "leaving"
)

// PeerStates are all of them, for messages.
var PeerStates = []string{StateAvailable, StateUnavailable, StateLeaving}

// Limits bound one execution. Zero means: as the provider's policy says.
type Limits struct {
	Time           time.Duration
	Memory, Output uint64 // bytes
}

// Exceeds says by which limit l is more than max grants, "" when by none.
func (l Limits) Exceeds(most Limits) string {
	switch {
	case most.Time > 0 && l.Time > most.Time:
		return "time limit " + l.Time.String() + ", grants " + most.Time.String()
	case most.Memory > 0 && l.Memory > most.Memory:
		return "memory limit " + bytes(l.Memory) + ", grants " + bytes(most.Memory)
	case most.Output > 0 && l.Output > most.Output:
		return "output limit " + bytes(l.Output) + ", grants " + bytes(most.Output)
	}
	return ""
}

func bytes(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for i < len(units)-1 && n >= 1024 && n%1024 == 0 {
		n, i = n/1024, i+1
	}
	return strconv.FormatUint(n, 10) + " " + units[i]
}

// Capability is one task type that a provider executes.
type Capability struct {
	Type, Version string
	Max           Limits
	Attributes    map[string]string
}

// Announcement is a provider's statement of itself, checked (see Check).
type Announcement struct {
	PeerID       string
	Version      uint64
	Role         string
	Capabilities []Capability
	SealingKey   string
	Addresses    []string // multiaddrs without the /p2p part
	Interval     time.Duration
	Leaving      bool
	// Effort is what a stranger's submission costs, about; of what a provider has handed to a persona it is what it costs now, and Nonce is of that puzzle.
	Effort uint32
	Nonce  []byte
	Signed any // the signed event as it came, to hand on; nothing here looks inside
}

// Capability finds a type; nil when the provider does not execute it.
func (a *Announcement) Capability(typ string) *Capability {
	for i := range a.Capabilities {
		if a.Capabilities[i].Type == typ {
			return &a.Capabilities[i]
		}
	}
	return nil
}

// Load is what a provider has to do, as its newest known metric says.
type Load struct {
	Pending, Running, Slots uint32
	Version                 uint64
	At                      time.Time // when it was received, less its age then
	Interval                time.Duration
	Metric                  any // the metric as it came; nothing here looks inside
}

// Provider is one row of a view.
type Provider struct {
	Announcement
	FirstSeen, LastSeen time.Time
	State               string
	Connected           bool
	Suspected           bool          // it is unavailable because it could not be reached
	RTT                 time.Duration // 0 when not measured
	Load                *Load         // nil when nothing fresh is known
	// Placed counts this node's own unfinished tasks there, and PlacedSince those placed after Load.At: what its metric
	// cannot say yet.
	Placed, PlacedSince int
	// Penalty is for faults of its own, in tasks; it decays.
	Penalty float64
	Named   bool      // by the user, as a bootstrap node
	seenBy  [2]string // peers that have told of it
}

// Vouched tells whether more than one peer can have made it up: it is named by the user, or two others have told of it.
func (p *Provider) Vouched() bool { return p.Named || p.seenBy[1] != "" }

const (
	assumedSlots = 2    // of a provider whose metric is not known
	maxSlots     = 1024 // that are believed: work that this node has given is divided by them
)

// Busy is how much work there is per slot, as far as this node can know. What a provider says of itself makes its work weigh less, never what this
// node holds against it: a liar would claim so many slots that nothing did.
func (p *Provider) Busy() float64 {
	held := p.Penalty / assumedSlots
	if p.Load == nil {
		return float64(p.Placed)/assumedSlots + held
	}
	work := float64(p.Load.Pending) + float64(p.Load.Running) + float64(p.PlacedSince)
	return max(work, float64(p.Placed))/float64(min(max(p.Load.Slots, 1), maxSlots)) + held
}
