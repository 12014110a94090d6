package broker

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// Broker is an app.Network and app.Events over one connection, as the node's own persona.
type Broker struct {
	client *brokerclient.Client
	net    brokerv1.NetworkServiceClient
}

var (
	_ app.Network = (*Broker)(nil)
	_ app.Events  = (*Broker)(nil)
)

// New speaks through client's broker, whose network service is at conn.
func New(conn grpc.ClientConnInterface, client *brokerclient.Client) *Broker {
	return &Broker{client, brokerv1.NewNetworkServiceClient(conn)}
}

// persona is the node's own.
const persona = ""

// Self is the node's identity.
func (b *Broker) Self(ctx context.Context) (app.Identity, error) {
	r, err := b.net.Self(ctx, &brokerv1.SelfRequest{Persona: persona})
	if err != nil {
		return app.Identity{}, err
	}
	return app.Identity{PeerID: r.GetPeerId(), Addresses: r.GetAddresses()}, nil
}

// Connect dials a peer.
func (b *Broker) Connect(ctx context.Context, peerID string, addresses []string) (string, error) {
	r, err := b.net.Connect(ctx, &brokerv1.ConnectRequest{Persona: persona, PeerId: peerID, Addresses: addresses})
	if err != nil {
		return "", err
	}
	return r.GetPeerId(), nil
}

// Neighbours lists who is connected.
func (b *Broker) Neighbours(ctx context.Context) ([]app.Neighbour, error) {
	r, err := b.net.ListPeers(ctx, &brokerv1.ListPeersRequest{Persona: persona})
	if err != nil {
		return nil, err
	}
	out := make([]app.Neighbour, len(r.GetPeers()))
	for i, p := range r.GetPeers() {
		out[i] = app.Neighbour{PeerID: p.GetPeerId(), RTT: p.GetRtt().AsDuration()}
	}
	return out, nil
}

// Watch follows connections until the broker is lost.
func (b *Broker) Watch(ctx context.Context, changed func(string, bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := b.net.Watch(ctx, &brokerv1.WatchRequest{Persona: persona})
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fault.Unavailable("STREAM_ENDED", "the broker ended the watch")
		}
		if err != nil {
			return err
		}
		changed(r.GetPeerId(), r.GetConnected())
	}
}

// Sign makes the signed event of an announcement.
func (b *Broker) Sign(ctx context.Context, a domain.Announcement) ([]byte, error) {
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, Encode(a))
	if err != nil {
		return nil, err
	}
	if ev, err = b.client.Sign(ctx, persona, ev); err != nil {
		return nil, err
	}
	return proto.Marshal(ev)
}

// Publish gossips it.
func (b *Broker) Publish(ctx context.Context, signed []byte) error {
	ev, err := open(signed)
	if err != nil {
		return err
	}
	_, err = b.client.Publish(ctx, persona, brokerclient.TopicAnnouncements, ev, false)
	return err
}

// SendAnnouncement hands it to one peer.
func (b *Broker) SendAnnouncement(ctx context.Context, peerID string, signed []byte) error {
	ev, err := open(signed)
	if err != nil {
		return err
	}
	ev.Id = brokerclient.NewID() // each hand-over is an event of its own; the id is not signed
	return b.client.Send(ctx, persona, peerID, ev, brokerclient.SendOptions{})
}

func open(signed []byte) (*eventv1.Event, error) {
	ev := new(eventv1.Event)
	if err := proto.Unmarshal(signed, ev); err != nil {
		return nil, fmt.Errorf("decode a stored announcement: %w", err)
	}
	return ev, nil
}

// SendDiscover asks a peer.
func (b *Broker) SendDiscover(ctx context.Context, peerID string, q app.Question) error {
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_DISCOVER, &eventv1.Discover{Types: q.Types, Limit: uint32(q.Limit), Has: q.Has, Own: q.Own})
	if err != nil {
		return err
	}
	ev.Id = q.ID
	return b.client.Send(ctx, persona, peerID, ev, brokerclient.SendOptions{})
}

// SendDiscoverResponse answers a peer.
func (b *Broker) SendDiscoverResponse(ctx context.Context, peerID string, r app.DiscoverResponse) error {
	m := &eventv1.DiscoverResponse{InReplyTo: r.InReplyTo, Known: uint32(r.Known)}
	if len(r.Puzzle.Nonce) > 0 {
		m.Puzzle = &eventv1.Puzzle{Nonce: r.Puzzle.Nonce, Effort: r.Puzzle.Effort}
	}
	for _, signed := range r.Signed {
		ev, err := open(signed)
		if err != nil {
			return err
		}
		m.Announcements = append(m.Announcements, ev)
	}
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE, m)
	if err != nil {
		return err
	}
	return b.client.Send(ctx, persona, peerID, ev, brokerclient.SendOptions{})
}

// Ping returns when the peer's discovery service has acknowledged a ping.
func (b *Broker) Ping(ctx context.Context, peerID string) error {
	ev, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})
	if err != nil {
		return err
	}
	return b.client.Send(ctx, persona, peerID, ev, brokerclient.SendOptions{})
}
