package provider

import (
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// A consumer that has acknowledged a small result has it: nobody else is asked to keep it. A large one it has still to fetch.
func TestNobodyKeepsWhatHasArrived(t *testing.T) {
	t.Parallel()
	e := &domain.Entry{TaskID: "0123456789abcdef0123456789abcdef", Consumer: "12D3KooWconsumer", State: domain.Completed, Outcome: &domain.Outcome{},
		Sub: domain.Submission{Attempt: 7, Copies: 1}, Replicas: []domain.Replica{{Peer: "12D3KooWreplica"}}}
	if keyOf(keyName(e.Key())) != e.Key() {
		t.Fatalf("the key %+v comes back as %+v", e.Key(), keyOf(keyName(e.Key())))
	}
	s := &Service{replicas: newReplicator(), cfg: Config{ReplicaDelay: time.Hour}}
	for attach, left := range map[app.Attach]int{app.AttachNone: 1, app.AttachResult: 0} {
		s.replicateLater(e)
		if s.replicas.alarms.Len() != 1 {
			t.Fatalf("%d questions wait", s.replicas.alarms.Len())
		}
		s.received(app.OutboxRow{TaskID: e.TaskID, Attempt: 7, Peer: e.Consumer, Attach: attach})
		if got := s.replicas.alarms.Len(); got != left {
			t.Errorf("with attachment %d, %d questions wait, want %d", attach, got, left)
		}
		s.replicas.forget(e.Key())
	}
	e.Outcome.Cause = domain.CauseProvider
	if s.replicateLater(e); s.replicas.alarms.Len() != 0 {
		t.Error("a provider's own failure is kept")
	}
}
