package app

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/domain/providers"
	"github.com/shallot-net/shallot/kit/fault"
)

// Roles in the routing table, the network's shared memory of who offers what: a server keeps records for others, answers, and may advertise itself; a client
// only asks, so nobody is told of it.
const (
	RoutingServer = "server"
	RoutingClient = "client"
	RoutingOff    = "off"
)

// Errors of a Host's routing.
var (
	ErrRoutingOff    = errors.New("no routing is switched on")
	ErrRoutingClient = errors.New("a client of the routing table advertises nothing")
	ErrRoutingEmpty  = errors.New("the routing table is empty")
)

// Bounds of what services may ask for.
const (
	maxName  = 128
	maxFound = 64
	fewFound = 16 // when the caller does not say
)

// FindPeers calls found for peers that have advertised a name, as they are found, this node excluded; with limit 0 some. It blocks for some seconds at most. That
// nobody is found is no error.
func (b *Broker) FindPeers(ctx context.Context, persona, name string, limit int, found func(Target) error) error {
	p, err := b.named(persona, name)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = fewFound
	}
	return routingFault(ctx, p.host.Find(ctx, name, min(limit, maxFound), found))
}

// Advertised is for how long a record is kept, and when to say it again.
type Advertised struct{ ValidFor, Again time.Duration }

// Advertise says that a persona has a name. It blocks for some seconds at most.
func (b *Broker) Advertise(ctx context.Context, persona, name string) (Advertised, error) {
	p, err := b.named(persona, name)
	if err != nil {
		return Advertised{}, err
	}
	return Advertised{providers.Default.TTL, providers.AgainEvery}, routingFault(ctx, p.host.Advertise(ctx, name))
}

// named checks what both calls are given.
func (b *Broker) named(persona, name string) (*persona, error) {
	p, err := b.persona(persona)
	if err != nil {
		return nil, err
	}
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fault.InvalidArgument("NAME_INVALID", "the name %.80q: it must be 1 to %d printable ASCII characters without spaces, such as type/sum", name, maxName)
	}
	return p, nil
}

func routingFault(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrRoutingOff):
		return fault.FailedPrecondition("ROUTING_OFF", "this broker has no routing switched on: set its routing to client or server, or ask peers that are known").Because(err)
	case errors.Is(err, ErrRoutingClient):
		return fault.FailedPrecondition("ROUTING_CLIENT", "this persona only asks the routing table, so it cannot be found through it: that is for the own persona of a broker whose routing is server").Because(err)
	case errors.Is(err, ErrRoutingEmpty):
		return fault.Unavailable("ROUTING_EMPTY", "no server of the routing table is known yet: connect to a provider and try again").Because(err)
	case ctx.Err() != nil:
		return fault.Wrap(err, codes.DeadlineExceeded, "ROUTING_SLOW", "the routing table did not answer before the deadline: try again").Because(err)
	}
	return fault.Wrap(err, codes.Unavailable, "ROUTING_SLOW", "the routing table did not answer in time: try again")
}
