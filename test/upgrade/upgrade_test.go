// Package upgrade tests that nodes of the previous release become nodes of this one without losing anything, and that both understand each other meanwhile.
package upgrade

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/release"
)

// probe is the program that tasks run; probeFile has it for the command.
var (
	probe     []byte
	probeFile string
	current   string // this version's programs
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shallot-upgrade")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if current, err = dev.Bin(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	probeFile = filepath.Join(dir, "probe.wasm")
	build := exec.Command("go", "build", "-trimpath", "-o", probeFile, "../programs/probe")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the probe: %v\n%s", err, out)
		return 1
	}
	if probe, err = os.ReadFile(probeFile); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// step is one service of one node that is upgraded.
type step struct{ role, service string }

func (s step) String() string { return s.role + "'s " + s.service }

// pairOf starts a provider and a consumer of two versions, which may be the same.
func pairOf(t *testing.T, provider, consumer string) (p, c *machine) {
	t.Helper()
	p = newMachine(t, provider, "provider")
	c = newMachine(t, consumer, "consumer", "--bootstrap", p.addr)
	eventually(t, time.Minute, "the consumer knows the provider", func() bool { return strings.Contains(c.cli("peers", "--output", "json"), p.peer) })
	return p, c
}

// rolling upgrades both nodes under load in the given order, the supervisors last.
func rolling(t *testing.T, old string, steps []step, sig syscall.Signal) {
	begin := time.Now()
	t.Logf("in this order: %v", steps)
	p, c := pairOf(t, old, old)
	peers := [2]string{p.peer, c.peer}
	l := startLoad(t, c)
	for _, s := range steps {
		before := l.count()
		eventually(t, time.Minute, "tasks are submitted", func() bool { return l.count() > before+workers })
		m := p
		if s.role == "consumer" {
			m = c
		}
		m.upgrade(current, s.service, sig)
	}
	p.upgradeSupervisor(current)
	c.upgradeSupervisor(current)
	before := l.count()
	eventually(t, time.Minute, "tasks are submitted after all", func() bool { return l.count() > before+workers })
	n, extra := l.finish()
	for i, m := range []*machine{p, c} {
		var now struct {
			PeerID  string `json:"peer_id"`
			Version string `json:"version"`
		}
		if err := json.Unmarshal([]byte(m.cli("node", "--output", "json")), &now); err != nil || now.PeerID != peers[i] {
			t.Errorf("the %s was %s and is %s: %v", m.role, peers[i], now.PeerID, err)
		}
	}
	t.Logf("%d tasks, one outcome each, %d attempts more than one, in %v", n, extra, time.Since(begin).Round(time.Second))
}

// stepsOf puts the orders of the two nodes into one, each kept, drawn by lot.
func stepsOf(rng *rand.Rand, provider, consumer []string) (steps []step) {
	for len(provider)+len(consumer) > 0 {
		if rng.IntN(len(provider)+len(consumer)) < len(provider) {
			steps, provider = append(steps, step{"provider", provider[0]}), provider[1:]
		} else {
			steps, consumer = append(steps, step{"consumer", consumer[0]}), consumer[1:]
		}
	}
	return steps
}

// covering gives orders that pass through every mixture of old and new services: all orders of them are paths between the same mixtures.
func covering(list []string) (orders [][]string) {
	key := func(done []string) string { return strings.Join(slices.Sorted(slices.Values(done)), " ") }
	open := map[string]bool{}
	all := permutations(list)
	for _, p := range all {
		for i := range p {
			open[key(p[:i])] = true
		}
	}
	for len(open) > 0 {
		var best []string
		most := 0
		for _, p := range all {
			n := 0
			for i := range p {
				if open[key(p[:i])] {
					n++
				}
			}
			if n > most {
				best, most = p, n
			}
		}
		for i := range best {
			delete(open, key(best[:i]))
		}
		orders = append(orders, best)
	}
	return orders
}

// Service by service, in an order that nobody chose, both nodes get the new programs while tasks run. SHALLOT_LONG has every mixture of old and new services, by SIGTERM and by SIGKILL.
func TestRollingUpgrade(t *testing.T) {
	old := release.Programs(t)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	shuffled := func(role string) []string {
		s := services(role)
		rng.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		return s
	}
	if os.Getenv("SHALLOT_LONG") == "" {
		rolling(t, old, stepsOf(rng, shuffled("provider"), shuffled("consumer")), syscall.SIGTERM)
		return
	}
	provider, consumer := covering(services("provider")), covering(services("consumer"))
	t.Logf("%d orders at the provider and %d at the consumer pass through every mixture", len(provider), len(consumer))
	for i := range max(len(provider), len(consumer)) {
		sig := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i%2]
		steps := stepsOf(rng, provider[i%len(provider)], consumer[i%len(consumer)])
		t.Run(fmt.Sprint(i+1), func(t *testing.T) { rolling(t, old, steps, sig) })
	}
}

// A node of the previous release and one of this one do everything with each other that two of one release do.
func TestOldAndNewWorkTogether(t *testing.T) {
	old := release.Programs(t)
	for name, programs := range map[string][2]string{"an old consumer and a new provider": {current, old}, "a new consumer and an old provider": {old, current}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, c := pairOf(t, programs[0], programs[1])
			if out := c.cli("run", "sum", "0.1", "0.2"); out != "0.3\n" {
				t.Errorf("the sum is %q", out)
			}
			if out := c.cli("run", "wasm", probeFile, "--", "print", "300000"); out != printed(300_000) {
				t.Errorf("a large result has %d bytes", len(out))
			}
			in, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			for i := range 5 {
				if err := os.WriteFile(filepath.Join(in, fmt.Sprint(i)), []byte(strings.Repeat(fmt.Sprint(i), 1+i*30_000)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c.cli("map", "wasm", probeFile, "--inputs", filepath.Join(in, "*"), "--output", out, "--", "cat")
			for i := range 5 {
				if b, err := os.ReadFile(filepath.Join(out, fmt.Sprint(i))); err != nil || string(b) != strings.Repeat(fmt.Sprint(i), 1+i*30_000) {
					t.Errorf("shard %d has %d bytes, %v", i, len(b), err)
				}
			}
			big := filepath.Join(t.TempDir(), "big")
			if err := os.WriteFile(big, []byte(strings.Repeat("0123456789", 300_000)), 0o600); err != nil {
				t.Fatal(err)
			}
			cid := strings.TrimSpace(p.cli("content", "put", big))
			if got := c.cli("content", "get", cid); got != strings.Repeat("0123456789", 300_000) {
				t.Errorf("content has %d bytes", len(got))
			}
		})
	}
}

func TestCoveringOrdersPassThroughEveryMixture(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	orders := covering(services("provider"))
	for _, o := range orders {
		for i := range len(o) + 1 {
			seen[strings.Join(slices.Sorted(slices.Values(o[:i])), " ")] = true
		}
	}
	if len(seen) != 64 {
		t.Errorf("%d orders have %d of 64 mixtures: %v", len(orders), len(seen), slices.Sorted(maps.Keys(seen)))
	}
}
