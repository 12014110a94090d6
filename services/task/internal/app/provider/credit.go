package provider

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/kit/bounded"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// What one consumer may cost without anything coming of it. A refusal is an event to be sent, and a payload that cannot be opened a slot and a commit;
// an honest consumer gets some of the first in a burst and hardly ever one of the second. Beyond, a submission is rejected without another
// word, which its sender's broker is told, and this node's broker holds against it.
const (
	refusalsPerSecond = 100
	refusalsBurst     = 2000
	faultsPerSecond   = 1
	faultsBurst       = 60
	maxCredits        = 1024 // consumers that are remembered
)

// credit is what one consumer has left.
type credit struct {
	submissions, refusals, faults *rate.Limiter
}

// credits are those of all consumers. It is safe for concurrent use.
type credits struct {
	perSecond int

	mu sync.Mutex
	of *bounded.Map[string, *credit]
}

func newCredits(perSecond int) *credits {
	return &credits{perSecond: perSecond, of: bounded.New[string, *credit](maxCredits)}
}

func (c *credits) get(consumer string) *credit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of.GetOrMake(consumer, func() *credit {
		return &credit{
			submissions: rate.NewLimiter(rate.Limit(c.perSecond), 2*c.perSecond),
			refusals:    rate.NewLimiter(refusalsPerSecond, refusalsBurst),
			faults:      rate.NewLimiter(faultsPerSecond, faultsBurst),
		}
	})
}

// fault counts a submission that no honest consumer makes. What another provider has handed on counts for nothing: that one chose this provider and sealed
// the payload's key to it, so it could use up the credit of a consumer that has done nothing wrong.
func (c *credits) fault(consumer string, path []string) {
	if len(path) == 0 {
		c.get(consumer).faults.Allow()
	}
}

// faulty are the refusals that say that the submission should not have been made: who a provider runs tasks for and what it grants is announced, or said with
// the first refusal.
var faulty = map[string]bool{"PEER_NOT_ALLOWED": true, "LIMITS_TOO_HIGH": true, "PAYLOAD_TOO_LARGE": true}

// tooMuch is the answer to a submission of a consumer that has no credit left; false: it has. What another provider has handed on is never rejected for
// its consumer's sake: it is that one's broker that would be told.
func (s *Service) tooMuch(o *offer) (app.Reply, bool) {
	c := s.credits.get(o.consumer)
	direct := len(o.path) == 0
	if direct && c.faults.Tokens() < 1 {
		return verdict(app.Rejected, "TOO_MANY_FAULTS"), true
	}
	if c.submissions.Allow() {
		return app.Reply{}, false
	}
	return s.refuse(o, &refusal{Reason: "PEER_RATE", Message: "this peer submits faster than it may", RetryAfter: time.Second}), true
}

// spent takes what a refusal costs; false: the consumer has had too many.
func (s *Service) spent(o *offer, no *refusal) bool {
	if faulty[no.Reason] {
		s.credits.fault(o.consumer, o.path)
	}
	return len(o.path) > 0 || s.credits.get(o.consumer).refusals.Allow()
}
