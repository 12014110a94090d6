package compose

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/deployment"
)

// replicas are how many of each service the scaled deployment has.
var replicas = map[string]int{"task": 4, "node": 3, "discovery": 2, "metric": 2, "gateway": 2}

// scaled runs each service in several replicas under load, hurts one after the other, and goes back to one of each.
func (p *project) scaled(t *testing.T) {
	p = p.with(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	l := p.load(ctx, "scale", 4)
	l.goesOn(ctx, "before", 10)
	p.scale(replicas)
	l.goesOn(ctx, "with all replicas", 20)
	for name := range replicas {
		if got := len(p.containers(name)); got != replicas[name] {
			t.Errorf("%d containers of %s, want %d", got, name, replicas[name])
		}
	}
	p.everyReplicaIsMeasured(ctx)

	for _, name := range p.scaledServices() {
		for _, c := range p.containers(name) {
			_ = must(t)(deployment.Docker(ctx, "kill", c)) // the engine does not start it again: that is the operator's word
			l.goesOn(ctx, "a replica of "+name+" is killed", 5)
			_ = must(t)(deployment.Docker(ctx, "start", c))
			p.healthy(ctx, name, c)
		}
	}
	for _, name := range p.scaledServices() {
		c := p.containers(name)[0]
		p.pause(ctx, c)
		l.goesOn(ctx, "a replica of "+name+" is paused", 10)
		_ = must(t)(deployment.Docker(ctx, "unpause", c))
		p.healthy(ctx, name, c)
	}
	for _, name := range p.scaledServices() {
		c := p.containers(name)[0]
		network := p.Name + "_node"
		_ = must(t)(deployment.Docker(ctx, "network", "disconnect", "--force", network, c))
		l.goesOn(ctx, "a replica of "+name+" is cut off", 10)
		_ = must(t)(deployment.Docker(ctx, "network", "connect", "--alias", name, network, c))
		p.healthy(ctx, name, c)
	}
	c := p.containers("postgres")[0]
	for _, how := range [][]string{{"kill", "start"}, {"pause", "unpause"}, {"stop", "start"}} {
		if how[0] == "pause" {
			p.pause(ctx, c)
		} else {
			_ = must(t)(deployment.Docker(ctx, how[0], c))
		}
		_ = must(t)(deployment.Docker(ctx, how[1], c))
		p.healthy(ctx, "postgres", c)
		l.goesOn(ctx, "the database was hurt by "+how[0], 10)
	}
	p.scale(map[string]int{"task": 1, "node": 1, "discovery": 1, "metric": 1, "gateway": 1})
	l.goesOn(ctx, "with one of each again", 20)
	l.end(ctx)
}

// everyReplicaIsMeasured: the node's metrics have each of them once.
func (p *project) everyReplicaIsMeasured(ctx context.Context) {
	p.t.Helper()
	g := p.gateway("gateway")
	eventually(ctx, p.t, "metrics of every replica", func() bool {
		status, body, err := g.do(ctx, "GET", "/metrics", nil)
		if err != nil || status != 200 {
			return false
		}
		up := map[string]int{}
		for _, m := range regexp.MustCompile(`(?m)^shallot_up\{process="([a-z]+)".*\} 1$`).FindAllSubmatch(body, -1) {
			up[string(m[1])]++
		}
		return up["task"] == replicas["task"] && up["node"] == replicas["node"] && up["discovery"] == replicas["discovery"] && up["metric"] == replicas["metric"] && up["broker"] == 1
	})
}

// pause is tried again: the kernel's older freezer gives up on a process that is busy, and says so.
func (p *project) pause(ctx context.Context, container string) {
	p.t.Helper()
	eventually(ctx, p.t, "a container is paused", func() bool {
		_, err := deployment.Docker(ctx, "pause", container)
		return err == nil
	})
}

func must(t *testing.T) func(string, error) string {
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func (p *project) scaledServices() []string {
	var names []string
	for name := range replicas {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// scale sets how many there are of each service, and waits until all are ready.
func (p *project) scale(to map[string]int) {
	p.t.Helper()
	args := []string{"up", "-d", "--wait", "--no-recreate"}
	for name, n := range to {
		args = append(args, "--scale", fmt.Sprintf("%s=%d", name, n))
	}
	begin := time.Now()
	p.must(p.compose(2*time.Minute, args...))
	p.t.Logf("scaled to %v in %v", to, time.Since(begin).Round(100*time.Millisecond))
}

func (p *project) healthy(ctx context.Context, name, container string) {
	p.t.Helper()
	eventually(ctx, p.t, name+" is healthy", func() bool {
		out, err := deployment.Docker(ctx, "inspect", "-f", "{{.State.Running}} {{.State.Health.Status}}", container)
		return err == nil && out == "true healthy"
	})
}
