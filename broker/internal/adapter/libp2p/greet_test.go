package libp2p

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/oniontest"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// laneHost is one whose content has hosts of its own, which nobody serves anything on.
func laneHost(t testing.TB, tor *oniontest.Tor, service bool, granted func(peer string) bool) *Host {
	t.Helper()
	n, err := NewNetwork(Config{Onion: &Onion{SOCKS: tor.SOCKS, Dir: privateDir(t), Service: service, Services: tor}, Granted: func(_, peer string) bool { return granted != nil && granted(peer) },
		OnLane: func(string, int, host.Host) error { return nil }, OffLane: func(string, int) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, n, nil)
}

func someKey(t testing.TB) (public []byte, id peer.ID) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if id, err = laneID(public); err != nil {
		t.Fatal(err)
	}
	return public, id
}

// greeting is what a host says when it is not this program's to write.
func greeting(t testing.TB, m *eventv1.BulkHosts) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeGreeting(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// say asks a host and returns its answer; nil: it hung up.
func say(t *testing.T, from, to *Host, b []byte) *claim {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := from.host.NewStream(ctx, to.host.ID(), BulkProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(patience))
	if _, err := s.Write(b); err != nil {
		return nil
	}
	_ = s.CloseWrite()
	c, _, err := readGreeting(s)
	if err != nil {
		return nil
	}
	return c
}

func TestGreetingsAreOfOneSize(t *testing.T) {
	t.Parallel()
	key, _ := someKey(t)
	for _, m := range []*eventv1.BulkHosts{{Keys: [][]byte{key}}, {Keys: [][]byte{key, key, key, key}, Reachable: true, Come: 4}} {
		b := greeting(t, m)
		c, come, err := readGreeting(bytes.NewReader(b))
		if err != nil || len(b) != greetingSize || come != int(m.GetCome()) || c.reachable != m.GetReachable() || len(c.lanes) != len(m.GetKeys()) {
			t.Errorf("%d bytes are read as %+v, %d, %v", len(b), c, come, err)
		}
	}
}

func TestGreetingsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	a, b := laneHost(t, tor, false, nil), laneHost(t, tor, true, nil)
	connect(t, a, b)
	key, _ := someKey(t)
	long := make([]byte, greetingSize)
	binary.BigEndian.PutUint16(long, greetingSize)
	noise := make([]byte, greetingSize)
	_, _ = rand.Read(noise[2:])
	noise[1] = 200
	for what, said := range map[string][]byte{
		"too short":     greeting(t, &eventv1.BulkHosts{Keys: [][]byte{key}})[:greetingSize-1],
		"a wrong size":  long,
		"noise":         noise,
		"no keys":       greeting(t, &eventv1.BulkHosts{Reachable: true}),
		"many keys":     greeting(t, &eventv1.BulkHosts{Keys: [][]byte{{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}}}),
		"no key at all": greeting(t, &eventv1.BulkHosts{Keys: [][]byte{key[:31]}}),
	} {
		if c := say(t, a, b, said); c != nil {
			t.Errorf("%s: the answer is %+v", what, c)
		}
	}
	if len(b.bulk.claims) != 0 {
		t.Errorf("%d peers are believed", len(b.bulk.claims))
	}
	if c := say(t, a, b, greeting(t, a.bulk.own(0))); c == nil || c.lanes[0] != b.bulk.ids[0] || !c.reachable {
		t.Errorf("one that does is answered %+v", c)
	}
}

