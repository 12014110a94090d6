package app

import (
	"strings"

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

// TaskLeft hears that a task has left its provider, with those that it must not go to for a while and why. What one of them has said of its price holds no more when it
// wants another: the task's persona asks it again.
func (p *Personas) TaskLeft(task string, excluded map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who := p.byTask[task]
	if who == nil {
		return
	}
	for peer, why := range excluded {
		if strings.HasPrefix(why, "PUZZLE_") {
			delete(who.met, peer)
		}
	}
}
