package wire

import (
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Puzzle translates what a submission costs; nil for none.
func Puzzle(p *domain.Puzzle) *eventv1.Puzzle {
	if p == nil {
		return nil
	}
	return &eventv1.Puzzle{Nonce: p.Nonce[:], Effort: p.Effort}
}

// FromPuzzle is the reverse; false for what is no puzzle. Of none it makes none.
func FromPuzzle(m *eventv1.Puzzle) (p *domain.Puzzle, ok bool) {
	if m == nil {
		return nil, true
	}
	p = &domain.Puzzle{Effort: m.GetEffort()}
	if len(m.GetNonce()) != len(p.Nonce) || !domain.ValidEffort(p.Effort) {
		return nil, false
	}
	copy(p.Nonce[:], m.GetNonce())
	return p, true
}

func (c *checker) puzzle(m *eventv1.Puzzle) *domain.Puzzle {
	p, ok := FromPuzzle(m)
	if !ok {
		c.fail("puzzle has no nonce of %d bytes, or an effort that is no power of two of at most %d", len(domain.Nonce{}), domain.MaxEffort)
	}
	return p
}
