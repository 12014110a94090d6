package app

import (
	"time"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Trail calls each with the metrics of a peer that were heard, the oldest first.
func (p *Provider) Trail(peer string, each func(at time.Time, m *eventv1.Metric)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trails.Each(peer, each)
}

// Trail calls each with the metrics of a peer that were heard, the oldest first.
func (c *Consumer) Trail(peer string, each func(at time.Time, m *eventv1.Metric)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trails.Each(peer, each)
}
