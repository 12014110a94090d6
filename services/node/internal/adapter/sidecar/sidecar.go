// Package sidecar is the broker as node calls it: events, connections, and who this node is.
package sidecar

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/lifecycle"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
)

// Group is node's name among the services that share the broker's deliveries.
const Group = "node"

// Client calls the broker.
type Client struct {
	events  *brokerclient.Client
	network brokerv1.NetworkServiceClient
	// Repository is handed on as it is.
	Repository brokerv1.RepositoryServiceClient
}

// New makes a client over a connection.
func New(conn grpc.ClientConnInterface, log *slog.Logger) *Client {
	return &Client{events: brokerclient.New(conn, log), network: brokerv1.NewNetworkServiceClient(conn), Repository: brokerv1.NewRepositoryServiceClient(conn)}
}

// Close ends the stream of events.
func (c *Client) Close() { c.events.Close() }

// Send hands an event over; see app.EventSender.
func (c *Client) Send(ctx context.Context, persona, peer string, ev *eventv1.Event, sign bool, timeout time.Duration) error {
	return c.events.Send(ctx, persona, peer, ev, brokerclient.SendOptions{Sign: sign, Timeout: timeout})
}

// SendEvent hands one of node's own events over, as the node's own persona.
func (c *Client) SendEvent(ctx context.Context, peer string, typ eventv1.EventType, id string, payload proto.Message, timeout time.Duration) error {
	return c.SendEventAs(ctx, "", peer, typ, id, payload, timeout)
}

// SendEventAs is SendEvent as a persona.
func (c *Client) SendEventAs(ctx context.Context, persona, peer string, typ eventv1.EventType, id string, payload proto.Message, timeout time.Duration) error {
	b, err := proto.Marshal(payload)
	if err != nil {
		return err
	}
	return c.events.Send(ctx, persona, peer, &eventv1.Event{Id: id, Type: typ, Payload: b}, brokerclient.SendOptions{Timeout: timeout})
}

// Remember tells the broker where a peer is.
func (c *Client) Remember(ctx context.Context, persona, peer string, addresses []string) error {
	_, err := c.network.Connect(ctx, &brokerv1.ConnectRequest{Persona: persona, PeerId: peer, Addresses: addresses, RememberOnly: true})
	return err
}

// Connect dials a peer; see app.ConsumerNetwork.
func (c *Client) Connect(ctx context.Context, peer string, addresses []string) (string, error) {
	r, err := c.network.Connect(ctx, &brokerv1.ConnectRequest{PeerId: peer, Addresses: addresses})
	return r.GetPeerId(), err
}

// ConnectVouched dials a peer; see app.ConsumerNetwork.
func (c *Client) ConnectVouched(ctx context.Context, peer string, addresses []string) (string, error) {
	r, err := c.network.Connect(ctx, &brokerv1.ConnectRequest{PeerId: peer, Addresses: addresses, Vouched: true})
	return r.GetPeerId(), err
}

// ConnectAs dials a peer as a persona.
func (c *Client) ConnectAs(ctx context.Context, persona, peer string, addresses []string) error {
	_, err := c.network.Connect(ctx, &brokerv1.ConnectRequest{Persona: persona, PeerId: peer, Addresses: addresses})
	return err
}

// DisconnectAs ends the connections of a persona to a peer.
func (c *Client) DisconnectAs(ctx context.Context, persona, peer string) error {
	_, err := c.network.Disconnect(ctx, &brokerv1.DisconnectRequest{Persona: persona, PeerId: peer})
	return err
}

// OpenPersona makes a network identity; see app.PersonaNetwork.
func (c *Client) OpenPersona(ctx context.Context, name string) error {
	_, err := c.network.OpenPersona(ctx, &brokerv1.OpenPersonaRequest{Persona: name})
	return err
}

// ClosePersona ends one.
func (c *Client) ClosePersona(ctx context.Context, name string) error {
	_, err := c.network.ClosePersona(ctx, &brokerv1.ClosePersonaRequest{Persona: name})
	return err
}

