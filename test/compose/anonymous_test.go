package compose

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/deployment"
)

// TestAnonymousDeployment is the same in anonymous mode, on a private Tor network: the brokers have no network at all, and a task gets its result.
func TestAnonymousDeployment(t *testing.T) {
	needEngine(t)
	p := newProject(t, "anonymous", "anonymous.yml", "demo-tor.yml")
	p.build()
	started := time.Now()
	p.must(p.compose(6*time.Minute, "up", "-d", "--wait")) // keys of authorities, their first votes, and what follows
	t.Logf("ready %v after the start, 15 services and a private Tor network", time.Since(started).Round(time.Second))
	for _, broker := range []string{"broker", "consumer-broker", "onion", "consumer-onion"} {
		out := p.must(p.compose(time.Minute, "exec", "-T", broker, "cat", "/proc/net/dev"))
		for line := range strings.Lines(out) {
			if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name != "lo" {
				t.Errorf("%s has the interface %s", broker, name)
			}
		}
	}
	for _, who := range []string{"cli", "consumer-cli"} {
		got := p.must(p.compose(time.Minute, "run", "--rm", "-T", who, "--output", "json", "node"))
		for _, want := range []string{`"anonymous"`, `"enclosed"`, `"online"`} {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not tell %s: %s", who, want, got)
			}
		}
	}
	if got, err := p.compose(2*time.Minute, "run", "--rm", "-T", "consumer-cli", "run", "sum", "1", "2", "3"); err != nil || got != "6\n" {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if task, got, err := p.gateway("consumer-gateway").sum(ctx, "rest", "0.1", "0.2"); err != nil || got != "0.3" {
		t.Errorf("over REST, task %s: %q, %v", task.ID, got, err)
	}
	// Whom it speaks of is nobody's but this node's: no line has a peer id or an address.
	for line := range strings.Lines(p.must(p.compose(time.Minute, "logs", "--no-color"))) {
		if strings.Contains(line, "12D3Koo") || strings.Contains(line, "/onion3/") || strings.Contains(line, ".onion") {
			t.Errorf("a log names somebody: %s", deployment.Tail(line, 300))
		}
	}
}