// Nobody can take over another's lane, nor come in by one that nobody has named.
func TestWhoseLaneItIs(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	victim, thief, b := laneHost(t, tor, false, nil), laneHost(t, tor, false, nil), laneHost(t, tor, true, nil)
	connect(t, victim, b)
	connect(t, thief, b)
	to := b.bulk.ids[0]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if w, err := victim.bulk.dial(ctx, 0, to); err == nil { // the handshake may be through on this side
		select {
		case <-w.Gone():
		case <-ctx.Done():
			t.Error("who has not been named stays")
		}
		w.Release()
	}
	w, err := victim.bulk.way(ctx, b.host.ID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Release()
	mine := victim.bulk.own(0)
	if c := say(t, thief, b, greeting(t, &eventv1.BulkHosts{Keys: mine.GetKeys()})); c == nil {
		t.Fatal("no answer")
	}
	if got := b.network.Owner("", victim.bulk.ids[0].String()); got != victim.ID() {
		t.Errorf("the lane is %s's", got)
	}
	// Who is not let in any more is cut off on his lanes, too.
	b.Refuse(victim.ID(), time.Hour)
	select {
	case <-w.Gone():
	case <-ctx.Done():
		t.Error("who is refused keeps a lane")
	}
}

// Only who may have something can have a persona dial, and it dials nothing but what was named for it.
func TestWhoCanHaveLanesCome(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	friend, stranger := laneHost(t, tor, true, nil), laneHost(t, tor, true, nil)
	persona := laneHost(t, tor, false, func(peer string) bool { return peer == friend.ID() })
	connect(t, persona, friend)
	connect(t, persona, stranger)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := stranger.bulk.greet(ctx, persona.host.ID(), func(*claim) bool { return false }, 4); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		w, err := friend.bulk.way(ctx, persona.host.ID(), i)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Release()
	}
	theirs, err := onion.Address(stranger.bulk.ids[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range tor.Dials() {
		if at := "/onion3/" + d.Host[:len(d.Host)-len(".onion")] + ":4001"; at == theirs.String() {
			t.Error("a stranger has had the persona dial")
		}
	}
}

// Lanes are there when they are needed, and are the same again; the one that others dial stays.
func TestIdleLanesAreClosed(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	a, b := laneHost(t, tor, false, nil), laneHost(t, tor, true, nil)
	connect(t, a, b)
	count := func(h *Host) int {
		h.bulk.mu.Lock()
		defer h.bulk.mu.Unlock()
		return len(h.bulk.lanes)
	}
	if count(a) != 0 || count(b) != 1 {
		t.Fatalf("%d and %d lanes are open before anything is fetched", count(a), count(b))
	}
	var ids []peer.ID
	for range 2 {
		w, err := a.bulk.way(t.Context(), b.host.ID(), 2)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, w.lane.host.ID())
		later := time.Now().Add(3 * laneIdle)
		a.bulk.sweep(later)
		if count(a) != 1 {
			t.Error("a lane that is in use was closed")
		}
		w.Release()
		w.Release() // counts once
		a.bulk.sweep(time.Now())
		if count(a) != 1 {
			t.Error("a lane was closed at once")
		}
		a.bulk.sweep(later)
		b.bulk.sweep(later)
		if count(a) != 0 || count(b) != 1 {
			t.Errorf("%d and %d lanes are open at the end", count(a), count(b))
		}
		select {
		case <-w.Gone():
		default:
			t.Error("the way stands without its lane")
		}
	}
	if ids[0] != ids[1] || ids[0] != a.bulk.ids[2] || ids[0] == a.host.ID() {
		t.Errorf("the lane was %s and %s", ids[0], ids[1])
	}
}

// What is remembered of peers is bounded, and those that are connected are forgotten last.
func TestClaimsAreBounded(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	a, b := laneHost(t, tor, false, nil), laneHost(t, tor, true, nil)
	connect(t, a, b)
	if _, err := a.bulk.way(t.Context(), b.host.ID(), 0); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxClaims {
		b.bulk.learn(peer.ID(fmt.Sprint("peer ", i)), &claim{lanes: []peer.ID{peer.ID(fmt.Sprint("lane ", i))}})
	}
	if len(b.bulk.claims) != maxClaims || len(b.bulk.owners) > maxClaims+len(a.bulk.ids) {
		t.Errorf("%d peers and %d lanes are remembered", len(b.bulk.claims), len(b.bulk.owners))
	}
	if b.network.Owner("", a.bulk.ids[0].String()) != a.ID() {
		t.Error("one that is connected was forgotten")
	}
}

// A persona that is closed while its lanes are being made leaves nothing.
func TestLanesEndWithTheirPersona(t *testing.T) {
	t.Parallel()
	tor := oniontest.New(t)
	a, b := laneHost(t, tor, false, nil), laneHost(t, tor, true, nil)
	connect(t, a, b)
	w, err := a.bulk.way(t.Context(), b.host.ID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 4 {
			if w, err := a.bulk.way(t.Context(), b.host.ID(), i); err == nil {
				w.Release()
			}
		}
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	<-w.Gone()
	if _, err := a.bulk.open(3); err == nil {
		t.Error("a lane was opened afterwards")
	}
	if len(a.bulk.lanes) != 0 {
		t.Errorf("%d lanes are left", len(a.bulk.lanes))
	}
}

func FuzzGreeting(f *testing.F) {
	f.Add(greeting(f, &eventv1.BulkHosts{Keys: [][]byte{make([]byte, 32)}, Reachable: true, Come: 4}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, come, err := readGreeting(bytes.NewReader(b))
		if err == nil && (len(c.lanes) == 0 || len(c.lanes) > maxKeys || come < 0 || come > maxKeys) {
			t.Errorf("%d lanes, %d are to come", len(c.lanes), come)
		}
	})
}
