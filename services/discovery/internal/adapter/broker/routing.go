package broker

import (
	"context"
	"errors"
	"io"
	"time"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
)

var _ app.Routing = (*Broker)(nil)

// Advertise says that this node has a name.
func (b *Broker) Advertise(ctx context.Context, name string) (time.Duration, error) {
	r, err := b.net.Advertise(ctx, &brokerv1.AdvertiseRequest{Persona: persona, Capability: name})
	return r.GetAgainAfter().AsDuration(), err
}

// Find looks for peers that have a name.
func (b *Broker) Find(ctx context.Context, name string, limit int, found func(peerID string, addresses []string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := b.net.FindPeers(ctx, &brokerv1.FindPeersRequest{Persona: persona, Capability: name, Limit: uint32(limit)})
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		found(r.GetPeerId(), r.GetAddresses())
	}
}
