package grpcserver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/adapter/repository"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/access"
	"github.com/shallot-net/shallot/broker/internal/testbroker"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

func server(t *testing.T) *testbroker.Broker {
	return testbroker.Start(t, testbroker.Options{Routing: app.RoutingServer})
}

func client(t *testing.T) *testbroker.Broker {
	return testbroker.Start(t, testbroker.Options{Routing: app.RoutingClient})
}

// find asks once.
func find(t *testing.T, at *testbroker.Broker, name string, limit uint32) (ids []string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testbroker.Patience)
	defer cancel()
	stream, err := at.Network.FindPeers(ctx, &brokerv1.FindPeersRequest{Capability: name, Limit: limit})
	if err != nil {
		return nil, err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ids, nil
		}
		if err != nil {
			return ids, err
		}
		ids = append(ids, r.GetPeerId())
	}
}

// finds waits until a broker finds just these.
func finds(t *testing.T, at *testbroker.Broker, name string, want ...*testbroker.Broker) {
	t.Helper()
	testbroker.Eventually(t, "those are found who advertise "+name, func() bool {
		ids, err := find(t, at, name, 0)
		if err != nil || len(ids) != len(want) {
			return false
		}
		for _, w := range want {
			if !strings.Contains(strings.Join(ids, " "), w.ID) {
				return false
			}
		}
		return true
	})
}

// advertises waits until a broker's word is kept somewhere.
func advertises(t *testing.T, at *testbroker.Broker, name string) {
	t.Helper()
	testbroker.Eventually(t, name+" is advertised", func() bool {
		r, err := at.Network.Advertise(t.Context(), &brokerv1.AdvertiseRequest{Capability: name})
		return err == nil && r.GetValidFor().AsDuration() > r.GetAgainAfter().AsDuration() && r.GetAgainAfter().AsDuration() > 0
	})
}

func connected(t *testing.T, at *testbroker.Broker, to string) bool {
	t.Helper()
	r, err := at.Network.ListPeers(t.Context(), &brokerv1.ListPeersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.GetPeers() {
		if p.GetPeerId() == to {
			return true
		}
	}
	return false
}

// A consumer finds a provider of which it knows only a third node, and can connect to it; a private network is no different.
func TestFindThroughAThird(t *testing.T) {
	t.Parallel()
	for name, key := range map[string][]byte{"open": nil, "private": bytes.Repeat([]byte{7}, 32)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := func(role string) *testbroker.Broker {
				return testbroker.Start(t, testbroker.Options{Routing: role, NetworkKey: key})
			}
			third, provider, consumer := start(app.RoutingServer), start(app.RoutingServer), start(app.RoutingClient)
			provider.Connect(third)
			consumer.Connect(third)
			advertises(t, provider, "type/sum")
			finds(t, consumer, "type/sum", provider)
			finds(t, provider, "type/sum") // nobody finds itself
			finds(t, consumer, "type/other")
			if _, err := consumer.Network.Connect(t.Context(), &brokerv1.ConnectRequest{PeerId: provider.ID}); err != nil {
				t.Errorf("who was found cannot be connected to: %v", err)
			}
		})
	}
}

func TestRoutingErrors(t *testing.T) {
	t.Parallel()
	off, asks, lonely := testbroker.Start(t, testbroker.Options{}), client(t), server(t)
	_, err := find(t, off, "type/sum", 1)
	wantFault(t, err, codes.FailedPrecondition, "ROUTING_OFF")
	_, err = off.Network.Advertise(t.Context(), &brokerv1.AdvertiseRequest{Capability: "type/sum"})
	wantFault(t, err, codes.FailedPrecondition, "ROUTING_OFF")
	_, err = asks.Network.Advertise(t.Context(), &brokerv1.AdvertiseRequest{Capability: "type/sum"})
	wantFault(t, err, codes.FailedPrecondition, "ROUTING_CLIENT")
	_, err = lonely.Network.Advertise(t.Context(), &brokerv1.AdvertiseRequest{Capability: "type/sum"})
	wantFault(t, err, codes.Unavailable, "ROUTING_EMPTY")
	_, err = find(t, lonely, "type/sum", 1)
	wantFault(t, err, codes.Unavailable, "ROUTING_EMPTY")
	for _, name := range []string{"", "a b", "type/söm", strings.Repeat("x", 129), "a\n"} {
		_, err = find(t, asks, name, 1)
		wantFault(t, err, codes.InvalidArgument, "NAME_INVALID")
		_, err = lonely.Network.Advertise(t.Context(), &brokerv1.AdvertiseRequest{Capability: name})
		wantFault(t, err, codes.InvalidArgument, "NAME_INVALID")
	}
	_, err = lonely.Network.Advertise(t.Context(), &brokerv1.AdvertiseRequest{Persona: "p", Capability: "type/sum"})
	wantFault(t, err, codes.FailedPrecondition, "OPEN_MODE")
	stream, err := lonely.Network.FindPeers(t.Context(), &brokerv1.FindPeersRequest{Persona: "p", Capability: "type/sum"})
	if err == nil {
		_, err = stream.Recv()
	}
	wantFault(t, err, codes.FailedPrecondition, "OPEN_MODE")
}

