package libp2p_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	mrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/broker/internal/adapter/libp2p"
	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/adapter/repository"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/broker/internal/oniontest"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

const patience = time.Minute

// node is a broker's network and content, without the services.
type node struct {
	t        *testing.T
	network  *libp2p.Network
	store    *repository.Store
	registry *prometheus.Registry
	hosts    map[string]app.Host
	raw      map[string]host.Host // those of events
	lanes    chan string          // personas, for each of whose lanes that was opened
}

func newNode(t *testing.T, tor *oniontest.Tor, service bool, personas ...string) *node {
	t.Helper()
	n := &node{t: t, registry: prometheus.NewRegistry(), hosts: make(map[string]app.Host), raw: make(map[string]host.Host), lanes: make(chan string, 64)}
	in, err := os.MkdirTemp("", "in")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(in) })
	lanes := &repository.Lanes{
		Way: func(ctx context.Context, persona, peer string, number int) (repository.Way, error) {
			w, err := n.network.Way(ctx, persona, peer, number)
			if err != nil {
				return nil, err
			}
			return w, nil
		},
		Owner:  func(persona, lane string) string { return n.network.Owner(persona, lane) },
		Expect: func(persona string, peers []string) { n.network.Expect(persona, peers) },
	}
	n.store, err = repository.New(repository.Config{Dir: t.TempDir(), Log: logging.New(t.Output(), "debug", "text", "test"), CollectEvery: -1, Anonymous: true, Lanes: lanes, Registry: n.registry, StallTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	n.network, err = libp2p.NewNetwork(libp2p.Config{Onion: &libp2p.Onion{SOCKS: tor.SOCKS, Dir: in, Service: service, Services: tor}, Granted: n.store.Granted,
		OnHost:  func(persona string, h host.Host) error { n.raw[persona] = h; return n.store.Attach(persona, h) },
		OffHost: n.store.Detach,
		OnLane: func(persona string, lane int, h host.Host) error {
			n.lanes <- persona
			return n.store.AttachLane(persona, lane, h)
		},
		OffLane: n.store.DetachLane})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append([]string{""}, personas...) {
		n.open(p)
	}
	t.Cleanup(func() {
		for _, h := range n.hosts {
			_ = h.Close()
		}
		_ = n.store.Close()
	})
	return n
}

func (n *node) open(persona string) {
	n.t.Helper()
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	h, err := n.network.Open(persona, seed, app.Handlers{
		Stream:   func(_ string, s app.Stream) { _ = s.Reset() },
		Validate: func(string, string, []byte) (app.Verdict, *event.Event) { return app.VerdictAccept, &event.Event{} },
		Gossip:   func(string, string, *event.Event) {}, Lost: func(string, string) {}, Changed: func(string, bool) {}, Reached: func(string, []string) {},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.hosts[persona] = h
	if err := h.Listen(); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) id(persona string) string { return n.hosts[persona].ID() }

// connect has a persona dial a node.
func (n *node) connect(persona string, to *node) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	if _, err := n.hosts[persona].Connect(ctx, app.Target{Addresses: []string{to.hosts[""].Addresses()[0] + "/p2p/" + to.id("")}}); err != nil {
		n.t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !to.hosts[""].Connected(n.id(persona)) { // who dials is connected first
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatal("the other side is not connected")
		}
	}
}

func (n *node) put(persona string, data []byte, readers ...string) string {
	n.t.Helper()
	c, _, err := n.store.Put(n.t.Context(), bytes.NewReader(data), repository.PinFor{Owner: "task:1", Persona: persona, Readers: readers})
	if err != nil {
		n.t.Fatal(err)
	}
	return c.String()
}

func (n *node) get(persona, c string, from ...string) ([]byte, error) {
	f, err := n.store.Open(n.t.Context(), c, repository.Source{Persona: persona, Peers: from}, 0, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func (n *node) mustGet(persona, c string, want []byte, from ...string) {
	n.t.Helper()
	got, err := n.get(persona, c, from...)
	if err != nil || !bytes.Equal(got, want) {
		n.t.Fatalf("%d bytes of %d: %v", len(got), len(want), err)
	}
}

// fetched is how many blocks have come.
func (n *node) fetched() float64 {
	n.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == repository.MetricBlocks && m.GetLabel()[0].GetValue() == "fetched" {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = mrand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

func serviceOf(t *testing.T, id string) string {
	t.Helper()
	p, err := peer.Decode(id)
	if err != nil {
		t.Fatal(err)
	}
	a, err := onion.Address(p)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(strings.SplitN(a.String(), ":", 2)[0], "/onion3/")
}

// dials are the credentials of those to a service that is not that of events, and to the one that is.
func dials(tor *oniontest.Tor, events string) (content, other []string) {
	for _, d := range tor.Dials() {
		if strings.TrimSuffix(d.Host, ".onion") == events {
			other = append(other, d.Token)
		} else {
			content = append(content, d.Token)
		}
	}
	return content, other
}

// A large result comes by several circuits side by side, none of which is that of events, from a service that is not that of events.
func TestResultsComeByOtherHosts(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := newNode(t, tor, true), newNode(t, tor, false, "p")
	consumer.connect("p", provider)
	data := random(8<<20 + 5)
	c := provider.put("", data, consumer.id("p"))
	if n := len(consumer.lanes); n != 0 {
		t.Errorf("%d lanes are open, and nothing is to be fetched", n)
	}
	consumer.mustGet("p", c, data, provider.id(""))
	content, events := dials(tor, serviceOf(t, provider.id("")))
	if len(events) != 1 || len(content) < 2 || len(content) > 4 {
		t.Errorf("%d circuits for events, %d for content", len(events), len(content))
	}
	all := slices.Concat(content, events)
	slices.Sort(all)
	if len(slices.Compact(all)) != len(content)+len(events) {
		t.Error("two connections have the same credentials, and so a circuit in common")
	}
	if got, want := consumer.fetched(), float64(8*4+1+1); got != want {
		t.Errorf("%v blocks have come, there are %v", got, want)
	}
	for _, n := range []*node{provider, consumer} {
		for persona, h := range n.raw {
			for _, p := range h.Mux().Protocols() {
				if strings.Contains(string(p), "bitswap") {
					t.Errorf("the host of events of %q speaks %s", persona, p)
				}
			}
		}
	}
	if protocols, err := consumer.raw["p"].Peerstore().GetProtocols(provider.raw[""].ID()); err != nil || slices.ContainsFunc(protocols, func(p protocol.ID) bool { return strings.Contains(string(p), "bitswap") }) {
		t.Errorf("the provider's host of events speaks %v, %v", protocols, err)
	}
}

// A provider cannot dial a persona: it is dialled, before it asks where it may be about to, and else when it asks.
func TestPayloadsComeByOtherHosts(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := newNode(t, tor, true), newNode(t, tor, false, "p")
	consumer.connect("p", provider)
	data := random(5 << 20)
	c := consumer.put("p", data, provider.id(""))
	select {
	case who := <-consumer.lanes:
		if who != "p" {
			t.Errorf("the lane is of %q", who)
		}
	case <-time.After(patience):
		t.Fatal("nobody is expected")
	}
	provider.mustGet("", c, data, consumer.id("p"))
	if content, _ := dials(tor, serviceOf(t, provider.id(""))); len(content) < 2 {
		t.Errorf("it came by %d circuits", len(content))
	}
}

func TestPayloadsAreAskedFor(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := newNode(t, tor, true), newNode(t, tor, false, "p")
	data := random(3 << 20)
	c := consumer.put("p", data, provider.id("")) // while the persona does not know where the provider is
	consumer.connect("p", provider)
	provider.mustGet("", c, data, consumer.id("p"))
}

// Providers fetch from each other: each has a service.
func TestProvidersFetchFromProviders(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	one, other := newNode(t, tor, true), newNode(t, tor, true)
	other.connect("", one)
	data := random(3 << 20)
	other.mustGet("", one.put("", data, other.id("")), data, one.id(""))
	one.mustGet("", other.put("", random(700), one.id("")), random(700), other.id(""))
}

// Nobody but the reader of a pin has what it grants: not another persona of the same consumer, nor who has not said whose lanes are his.
func TestLanesGrantNothingToOthers(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := newNode(t, tor, true), newNode(t, tor, false, "p", "q")
	consumer.connect("p", provider)
	consumer.connect("q", provider)
	data := random(300 << 10)
	c := provider.put("", data, consumer.id("p"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for _, persona := range []string{"q", ""} {
		_, err := consumer.store.Open(ctx, c, repository.Source{Persona: persona, Peers: []string{provider.id("")}}, 0, 0)
		if err == nil {
			t.Errorf("the persona %q has it", persona)
		}
	}
	if consumer.fetched() != 0 {
		t.Error("blocks have come")
	}
	consumer.mustGet("p", c, data, provider.id(""))
}

// Personas have nothing in common that a provider could see: no host, no circuit, no key.
func TestLanesOfPersonasShareNothing(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := newNode(t, tor, true), newNode(t, tor, false, "p", "q")
	data := random(2 << 20)
	seen := make(map[string]string)
	for _, persona := range []string{"p", "q"} {
		consumer.connect(persona, provider)
		consumer.mustGet(persona, provider.put("", data, consumer.id(persona)), data, provider.id(""))
		for i := range 4 {
			mine, err := consumer.network.Way(t.Context(), persona, provider.id(""), i)
			if err != nil {
				t.Fatal(err)
			}
			defer mine.Release()
			w, err := provider.network.Way(t.Context(), "", consumer.id(persona), i)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Release()
			if was := seen[w.Peer()]; was != "" && was != persona {
				t.Errorf("a lane is %s's and %s's", was, persona)
			}
			seen[w.Peer()] = persona
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d lanes were seen", len(seen))
	}
	all, events := dials(tor, serviceOf(t, provider.id("")))
	all = append(all, events...)
	slices.Sort(all)
	if n := len(all); len(slices.Compact(all)) != n {
		t.Error("two connections have the same credentials")
	}
}

// Circuits that die in the middle are made anew, and what has come does not come again.
func TestTransfersGoOnByOtherCircuits(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := newNode(t, tor, true), newNode(t, tor, false, "p")
	consumer.connect("p", provider)
	data := random(12 << 20)
	c := provider.put("", data, consumer.id("p"))
	f, err := consumer.store.Open(t.Context(), c, repository.Source{Persona: "p", Peers: []string{provider.id("")}}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []byte
	cuts := 0
	for {
		b, err := f.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		if got = append(got, b...); len(got) > (3+3*cuts)<<20 && cuts < 2 {
			cuts++
			tor.Cut()
		}
	}
	if !bytes.Equal(got, data) || cuts != 2 {
		t.Fatalf("%d bytes of %d, cut %d times", len(got), len(data), cuts)
	}
	if n := consumer.fetched(); n != 12*4+1 {
		t.Errorf("%v blocks have come, there are 49", n)
	}
}

// A peer that is not there fails at once, and not after all patience.
func TestNoWay(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := newNode(t, tor, true), newNode(t, tor, false, "p", "q")
	c := provider.put("", random(100), consumer.id("p"))
	_, err := consumer.get("p", c, provider.id("")) // its address is known to nobody
	if f := fault.From(err); f.Reason != repository.ReasonUnreachable {
		t.Errorf("nobody knows where it is: %v", err)
	}
	if _, err := consumer.network.Way(t.Context(), "p", provider.id(""), 4); err == nil {
		t.Error("there is a fifth lane")
	}
	if _, err := consumer.network.Way(t.Context(), "no such", provider.id(""), 0); err == nil {
		t.Error("of a persona that is not there")
	}
}