// Personas lists the open ones, the node's own excluded.
func (c *Client) Personas(ctx context.Context) ([]string, error) {
	r, err := c.network.ListPersonas(ctx, &brokerv1.ListPersonasRequest{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range r.GetPersonas() {
		if p.GetName() != "" {
			out = append(out, p.GetName())
		}
	}
	return out, nil
}

// Known lists whom this node has reached before; see app.ConsumerNetwork.
func (c *Client) Known(ctx context.Context) ([]app.KnownPeer, error) {
	r, err := c.network.ListKnownPeers(ctx, &brokerv1.ListKnownPeersRequest{})
	if err != nil {
		return nil, err
	}
	out := make([]app.KnownPeer, 0, len(r.GetPeers()))
	for _, p := range r.GetPeers() {
		if len(p.GetAddresses()) > 0 {
			out = append(out, app.KnownPeer{PeerID: p.GetPeerId(), Addresses: p.GetAddresses()})
		}
	}
	return out, nil
}

// Find looks for peers in the routing table; see app.ConsumerNetwork.
func (c *Client) Find(ctx context.Context, name string, limit int, found func(app.KnownPeer)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.network.FindPeers(ctx, &brokerv1.FindPeersRequest{Capability: name, Limit: uint32(limit)})
	if err != nil {
		return err
	}
	for {
		r, err := s.Recv()
		if isEOF(err) {
			return nil
		}
		if err != nil {
			return err
		}
		found(app.KnownPeer{PeerID: r.GetPeerId(), Addresses: r.GetAddresses()})
	}
}

// Self asks who this node is.
func (c *Client) Self(ctx context.Context) (*brokerv1.SelfResponse, error) {
	return c.network.Self(ctx, &brokerv1.SelfRequest{})
}

// Watch follows connections; see app.Sidecar.
func (c *Client) Watch(ctx context.Context, opened func(), changed func(peer string, connected bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.network.Watch(ctx, &brokerv1.WatchRequest{})
	if err != nil {
		return err
	}
	opened()
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		changed(r.GetPeerId(), r.GetConnected())
	}
}

// RoundTrips are the measured ones of connected peers.
func (c *Client) RoundTrips(ctx context.Context) (map[string]time.Duration, error) {
	r, err := c.network.ListPeers(ctx, &brokerv1.ListPeersRequest{})
	if err != nil {
		return nil, err
	}
	out := make(map[string]time.Duration, len(r.GetPeers()))
	for _, p := range r.GetPeers() {
		if p.GetRtt() != nil {
			out[p.GetPeerId()] = p.GetRtt().AsDuration()
		}
	}
	return out, nil
}

const (
	maxInFlight = 256
	workers     = 256
)

// Subscribe gives deliveries to the handler until ctx ends; state is told when the subscription stands and when it was
// lost. Events of tasks go to one of the node's processes, answers to all of them: only one has asked.
func (c *Client) Subscribe(ctx context.Context, d *app.Deliverer, state func(up bool)) error {
	subscribe := func(ctx context.Context, group string, types []eventv1.EventType, state func(bool, error)) error {
		open := &brokerv1.Open{Group: group, Types: types, MaxInFlight: maxInFlight, AckTimeout: durationpb.New(app.AckTimeout)}
		return c.events.Subscribe(ctx, open, func(ctx context.Context, del *brokerv1.Delivery) brokerclient.Answer {
			v := d.Handle(ctx, del)
			return brokerclient.Answer{Verdict: v.Verdict, Reason: v.Reason}
		}, brokerclient.SubscribeOptions{Workers: workers, Order: app.Order, OnState: state})
	}
	parts := []func(context.Context) error{func(ctx context.Context) error {
		return subscribe(ctx, Group, d.Types(), func(up bool, _ error) { state(up) })
	}}
	if answers := d.Answers(); len(answers) > 0 {
		own := Group + "-" + strings.ToLower(rand.Text())
		parts = append(parts, func(ctx context.Context) error { return subscribe(ctx, own, answers, nil) })
	}
	return lifecycle.Run(ctx, parts...)
}

// Put stores a file or a directory for the user; next gives what follows the options, and io.EOF at the end.
func (c *Client) Put(ctx context.Context, options *brokerv1.PutOptions, next func() (*brokerv1.PutRequest, error)) (*brokerv1.PutResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.Repository.Put(ctx)
	if err != nil {
		return nil, err
	}
	err = s.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Options{Options: options}})
	for err == nil {
		var m *brokerv1.PutRequest
		if m, err = next(); err == nil {
			err = s.Send(m)
		} else if !isEOF(err) {
			return nil, fault.From(err) // the caller's end, not the broker's: the stream is cancelled, and nothing is kept
		}
	}
	return s.CloseAndRecv()
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
