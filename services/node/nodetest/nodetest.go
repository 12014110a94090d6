// Package nodetest is a consumer's view of the network and its placement without the process: the same rules and use cases, over
// a network that the caller plays. It is for simulations of whole networks in virtual time, which live outside this module;
// nothing that a node runs imports it.
package nodetest

import (
	"log/slog"

	"github.com/shallot-net/shallot/services/node/internal/app"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// What a simulation needs of node; ConsumerNetwork says what must be promised.
type (
	Consumer        = app.Consumer
	ConsumerConfig  = app.ConsumerConfig
	ConsumerNetwork = app.ConsumerNetwork
	KnownPeer       = app.KnownPeer
	Need            = domain.Need
	Provider        = domain.Provider
)

// NewConsumer makes one; Run it.
func NewConsumer(cfg ConsumerConfig, net ConsumerNetwork) *Consumer {
	return app.NewConsumer(cfg, net, slog.New(slog.DiscardHandler))
}