// A throw-away persona of a provider's broker asks, and advertises nothing.
func TestOtherPersonasOnlyAsk(t *testing.T) {
	t.Parallel()
	third := server(t)
	a := testbroker.Start(t, testbroker.Options{Mode: app.ModeAnonymous, Routing: app.RoutingServer})
	if _, err := a.Network.OpenPersona(t.Context(), &brokerv1.OpenPersonaRequest{Persona: "p"}); err != nil {
		t.Fatal(err)
	}
	_, err := a.Network.Advertise(t.Context(), &brokerv1.AdvertiseRequest{Persona: "p", Capability: "type/sum"})
	wantFault(t, err, codes.FailedPrecondition, "ROUTING_CLIENT")
	if _, err := a.Network.Connect(t.Context(), &brokerv1.ConnectRequest{Persona: "p", Addresses: third.Addrs}); err != nil {
		t.Fatal(err)
	}
	other := server(t)
	other.Connect(third)
	advertises(t, other, "type/sum")
	testbroker.Eventually(t, "the persona finds the provider", func() bool {
		stream, err := a.Network.FindPeers(t.Context(), &brokerv1.FindPeersRequest{Persona: "p", Capability: "type/sum"})
		if err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		return err == nil && r.GetPeerId() == other.ID
	})
}

// The table survives a restart although everybody that the node was told of is gone: it dials who was in it.
func TestTableOutlivesItsBootstrap(t *testing.T) {
	t.Parallel()
	bootstrap, old, a := server(t), server(t), server(t)
	old.Connect(bootstrap)
	a.Connect(bootstrap)
	advertises(t, old, "type/sum")
	// They get to know each other through the bootstrap node: a lookup dials whom it is told of.
	advertises(t, a, "type/sum")
	testbroker.Eventually(t, "the two have met", func() bool {
		_, err := find(t, a, "type/x", 1)
		return err == nil && connected(t, a, old.ID)
	})
	finds(t, a, "type/sum", old)
	a.Stop()
	bootstrap.Stop()
	a = testbroker.Start(t, testbroker.Options{Dir: a.Dir, Routing: app.RoutingServer})
	testbroker.Eventually(t, "it is back by itself", func() bool { return connected(t, a, old.ID) })
	newcomer := server(t)
	newcomer.Connect(old)
	advertises(t, newcomer, "type/new")
	finds(t, a, "type/new", newcomer)
}

