// Package discoverytest is discovery without its process: the same rules and use cases, over ports that the caller plays. It is
// for simulations of whole networks in virtual time, which live outside this module; nothing that a node runs imports it.
package discoverytest

import (
	"context"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// What a simulation needs of discovery; the ports say what must be promised.
type (
	Service          = app.Service
	Config           = app.Config
	Network          = app.Network
	Events           = app.Events
	Store            = app.Store
	Self             = app.Self
	Identity         = app.Identity
	Neighbour        = app.Neighbour
	Question         = app.Question
	DiscoverResponse = app.DiscoverResponse
	Heard            = app.Heard
	Verdict          = app.Verdict
	Figures          = app.Figures
	Announcement     = domain.Announcement
	Capability       = domain.Capability
	Limits           = domain.Limits
	Peer             = domain.Peer
)

// What becomes of an event.
const (
	Applied = app.Applied
	Retry   = app.Retry
)

// Available is the state of a peer that is there.
const Available = domain.Available

// DefaultPace is how often announcements are made.
var DefaultPace = app.DefaultPace

// New makes a service; Run it.
func New(ctx context.Context, cfg Config) (*Service, error) { return app.New(ctx, cfg) }

// Encode makes an announcement's message.
func Encode(a Announcement) *eventv1.Announcement { return broker.Encode(a) }

// Hear checks an announcement event as the service's own adapter does, signature included.
func Hear(ev *eventv1.Event) (Heard, error) {
	return broker.HearNested(ev, func(string, []byte) bool { return false })
}
