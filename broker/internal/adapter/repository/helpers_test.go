package repository

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/logging"
)

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.DisableRelay(),
		libp2p.ResourceManager(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func newStore(t testing.TB, edit ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Log: logging.New(t.Output(), "debug", "text", "test"), CollectEvery: -1, StallTimeout: 10 * time.Second}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func attach(t testing.TB, s *Store) host.Host {
	t.Helper()
	return attachAs(t, s, "")
}

func attachAs(t testing.TB, s *Store, persona string) host.Host {
	t.Helper()
	h := newHost(t)
	if err := s.Attach(persona, h); err != nil {
		t.Fatal(err)
	}
	return h
}

func anonymous(c *Config) { c.Anonymous, c.StallTimeout = true, time.Minute }

// know tells a of b's address, and does not connect.
func know(a, b host.Host) {
	a.Peerstore().AddAddrs(b.ID(), b.Addrs(), peerstore.PermanentAddrTTL)
}

func connect(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Connect(context.Background(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// noise is n bytes that are the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = r.Read(b)
	return b
}

func put(t testing.TB, s *Store, data []byte, owner string) string {
	t.Helper()
	c, size, err := s.Put(context.Background(), bytes.NewReader(data), PinFor{Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	if size != uint64(len(data)) {
		t.Fatalf("put says %d bytes of %d", size, len(data))
	}
	return c.String()
}

func get(s *Store, c string, src Source) ([]byte, error) {
	f, err := s.Open(context.Background(), c, src, 0, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func mustGet(t testing.TB, s *Store, c string, src Source, want []byte) {
	t.Helper()
	got, err := get(s, c, src)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes that differ from the %d put", len(got), len(want))
	}
}

func commit(t testing.TB, s *Store, c app.Change) {
	t.Helper()
	if err := s.blocks.Commit(c); err != nil {
		t.Fatal(err)
	}
}

func pinsOf(cids ...string) (pins []content.Pin) {
	for _, c := range cids {
		pins = append(pins, content.Pin{CID: c, Owner: "user"})
	}
	return pins
}