// A node that everybody dials and that never dialled finds back as well: its table is written down as others stated it.
func TestTableOfOneThatNeverDials(t *testing.T) {
	t.Parallel()
	hub, other := server(t), server(t)
	other.Connect(hub)
	advertises(t, hub, "type/sum") // so the other is in its table
	hub.Stop()
	r, err := other.Network.ListKnownPeers(t.Context(), &brokerv1.ListKnownPeersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	hub = testbroker.Start(t, testbroker.Options{Dir: hub.Dir, Routing: app.RoutingServer})
	testbroker.Eventually(t, "the hub dials who was in its table", func() bool { return connected(t, hub, other.ID) })
	if len(r.GetPeers()) != 1 {
		t.Errorf("the other knows %v", r.GetPeers())
	}
	// A connection is there a moment before it is written down.
	testbroker.Eventually(t, "the hub has written down whom it reached", func() bool {
		got, err := hub.Network.ListKnownPeers(t.Context(), &brokerv1.ListKnownPeersRequest{})
		return err == nil && len(got.GetPeers()) == 1
	})
}

// Who is denied is neither asked nor found, and gets no answer.
func TestDeniedAreNotRouted(t *testing.T) {
	t.Parallel()
	third, bad, consumer := server(t), server(t), client(t)
	bad.Connect(third)
	consumer.Connect(third)
	advertises(t, bad, "type/sum")
	finds(t, consumer, "type/sum", bad)
	consumer.App.Restrict(access.New(nil, []string{bad.ID}))
	finds(t, consumer, "type/sum")
	if connected(t, consumer, bad.ID) {
		t.Error("a denied peer was dialled")
	}
	third.App.Restrict(access.New(nil, []string{bad.ID})) // with its records
	other := client(t)
	other.Connect(third)
	finds(t, other, "type/sum")
	testbroker.Eventually(t, "the denied one has nobody left to tell", func() bool {
		_, err := bad.Network.Advertise(t.Context(), &brokerv1.AdvertiseRequest{Capability: "type/late"})
		return err != nil
	})
}

// What a provider's user has pinned is found by who knows only its name, also when the peer that is named for it does not have it.
func TestContentIsFound(t *testing.T) {
	t.Parallel()
	start := func(role string) *testbroker.Broker {
		return testbroker.Start(t, testbroker.Options{Routing: role, Content: true, Advertise: "user"})
	}
	third, provider, consumer := start(app.RoutingServer), start(app.RoutingServer), start(app.RoutingClient)
	provider.Connect(third)
	consumer.Connect(third)
	advertises(t, provider, "ready")
	data := bytes.Repeat([]byte("shallot "), 100_000)
	for name, named := range map[string][]string{"nobody is named": nil, "one that does not have it is named": {third.ID}} {
		c, _, err := provider.Repository.Put(t.Context(), bytes.NewReader(append(data, name...)), repository.PinFor{Owner: "user"})
		if err != nil {
			t.Fatal(err)
		}
		testbroker.Eventually(t, "content comes when "+name, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), testbroker.Patience)
			defer cancel()
			f, err := consumer.Repository.Open(ctx, c.String(), repository.Source{Peers: named}, 0, 0)
			if err != nil {
				return false
			}
			defer f.Close()
			got, err := io.ReadAll(f)
			return err == nil && bytes.Equal(got, append(data, name...))
		})
	}
	// Nobody has this: it is an answer, in time.
	ctx, cancel := context.WithTimeout(t.Context(), testbroker.Patience)
	defer cancel()
	_, err := consumer.Repository.Open(ctx, "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", repository.Source{}, 0, 0)
	wantFault(t, err, codes.NotFound, repository.ReasonNotFound)
}

// What was pinned in an earlier life is advertised after a restart.
func TestContentIsFoundAfterARestart(t *testing.T) {
	t.Parallel()
	start := func(dir, role string) *testbroker.Broker {
		return testbroker.Start(t, testbroker.Options{Dir: dir, Routing: role, Content: true, Advertise: "user"})
	}
	third, first, consumer := start("", app.RoutingServer), testbroker.Start(t, testbroker.Options{Content: true}), start("", app.RoutingClient)
	data := []byte("it was here before")
	c, _, err := first.Repository.Put(t.Context(), bytes.NewReader(data), repository.PinFor{Owner: "user"})
	if err != nil {
		t.Fatal(err)
	}
	first.Connect(third)
	first.Stop()
	if err := first.Repository.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(first.Dir, app.RoutingServer)
	testbroker.Eventually(t, "it has dialled the third by itself", func() bool { return connected(t, again, third.ID) })
	consumer.Connect(third)
	testbroker.Eventually(t, "the content is found", func() bool {
		f, err := consumer.Repository.Open(t.Context(), c.String(), repository.Source{}, 0, 0)
		if err != nil {
			return false
		}
		defer f.Close()
		got, err := io.ReadAll(f)
		return err == nil && bytes.Equal(got, data)
	})
}
