package app

import (
	"context"

	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// Host measures the machine. It is called every few seconds and must cost next to nothing; what changes seldom it keeps.
// PeerID, Version, Interval and Queue of what it returns are not set.
type Host interface {
	Measure(ctx context.Context) domain.Metric
}

// Events is the broker's side of what nodes say to each other. Sends return when the other service has acknowledged.
type Events interface {
	// Whoami is this node's peer id.
	Whoami(ctx context.Context) (string, error)
	// Publish signs a metric and gossips it.
	Publish(ctx context.Context, m domain.Metric) error
	// SendQuery asks a peer for its metric as it is now, under an id that its answer repeats.
	SendQuery(ctx context.Context, peerID, id string) error
	// SendMetric signs a metric and answers a peer's query with it.
	SendMetric(ctx context.Context, peerID, inReplyTo string, m domain.Metric) error
}

// Versions keeps the version counter. See versionstest for what every store must do.
type Versions interface {
	// Reserve takes n versions that nobody got before and nobody will get again, not below atLeast, and returns the first.
	// It is durable when it returns.
	Reserve(ctx context.Context, n, atLeast uint64) (uint64, error)
}

// Counter counts what happened; the names are those of package app.
type Counter interface {
	Count(event string)
}
