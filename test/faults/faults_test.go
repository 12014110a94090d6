// Package faults_test hurts a network of real processes while it works, and looks at what its users see and what is left behind.
package faults_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/faults"
)

var (
	seed  = flag.Uint64("seed", 1, "what happens, and when; 0: another one each time")
	last  = flag.Duration("for", 45*time.Second, "how long the network is hurt")
	every = flag.Duration("every", 2*time.Second, "mean time between two faults")
	kinds = flag.String("kinds", "", "only these faults, separated by commas")
	clock = flag.Bool("clock", false, "set the clock of this machine forward and back, too: as root, and with nothing else on the machine that minds")
)

const (
	providers, consumers = 3, 2
	lease                = 8 * time.Second  // the shortest
	acknowledge          = 10 * time.Second // the broker's
)

// world is the network, which a blackout replaces by another one on the same folder.
type world struct {
	t       *testing.T
	dir     string
	filled  string // the node with a disk of its own; empty for none
	peers   map[string]string
	mu      sync.Mutex
	net     *dev.Network
	hurt    map[faults.Kind]int
	skipped []string
}

func start(t *testing.T, dir string) *dev.Network {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	n, err := dev.Start(context.Background(), dev.Config{Bin: bin, Dir: dir, Providers: providers, Consumers: consumers})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) network() *dev.Network {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.net
}

// client is nil while there is no network.
func (w *world) client(node string) nodev1.NodeServiceClient {
	n := w.network()
	if n == nil {
		return nil
	}
	c, err := n.Node(node)
	if err != nil {
		return nil
	}
	return c
}

// TestFaults hurts a network under load for a while. Then everything is well again, and: every task that was accepted has come to one
// terminal state, its user has seen no other outcome and no wrong one, nothing is left behind, and every store opens.
func TestFaults(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: the same faults again with -seed %d -for %v -every %v", *seed, *seed, *last, *every)
	t.Setenv("SHALLOT_TASK_CONSUMER_LEASE", lease.String())
	t.Setenv("SHALLOT_TASK_PROVIDER_SLOTS", "4")
	t.Setenv("SHALLOT_DISCOVERY_ANNOUNCE_MIN", "1s")
	t.Setenv("SHALLOT_DISCOVERY_ANNOUNCE_PER_PEER", "0s")
	w := &world{t: t, dir: t.TempDir(), peers: map[string]string{}, hurt: map[faults.Kind]int{}}
	w.smallDisk("provider-3")
	w.net = start(t, w.dir)
	t.Cleanup(func() {
		if err := w.network().Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, w.network().Tail())
		}
	})
	for _, node := range w.net.Nodes() {
		w.peers[node] = w.peerID(node)
	}
	fresh := w.inventory()

	l := newLoad(w)
	l.begin()
	plan := w.plan()
	w.apply(plan)
	accepted := l.stop()
	t.Logf("%d faults: %s", len(plan), w.counts())
	l.settle(3 * time.Minute)
	l.judge()
	w.nothingLeft(fresh, accepted)

	before := l.outcomes()
	if err := w.network().Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if left, err := w.network().Leftovers(); err != nil || len(left) > 0 {
		t.Errorf("processes left: %v, %v", left, err)
	}
	w.noSecrets()
	w.mu.Lock()
	w.net = start(t, w.dir) // every store opens
	w.mu.Unlock()
	l.settle(time.Minute)
	for id, o := range l.outcomes() {
		if o != before[id] {
			t.Errorf("after a restart task %s is %s, and was %s", id, o, before[id])
		}
	}
	t.Logf("%d tasks were accepted; after a restart all are as they were", accepted)
}

func (w *world) plan() []faults.Fault {
	c := faults.Config{Seed: *seed, For: *last, Every: *every, Lease: lease, Ack: acknowledge, Nodes: w.net.Nodes(), Filled: w.filled, Clock: *clock,
		Processes: func(node string) []string {
			if strings.HasPrefix(node, "consumer") {
				return []string{"task", "node", "broker", "gateway"}
			}
			return []string{"task", "node", "broker", "gateway", "discovery", "metric", "executor-wasm"}
		}}
	for _, k := range strings.FieldsFunc(*kinds, func(r rune) bool { return r == ',' }) {
		c.Kinds = append(c.Kinds, faults.Kind(k))
	}
	return faults.Plan(c)
}

func (w *world) counts() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, k := range []faults.Kind{faults.Kill, faults.Silence, faults.Stall, faults.Drop, faults.Cut, faults.Fill, faults.Jump, faults.Blackout} {
		if n := w.hurt[k]; n > 0 {
			out = append(out, fmt.Sprintf("%s %d", k, n))
		}
	}
	return strings.Join(append(out, w.skipped...), ", ")
}

// eventually waits until f says true; it is false when it did not within the time.
func eventually(within time.Duration, f func() bool) bool {
	deadline := time.Now().Add(within)
	for !f() {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(50 * time.Millisecond)
	}
	return true
}

func (w *world) peerID(node string) (id string) {
	ok := eventually(30*time.Second, func() bool {
		c := w.client(node)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		r, err := c.GetNode(ctx, &nodev1.GetNodeRequest{})
		id = r.GetNode().GetPeerId()
		return err == nil && id != ""
	})
	if !ok {
		w.t.Fatalf("%s does not say who it is", node)
	}
	return id
}

// smallDisk gives a node a file system of its own, where that may be done.
func (w *world) smallDisk(node string) {
	dir := filepath.Join(w.dir, node)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := mount(dir, 96<<20); err != nil {
		w.skipped = append(w.skipped, "no disk was filled: "+err.Error())
		return
	}
	w.t.Cleanup(func() {
		if !eventually(10*time.Second, func() bool { return unmount(dir) == nil }) {
			w.t.Errorf("%s could not be unmounted", dir)
		}
	})
	w.filled = node
}
