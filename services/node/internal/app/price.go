package app

import (
	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// priced is an announcement with what a submission costs now, as its provider has told a persona on the connection that the task will take. What it has announced to
// everybody may be old, and has no nonce.
func priced(a domain.Announcement, p *eventv1.Puzzle) (domain.Announcement, error) {
	a.Effort, a.Nonce = p.GetEffort(), p.GetNonce()
	if p != nil && (len(a.Nonce) != domain.NonceSize || !domain.ValidEffort(a.Effort)) {
		return a, fault.Unavailable("PUZZLE_INVALID", "the provider asks for a puzzle that is none")
	}
	return a, nil
}

// puzzleOf is what such an announcement asks for; nil for nothing.
func puzzleOf(a *domain.Announcement) *eventv1.Puzzle {
	if len(a.Nonce) == 0 {
		return nil
	}
	return &eventv1.Puzzle{Nonce: a.Nonce, Effort: a.Effort}
}
