package failclosed

import (
	"slices"
	"testing"
	"time"
)

// recluse is a node whose tor knows one way into the network, a bridge.
const recluse = "recluse"

// A node behind a bridge does what others do, and its tor is connected to nobody else.
func (s *session) bridged(t *testing.T) {
	begin := time.Now()
	s.UpBehind(t, recluse, s.bridge, "provider-2", "--role", "consumer")
	t.Logf("the node was ready after %v", time.Since(begin).Round(100*time.Millisecond))
	s.Want(t, recluse, "6\n", "run", "sum", "1", "2", "3")
	t.Logf("its task was done after %v", time.Since(begin).Round(100*time.Millisecond))
	entries, err := s.Entries(t.Context(), recluse)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Sort(entries); !slices.Equal(slices.Compact(entries), []string{s.bridge.Fingerprint}) {
		t.Errorf("its tor is connected to %v, and the bridge is %s", entries, s.bridge.Fingerprint)
	}
}
