package libp2p

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/broker/internal/oniontest"
)

// anonymousHost is one behind a stand-in for tor.
func anonymousHost(t testing.TB, tor *oniontest.Tor, service bool, change func(*app.Handlers)) *Host {
	t.Helper()
	n, err := NewNetwork(Config{Onion: &Onion{SOCKS: tor.SOCKS, Dir: privateDir(t), Service: service, Services: tor}})
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, n, change)
}

// privateDir is one that its owner alone can enter, with a short name for sockets.
func privateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "in")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func opened(t testing.TB, n *Network, change func(*app.Handlers)) *Host {
	t.Helper()
	h := app.Handlers{
		Stream:   func(_ string, s app.Stream) { _ = s.Reset() },
		Validate: func(string, string, []byte) (app.Verdict, *event.Event) { return app.VerdictAccept, &event.Event{} },
		Gossip:   func(string, string, *event.Event) {},
		Lost:     func(string, string) {},
		Changed:  func(string, bool) {},
		Reached:  func(string, []string) {},
	}
	if change != nil {
		change(&h)
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	out, err := n.Open("", seed, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	if err := out.Listen(); err != nil {
		t.Fatal(err)
	}
	return out.(*Host)
}

// A consumer dials out and is answered on the same connection; nobody learns where it is, because it is nowhere.
func TestAnonymousHostsTalk(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	heard := make(chan string, 1)
	provider := anonymousHost(t, tor, true, func(h *app.Handlers) {
		h.Stream = func(from string, s app.Stream) {
			b, _ := io.ReadAll(s)
			heard <- from + " " + string(b)
		}
	})
	back := make(chan string, 1)
	consumer := anonymousHost(t, tor, false, func(h *app.Handlers) {
		h.Stream = func(_ string, s app.Stream) {
			b, _ := io.ReadAll(s)
			back <- string(b)
		}
	})
	if got := consumer.Addresses(); len(got) != 0 {
		t.Errorf("the consumer is at %v", got)
	}
	want, _ := onion.Address(provider.host.ID())
	if got := provider.Addresses(); !slices.Equal(got, []string{want.String()}) {
		t.Errorf("the provider is at %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := consumer.Connect(ctx, app.Target{Addresses: []string{want.String() + "/p2p/" + provider.ID()}}); err != nil {
		t.Fatal(err)
	}
	say := func(from *Host, to, what string) {
		t.Helper()
		s, err := from.OpenStream(ctx, to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte(what)); err != nil {
			t.Error(err)
		}
		_ = s.Close()
	}
	say(consumer, provider.ID(), "there")
	if got := <-heard; got != consumer.ID()+" there" {
		t.Errorf("the provider heard %q", got)
	}
	say(provider, consumer.ID(), "back")
	if got := <-back; got != "back" {
		t.Errorf("the consumer heard %q", got)
	}
	for _, p := range provider.Peers() {
		if len(p.Addresses) != 0 {
			t.Errorf("the provider has addresses of the consumer: %v", p.Addresses)
		}
	}
	for _, c := range provider.host.Network().ConnsToPeer(consumer.host.ID()) {
		if s := c.RemoteMultiaddr().String(); !strings.HasPrefix(s, "/onion3/aaaaaaaa") {
			t.Errorf("the consumer came from %s", s)
		}
	}
}

// What a host says of itself is the same for every build, in this mode too.
func TestWhatAnonymousPeersSee(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	a, b := anonymousHost(t, tor, false, nil), anonymousHost(t, tor, true, nil)
	connect(t, a, b)
	var protocols []protocol.ID
	eventually(t, "the peer says what it speaks", func() (there bool) {
		var err error
		protocols, err = a.host.Peerstore().GetProtocols(b.host.ID())
		return err == nil && len(protocols) > 0
	})
	slices.Sort(protocols)
	if want := []protocol.ID{"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", EventProtocol, GossipProtocol}; !slices.Equal(protocols, want) {
		t.Errorf("the protocols are %v, want %v", protocols, want)
	}
	for key, want := range map[string]string{"AgentVersion": "shallot", "ProtocolVersion": "shallot/1"} {
		if got, err := a.host.Peerstore().Get(b.host.ID(), key); err != nil || got != want {
			t.Errorf("%s is %v, %v", key, got, err)
		}
	}
}

// Whatever a peer says of itself, nothing but its own onion is kept, dialled or handed on.
func TestAnonymousHostsKeepNoCanary(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := anonymousHost(t, tor, true, nil), anonymousHost(t, tor, false, nil)
	canaries := []string{"/ip4/192.0.2.77/tcp/4001", "/ip4/192.0.2.77/udp/4001/quic-v1", "/dnsaddr/canary.example", "/dns4/canary.example/tcp/443"}
	connect(t, consumer, provider)
	id := provider.host.ID()
	for _, s := range canaries {
		consumer.host.Peerstore().AddAddr(id, ma.StringCast(s), time.Hour)
		if consumer.gate.InterceptAddrDial(id, ma.StringCast(s)) {
			t.Errorf("%s may be dialled", s)
		}
		if _, err := consumer.Remember(app.Target{Peer: provider.ID(), Addresses: []string{s}}); err != nil { // the peer's own word: not kept, no error
			t.Errorf("%s from the peer: %v", s, err)
		}
		if _, err := consumer.Connect(t.Context(), app.Target{Addresses: []string{s + "/p2p/" + provider.ID()}}); err == nil || !strings.Contains(err.Error(), "onion") {
			t.Errorf("%s that was typed: %v", s, err)
		}
	}
	if got := consumer.host.Peerstore().Addrs(id); len(got) != 1 || !onion.IsAddressOf(got[0], id) {
		t.Errorf("%v are kept", got)
	}
	_, stranger := newStranger(t)
	at, _ := onion.Address(stranger)
	if _, err := consumer.Connect(t.Context(), app.Target{Addresses: []string{at.String() + "/p2p/" + provider.ID()}}); err == nil {
		t.Error("an onion address is dialled for another peer than its own")
	}
}

func newStranger(t *testing.T) (*Host, peer.ID) {
	h := newHost(t, nil)
	return h, h.host.ID()
}

// When tor ends, so does every connection; and a peer is found again once tor is back.
func TestAnonymousHostsComeBackWithTor(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	provider, consumer := anonymousHost(t, tor, true, nil), anonymousHost(t, tor, false, nil)
	connect(t, consumer, provider)
	tor.Kill()
	eventually(t, "no connection is left", func() bool {
		return consumer.host.Network().Connectedness(provider.host.ID()) != network.Connected && provider.host.Network().Connectedness(consumer.host.ID()) != network.Connected
	})
	if _, err := consumer.Connect(t.Context(), app.Target{Peer: provider.ID()}); err == nil {
		t.Error("it connects without tor")
	}
	tor.Restart(t)
	connect(t, consumer, provider)
}

// No two connections share what tor keeps circuits apart by.
func TestTokens(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	p, q := anonymousHost(t, tor, true, nil), anonymousHost(t, tor, true, nil)
	a, b := anonymousHost(t, tor, false, nil), anonymousHost(t, tor, false, nil)
	connect(t, a, p)
	connect(t, a, q)
	connect(t, b, p)
	d := tor.Dials()
	if len(d) != 3 || d[0].Token == d[1].Token || d[0].Token == d[2].Token || d[1].Token == d[2].Token {
		t.Errorf("the dials are %+v", d)
	}
}

// More than the library's 16 peers can be dialled in a moment.
func TestAnonymousDialsAreNotHeldUp(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	hub := anonymousHost(t, tor, true, nil)
	for range 24 {
		connect(t, anonymousHost(t, tor, false, nil), hub)
	}
}

func TestAnonymousModeListensNowhereElse(t *testing.T) {
	t.Parallel()
	if _, err := NewNetwork(Config{ListenAddrs: []string{"/ip4/127.0.0.1/tcp/0"}, Onion: &Onion{}}); err == nil {
		t.Error("it takes a listen address")
	}
}

// Somebody who invents peers gets a bounded number of dials for them; whom the user names is dialled all the same.
func TestDialsToStrangersHaveABudget(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	host := anonymousHost(t, tor, false, nil)
	invent := func(as trust) error {
		_, id := newStranger(t)
		at, _ := onion.Address(id)
		target := app.Target{Peer: id.String(), Addresses: []string{at.String()}, Vouched: as == vouched}
		if as == typed {
			target = app.Target{Addresses: []string{at.String() + "/p2p/" + id.String()}}
		}
		_, err := host.Connect(t.Context(), target)
		return err
	}
	for range 60 {
		if err := invent(hearsay); err == nil {
			t.Fatal("an invention answers")
		}
	}
	if n := len(tor.Dials()); n < 40 || n > 50 {
		t.Errorf("%d of 60 inventions are dialled", n)
	}
	for _, as := range []trust{vouched, typed} {
		before := len(tor.Dials())
		if err := invent(as); err == nil || len(tor.Dials()) != before+1 {
			t.Errorf("of trust %d is not dialled: %v", as, err)
		}
	}
}
