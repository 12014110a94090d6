package provider

import (
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// guestAway is how long a consumer does not ask again whose task's executor is away.
const guestAway = 5 * time.Second

// guestChanged hears that a guest has come, changed or gone.
func (s *Service) guestChanged() {
	s.described.Add(1)
	s.mu.Lock()
	s.pump()
	s.mu.Unlock()
	s.watch.Tell(queueKey)
}

// Description is another number when Describe says something else.
func (s *Service) Description() uint64 { return s.described.Load() }

// absent says why a type cannot be run now, although there is an executor for it: it is away, or needs more than the policy grants.
func (s *Service) absent(taskType string, c *app.Capability) *refusal {
	g := s.guests[taskType]
	if g == nil {
		return nil
	}
	if _, here := g.Present(); !here {
		return &refusal{Reason: "TYPE_UNAVAILABLE", Message: "the executor of the task type " + quote(taskType) + " is away", RetryAfter: guestAway}
	}
	if most := s.cfg.Policy.Limits.Max.Memory; c.MinMemory > most {
		return &refusal{Reason: "TYPE_UNAVAILABLE", Message: "the task type " + quote(taskType) + " needs " + domain.Bytes(c.MinMemory) +
			" of memory, and this provider grants at most " + domain.Bytes(most)}
	}
	return nil
}

// enough raises a memory limit that was left open to what the executor needs, or says that the one that was asked for is too low.
func enough(c *app.Capability, asked domain.Limits, granted *domain.Limits) *refusal {
	if c.MinMemory <= granted.Memory {
		return nil
	}
	if asked.Memory > 0 {
		return &refusal{Reason: "LIMITS_TOO_LOW", Message: "the limit of memory is " + domain.Bytes(asked.Memory) + ", and the task type " + quote(c.Type) +
			" needs " + domain.Bytes(c.MinMemory) + ": ask for more, or for none"}
	}
	granted.Memory = c.MinMemory
	return nil
}

// next takes the attempt that runs next out of the queue: the first of the consumer whose turn it is, those left out that have to wait for a guest
// that is full. Nil when there is none. s.mu is held.
func (s *Service) next() *held {
	at := -1
	for i, h := range s.queue {
		if g := s.guests[h.taskType]; g != nil {
			if width, _ := g.Present(); s.visits[h.taskType] >= width {
				continue
			}
		}
		if at < 0 || s.turns.before(h.key.Consumer, s.queue[at].key.Consumer) {
			at = i
		}
		if len(s.perPeer) == 1 { // nobody else waits
			break
		}
	}
	if at < 0 {
		return nil
	}
	h := s.queue[at]
	if s.guests[h.taskType] != nil {
		s.visits[h.taskType]++
	}
	s.turns.began(h.key.Consumer)
	if at == 0 {
		s.queue[0] = nil
		s.queue = s.queue[1:]
	} else {
		s.queue = append(s.queue[:at:at], s.queue[at+1:]...)
	}
	return h
}

// leave gives back what next took for a run. s.mu is held.
func (s *Service) leave(h *held) {
	s.running--
	s.turns.ended(h.key.Consumer)
	if t := h.taskType; s.guests[t] != nil {
		s.visits[t]--
	}
}
