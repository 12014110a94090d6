package hostile

import (
	"context"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/hostile"
)

// TestStrangers: identities that cost nothing flood the only provider with submissions that nobody pays for. It asks for a price, an honest consumer pays and gets its
// work done, and whoever says that it has paid and has not is cut off at once.
func TestStrangers(t *testing.T) {
	for key, value := range map[string]string{"MODE": "on", "RATE": "20"} {
		t.Setenv("SHALLOT_TASK_PROVIDER_PUZZLE_"+key, value)
	}
	n, consumer := start(t, 1)
	victim := address(t, n, "provider-1")
	if err := sumOf(t.Context(), consumer, 1, 2); err != nil {
		t.Fatalf("before anything happens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var flood hostile.Strangers
	over := make(chan struct{})
	go func() {
		defer close(over)
		flood.Flood(ctx, victim, 4)
	}()
	eventually(t, patience, "strangers are asked for a price", func() bool { return flood.Effort() > 0 })
	h := work(t, consumer, 2)
	eventually(t, time.Minute, "honest work is done beside it", func() bool { return h.done.Load() >= 20 || h.failed.Load() > 0 })
	cheat := enemy(t, victim, false)
	within, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if err := cheat.Cheat(within); err != nil {
		t.Errorf("the cheat: %v", err)
	}
	eventually(t, patience, "the cheat is cut off", func() bool { return cheat.Cut.Load() > 0 })
	eventually(t, patience, "the cheat is kept out", func() bool { return cheat.KeptOut(t.Context()) })
	if err := h.stop(); err != nil {
		t.Errorf("honest work: %v", err)
	}
	cancel()
	<-over
	t.Logf("%d identities sent %d submissions, of which %d were told a price, in the end %d; %d honest tasks were done, the slowest in %v",
		flood.Came.Load(), flood.Sent.Load(), flood.Priced.Load(), flood.Effort(), h.done.Load(), h.slow.Round(time.Millisecond))
}
