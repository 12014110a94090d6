package wire

import (
	"strings"
	"testing"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// TestWhatIsNoPrice: a payment of another length or of an effort that cannot be, and a puzzle without a nonce or of such an effort, make their events none.
func TestWhatIsNoPrice(t *testing.T) {
	for name, pay := range map[string][]byte{"short": make([]byte, 32), "long": make([]byte, 34), "of days": append([]byte{26}, make([]byte, 32)...)} {
		b := encode(&eventv1.TaskSubmission{TaskId: id, Attempt: 1, Type: "sum", ResultRecipient: "age1pq", PayloadHash: make([]byte, 32), Puzzle: pay})
		if _, err := (Codec{}).Decode(domain.TypeSubmission, b); err == nil || !strings.Contains(err.Error(), "puzzle") {
			t.Errorf("a payment that is %s: %v", name, err)
		}
	}
	for name, p := range map[string]*eventv1.Puzzle{"no nonce": {Effort: 16}, "a short nonce": {Nonce: make([]byte, 15)}, "three": {Nonce: make([]byte, 16), Effort: 3},
		"too much": {Nonce: make([]byte, 16), Effort: 1 << 25}} {
		b := encode(&eventv1.TaskRefused{TaskId: id, Attempt: 1, Reason: "PUZZLE_REQUIRED", Puzzle: p})
		if _, err := (Codec{}).Decode(domain.TypeRefused, b); err == nil || !strings.Contains(err.Error(), "puzzle") {
			t.Errorf("a puzzle with %s: %v", name, err)
		}
	}
}
