// Package metrictest is metric without its process: the same rules and use cases, over ports that the caller plays. It is
// for simulations of whole networks in virtual time, which live outside this module; nothing that a node runs imports it.
package metrictest

import (
	"context"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// What a simulation needs of metric; the ports say what must be promised.
type (
	Service  = app.Service
	Config   = app.Config
	Host     = app.Host
	Events   = app.Events
	Versions = app.Versions
	Verdict  = app.Verdict
	Metric   = domain.Metric
	CPU      = domain.CPU
	Space    = domain.Space
	Queue    = domain.Queue
)

// Retry is the verdict of a service that has no room for an event now.
const Retry = app.Retry

// DefaultPace is how often metrics are told.
var DefaultPace = app.DefaultPace

// New makes a service; Run it.
func New(ctx context.Context, cfg Config) *Service {
	s, err := app.New(ctx, cfg)
	if err != nil {
		panic(err) // only a shared store fails, and simulations have none
	}
	return s
}

// Encode makes a metric's message.
func Encode(m Metric) *eventv1.Metric { return broker.Encode(m) }
