package app

import (
	"context"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// TestPersonasLearnThePrice: what a provider asks for goes with the candidate as it told the very persona, and what is no puzzle makes it no candidate.
func TestPersonasLearnThePrice(t *testing.T) {
	for name, c := range map[string]struct {
		puzzle *eventv1.Puzzle
		placed bool
	}{
		"no price":             {nil, true},
		"nothing to pay now":   {&eventv1.Puzzle{Nonce: make([]byte, 16)}, true},
		"a price":              {&eventv1.Puzzle{Nonce: make([]byte, 16), Effort: 64}, true},
		"a price of no nonce":  {&eventv1.Puzzle{Effort: 64}, false},
		"an effort that is no": {&eventv1.Puzzle{Nonce: make([]byte, 16), Effort: 63}, false},
		"more than there is":   {&eventv1.Puzzle{Nonce: make([]byte, 16), Effort: 1 << 31}, false},
	} {
		t.Run(name, func(t *testing.T) {
			masked(t, PersonasConfig{}, func(t *testing.T, m *masquerade, p *Personas) {
				m.set(func() { m.puzzle = c.puzzle })
				got, why := p.Place(t.Context(), &domain.Need{TaskID: "1", Type: "sum"})
				if (got != nil) != c.placed || !proto.Equal(got.GetPuzzle(), map[bool]*eventv1.Puzzle{true: c.puzzle}[c.placed]) {
					t.Errorf("the candidate is %v (%s)", got, why.Detail)
				}
			})
		})
	}
}

// surroundings count who looks for candidates; everything is taken.
type surroundings struct{ times int }

func (*surroundings) OwnMetric() *eventv1.Metric { return nil }
func (*surroundings) OwnPeerID() string          { return "12D3KooWself" }
func (s *surroundings) Candidates(context.Context, *domain.Need) []*taskv1.Candidate {
	s.times++
	return nil
}
func (*surroundings) Deliver(context.Context, *taskv1.DeliverEvent) (*taskv1.Delivered, error) {
	return &taskv1.Delivered{Verdict: uint32(brokerv1.Verdict_VERDICT_MISCONDUCT), Reason: "PUZZLE_INVALID"}, nil
}

// TestSubmissionsThatStayCostNoQuestion: for a task that its consumer does not let others have, nobody is looked for. And the verdict goes to the broker as it is.
func TestSubmissionsThatStayCostNoQuestion(t *testing.T) {
	for redirect, want := range map[bool]int{false: 0, true: 1} {
		s := &surroundings{}
		b, _ := proto.Marshal(&eventv1.TaskSubmission{TaskId: "0123456789abcdef0123456789abcdef", Type: "sum", Redirect: redirect})
		v := NewDeliverer(s, s, nil, slog.New(slog.DiscardHandler)).Handle(t.Context(), &brokerv1.Delivery{FromPeer: "12D3KooWother",
			Event: &eventv1.Event{Type: eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, Payload: b}})
		if s.times != want || v != (Verdict{brokerv1.Verdict_VERDICT_MISCONDUCT, "PUZZLE_INVALID"}) {
			t.Errorf("redirect %v: others were looked for %d times, and the verdict is %v", redirect, s.times, v)
		}
	}
}

// TestAPriceIsAskedForAgain: a task that was turned away for its price hears of the new one, and one that has left for another reason needs not.
func TestAPriceIsAskedForAgain(t *testing.T) {
	masked(t, PersonasConfig{}, func(t *testing.T, m *masquerade, p *Personas) {
		need := &domain.Need{TaskID: "1", Type: "sum"}
		for _, c := range []struct {
			why  string
			want int
		}{{"", 1}, {"QUEUE_FULL", 1}, {"PUZZLE_REQUIRED", 2}, {"", 2}} {
			if c.why != "" {
				p.TaskLeft("1", map[string]string{m.key.ID: c.why})
			}
			p.TaskLeft("another", map[string]string{m.key.ID: "PUZZLE_REQUIRED"})
			place(t, p, need)
			if got := m.count(); got != c.want {
				t.Errorf("after %q the provider was met %d times, want %d", c.why, got, c.want)
			}
		}
	})
}
