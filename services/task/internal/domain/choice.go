package domain

import "strings"

// Choice is how a provider was chosen for an attempt, or why none was, as node says it. It is never changed.
type Choice struct {
	Because    string       `json:"because,omitempty"` // UPPER_SNAKE
	Considered []Considered `json:"considered,omitempty"`
	Known      uint32       `json:"known,omitempty"` // providers that were looked at
	Qualified  uint32       `json:"qualified,omitempty"`
}

// Considered is a provider that was looked at.
type Considered struct {
	Peer    string `json:"peer"`
	Cost    int64  `json:"cost,omitempty"` // thousandths of a round of work
	Verdict string `json:"verdict"`        // UPPER_SNAKE
	Reason  string `json:"reason,omitempty"`
}

// Bounds of a Choice: it is kept with the task.
const (
	MaxConsidered = 18
	maxWord       = 32
	maxReason     = 160
)

// Bounded is the choice within its bounds.
func (c *Choice) Bounded() *Choice {
	if c == nil {
		return nil
	}
	out := &Choice{Because: cutAt(c.Because, maxWord), Known: c.Known, Qualified: c.Qualified}
	for _, x := range c.Considered[:min(len(c.Considered), MaxConsidered)] {
		if ValidPeer(x.Peer) {
			out.Considered = append(out.Considered, Considered{Peer: x.Peer, Cost: x.Cost, Verdict: cutAt(x.Verdict, maxWord), Reason: cutAt(x.Reason, maxReason)})
		}
	}
	return out
}

func cutAt(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
