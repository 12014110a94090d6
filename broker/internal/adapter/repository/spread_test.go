package repository

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// fakeLanes are hosts for content whose ways a test decides on. Peers name them as they are.
type fakeLanes struct {
	hosts []*only
	// change may put another way in the place of the one that was made, and is told the how-manieth of its number it is.
	change func(number, nth int, w Way) Way

	mu   sync.Mutex
	made map[int]int // ways, by number
}

func (f *fakeLanes) way(ctx context.Context, _, id string, number int) (Way, error) {
	p, err := peer.Decode(id)
	if err != nil {
		return nil, err
	}
	if number >= len(f.hosts) {
		return nil, errNoWay
	}
	w, err := f.hosts[number].way(ctx, p, 0)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made[number]++
	w = laneWay{w, number}
	if f.change != nil {
		w = f.change(number, f.made[number], w)
	}
	return w, nil
}

func (f *fakeLanes) count(number int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made[number]
}

type laneWay struct {
	Way
	number int
}

func (w laneWay) Lane() int { return w.number }

// deaf is a way by which nothing comes: what is asked goes to somebody who does not answer.
type deaf struct {
	Way
	to   host.Host
	once *sync.Once
	gone chan struct{}
}

func (w deaf) Peer() string          { return w.to.ID().String() }
func (w deaf) Heard() time.Time      { return time.Time{} }
func (w deaf) Gone() <-chan struct{} { return w.gone }
func (w deaf) Close()                { w.once.Do(func() { close(w.gone) }) }

// spreading is a store with so many hosts for content, each of which knows the peers, and what its requests wait for.
func spreading(t *testing.T, lanes int, peers ...host.Host) (*Store, *fakeLanes, []host.Host) {
	t.Helper()
	f := &fakeLanes{made: make(map[int]int)}
	s := newStore(t, anonymous, func(c *Config) {
		c.Lanes = &Lanes{Way: f.way, Owner: func(_, lane string) string { return lane }, Expect: func(string, []string) {}}
	})
	if err := s.Attach("", newHost(t)); err != nil {
		t.Fatal(err)
	}
	var hosts []host.Host
	for i := range lanes {
		h := newHost(t)
		if err := s.AttachLane("", i, h); err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			know(h, p)
		}
		hosts = append(hosts, h)
		f.hosts = append(f.hosts, newOnly(h, time.Minute))
	}
	return s, f, hosts
}

// A large file comes by all ways, each block once, and a small one by the first alone.
func TestWaysShareTheBlocks(t *testing.T) {
	t.Parallel()
	provider := newStore(t, anonymous)
	hp := attach(t, provider)
	consumer, ways, hosts := spreading(t, 3, hp)
	small, large := randomBytes(1, 100_000), randomBytes(2, 12<<20)
	mustGet(t, consumer, putFor(t, provider, small, "", hosts...), at(hp), small)
	if ways.count(0) != 1 || ways.count(1) != 0 {
		t.Errorf("one block has come by %d ways, and others", ways.count(0))
	}
	mustGet(t, consumer, putFor(t, provider, large, "", hosts...), at(hp), large)
	if ways.count(1) != 1 || ways.count(2) != 1 {
		t.Errorf("there were %d and %d more ways", ways.count(1), ways.count(2))
	}
	for i, h := range hosts {
		if len(h.Network().ConnsToPeer(hp.ID())) != 1 {
			t.Errorf("lane %d is not connected", i)
		}
	}
}

// A way whose circuit is dead, and whose connection does not know it, is ended and made anew.
func TestDeadWaysAreMadeAnew(t *testing.T) {
	t.Parallel()
	provider, silent := newStore(t, anonymous), newBystander(t)
	hp := attach(t, provider)
	consumer, ways, hosts := spreading(t, 1, hp, silent)
	consumer.profile.retry = 300 * time.Millisecond
	connect(t, hosts[0], silent)
	ways.change = func(_, nth int, w Way) Way {
		if nth == 1 {
			return deaf{w, silent, new(sync.Once), make(chan struct{})}
		}
		return w
	}
	data := randomBytes(3, 3<<20)
	mustGet(t, consumer, putFor(t, provider, data, "", hosts...), at(hp), data)
	if ways.count(0) != 2 {
		t.Errorf("%d ways were made", ways.count(0))
	}
	if !silent.sawAnything() {
		t.Error("the dead way was not tried")
	}
}

// Of several peers that are named, those that say nothing hold up nobody.
func TestSilentPeersHoldUpNobody(t *testing.T) {
	t.Parallel()
	provider, silent := newStore(t, anonymous), newBystander(t)
	hp := attach(t, provider)
	consumer, ways, hosts := spreading(t, 2, hp, silent)
	data := randomBytes(4, 6<<20)
	from := Source{Peers: []string{silent.ID().String(), hp.ID().String()}}
	begun := time.Now()
	mustGet(t, consumer, putFor(t, provider, data, "", hosts...), from, data)
	if took := time.Since(begun); took > consumer.profile.retry {
		t.Errorf("it took %s", took)
	}
	if ways.count(0) != 2 {
		t.Errorf("%d peers were dialled", ways.count(0))
	}
}

// What was broken off goes on: blocks that are here are not asked for again, whichever way brought them.
func TestWhatHasComeIsKept(t *testing.T) {
	t.Parallel()
	provider := newStore(t, anonymous)
	hp := attach(t, provider)
	consumer, _, hosts := spreading(t, 2, hp)
	data := randomBytes(5, 8<<20)
	c := putFor(t, provider, data, "", hosts...)
	ctx, cancel := context.WithCancel(t.Context())
	f, err := consumer.Open(ctx, c, at(hp), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for read < 4<<20 {
		b, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		read += len(b)
	}
	cancel()
	f.Close()
	mustGet(t, consumer, c, at(hp), data)
	if got := testutil.ToFloat64(consumer.metrics.blocks.WithLabelValues("fetched")); got > 8*4+1+2*wayWants {
		t.Errorf("%v blocks have come, there are 33", got)
	}
	if err := consumer.DetachLane("", 1); err != nil {
		t.Error(err)
	}
	if err := consumer.AttachLane("", 0, hosts[1]); err == nil {
		t.Error("there are two lanes of one number")
	}
	if err := consumer.AttachLane("nobody", 0, hosts[1]); err == nil {
		t.Error("there is a lane of nobody")
	}
	if n := len(consumer.lanesOf(consumer.personas[""])); n != 1 {
		t.Errorf("%d lanes are left", n)
	}
}
