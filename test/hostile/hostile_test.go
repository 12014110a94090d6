package hostile

import (
	"context"
	"os"
	"testing"
	"time"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/hostile"
)

// What an attack may cost. On a quiet machine with SHALLOT_LONG the bound is the promise; elsewhere whatever else runs beside the test is in the
// figures too, and the bound only tells a defence that works from one that does not.
const (
	promise  = 0.10
	generous = 0.50
	patience = 20 * time.Second
)

func long() bool { return os.Getenv("SHALLOT_LONG") != "" }

func start(t *testing.T, providers int) (n *dev.Network, consumer nodev1.NodeServiceClient) {
	t.Helper()
	n, err := dev.Start(t.Context(), dev.Config{Bin: bin, Dir: t.TempDir(), Providers: providers, Consumers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, n.Tail())
		}
	})
	if consumer, err = n.Node("consumer-1"); err != nil {
		t.Fatal(err)
	}
	return n, consumer
}

func address(t *testing.T, n *dev.Network, node string) string {
	t.Helper()
	c, err := n.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.GetNode(t.Context(), &nodev1.GetNodeRequest{})
	if err != nil || len(r.GetNode().GetAddresses()) == 0 {
		t.Fatalf("addresses of %s: %v, %v", node, r, err)
	}
	return r.GetNode().GetAddresses()[0]
}

func enemy(t *testing.T, victim string, listen bool) *hostile.Peer {
	t.Helper()
	p, err := hostile.New(t.Context(), victim, listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func eventually(t *testing.T, within time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline.C:
			t.Errorf("not within %v: %s", within, what)
			return
		case <-tick.C:
		}
	}
}

// While an honest consumer works, strangers attack a provider in turn. Who deserves it loses its connection and is kept out, all honest work is done
// right, and what an attack costs is bounded.
func TestAttacks(t *testing.T) {
	n, consumer := start(t, 2)
	victim := address(t, n, "provider-1")
	before, during, bound := 2*time.Second, 3*time.Second, generous
	if long() {
		before, during, bound = 10*time.Second, 20*time.Second, promise
	}
	h := work(t, consumer, 4)
	stalls := stall(t, victim)
	measure(t, n, h, before) // the first tasks cost more than the others
	for _, a := range hostile.Attacks() {
		t.Run(a.Name, func(t *testing.T) {
			base := measure(t, n, h, before)
			p := enemy(t, victim, false)
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan struct{})
			go func() {
				defer close(over)
				a.Run(p, ctx)
			}()
			now := measure(t, n, h, during)
			if a.Punished {
				eventually(t, patience, "it is cut off", func() bool { return p.Cut.Load() > 0 })
			}
			cancel()
			<-over
			if a.Punished {
				eventually(t, patience, "it is kept out", func() bool { return p.KeptOut(t.Context()) })
			}
			cost := share(base, now)
			t.Logf("%.0f tasks/s before, %.0f during (%.2f of it, the attacker's own CPU included); the attack cost the network %.1f %% of the machine; %d sent, cut off %d times",
				base.rate(), now.rate(), now.rate()/base.rate(), 100*cost, p.Sent.Load(), p.Cut.Load())
			if cost > bound {
				t.Errorf("it cost %.1f %% of the machine, more than %.0f %%", 100*cost, 100*bound)
			}
		})
	}
	stalls(t)
	if err := h.stop(); err != nil {
		t.Errorf("honest work: %v", err)
	}
	t.Logf("%d honest tasks were done, the slowest in %v", h.done.Load(), h.slow.Round(time.Millisecond))
}

// stall begins frames on every protocol that has them and goes silent, and reads nothing of what it asked for, beside everything else that
// happens. What it returns checks that the streams were ended in the stated time.
func stall(t *testing.T, victim string) func(*testing.T) {
	const stated, slack = 30 * time.Second, 15 * time.Second
	type ended struct {
		after time.Duration
		err   error
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	slow := enemy(t, victim, false)
	go slow.SlowReader(ctx)
	results := map[string]chan ended{}
	for _, id := range hostile.Framed() {
		c := make(chan ended, 1)
		results[string(id)] = c
		p := enemy(t, victim, false)
		go func() {
			after, err := p.HalfOpen(ctx, id)
			c <- ended{after, err}
		}()
	}
	return func(t *testing.T) {
		for id, c := range results {
			t.Run("half-open "+id, func(t *testing.T) {
				e := <-c
				t.Logf("ended after %v", e.after.Round(time.Millisecond))
				if e.err != nil || e.after < stated/2 || e.after > stated+slack {
					t.Errorf("the stream was ended after %v (%v), and %v are stated", e.after, e.err, stated)
				}
			})
		}
		t.Run("slow reader", func(t *testing.T) {
			t.Logf("%d sent, cut off %d times", slow.Sent.Load(), slow.Cut.Load())
			eventually(t, patience, "it is cut off", func() bool { return slow.Cut.Load() > 0 })
		})
	}
}
