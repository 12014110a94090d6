package leak

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/anonymous"
	"github.com/shallot-net/shallot/test/internal/hostile"
)

const consumer = "consumer-1"

// start starts a network that is watched, and a peer that poisons it. Sockets need a short path, so it is not in t.TempDir.
func start(t *testing.T) (n *anonymous.Network, evil, blunt *hostile.Poisoner, dir string) {
	t.Helper()
	anonymous.Need(t, "tor", "strace", "ip")
	dir, err := os.MkdirTemp("", "leak")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n, err = anonymous.Start(t.Context(), anonymous.Config{Bin: bin, Dir: dir, Providers: 3, Consumers: 1, Traced: []string{"provider-1", consumer}, Watched: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the network was ready after %v", n.ReadyAfter.Round(time.Second))
	t.Cleanup(func() {
		_ = n.Stop()
		if t.Failed() {
			t.Logf("supervisor said:\n%s\n%s", n.Tail(), n.Logs())
		}
	})
	evil, blunt = n.Poison(t, "provider-3", consumer)
	return n, evil, blunt, dir
}

// The nodes are unfenced and have a way out: what keeps them in Tor is what they do. A peer says canaries in all ways there are, and is left and found again, while tasks of every
// type are done and tors are killed. No process makes another socket than a Unix one, and no packet leaves. A stock host that meets the same peer is caught by the same means.
func TestNothingLeaks(t *testing.T) {
	t.Setenv("SHALLOT_BROKER_ROUTING", "server") // off in this mode, but who switches it on must not leak either
	n, evil, blunt, dir := start(t)
	probe, err := anonymous.Probe(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !t.Run("a stock host is caught", func(t *testing.T) { stockIsCaught(t, n, evil, dir) }) {
		t.Fatal("the means do not catch what leaks, so what they find of others is worth nothing")
	}
	t.Run("tasks", func(t *testing.T) { n.Tasks(t, consumer, probe) })
	t.Run("the poisoner is asked for", func(t *testing.T) { // its name gets personas of the consumer to it
		id := strings.TrimSpace(n.Shallot(t, consumer, "", "run", "sum", "--detach", "--provider", evil.ID, "1", "2").Stdout)
		defer func() { t.Log(n.Shallot(t, consumer, "", "task", "show", id).Stdout) }()
		anonymous.Eventually(t, 3*time.Minute, "the poisoner is given a task", func() bool { return evil.Given.Load() > 0 }) // a dial may take 90 s until it is given up
	})
	at := n.Status(t, "provider-1").GetPeerId()
	for _, node := range []string{consumer, "provider-1"} {
		t.Run("tor of "+node+" is killed", func(t *testing.T) {
			if err := n.KillTor(node); err != nil {
				t.Fatal(err)
			}
			n.Want(t, consumer, "6\n", "run", "sum", "--provider", at, "1", "2", "3")
			anonymous.Eventually(t, time.Minute, node+" is online again", func() bool { return n.Status(t, node).GetOnline() })
		})
	}
	events, gossip, routing, hungUp := evil.Served()
	t.Logf("the poisoner has hung up %d times and was given %d tasks; nodes opened %d streams to it for events, %d for gossip, %d for the routing table", hungUp, evil.Given.Load(), events, gossip, routing)
	if _, _, _, hungUp := blunt.Served(); hungUp == 0 || n.Knows(t, consumer, blunt.ID) {
		t.Errorf("the blunt one has hung up %d times, and the consumer takes it for a provider: %t", hungUp, n.Knows(t, consumer, blunt.ID))
	}
	if hungUp < 6 || events == 0 || gossip == 0 || routing == 0 {
		t.Error("the poisoner was not dialled in all ways: the test shows too little")
	}
	if err := n.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	verdict(t, n)
}

func verdict(t *testing.T, n *anonymous.Network) {
	t.Helper()
	leaks, seen, err := n.Leaks()
	if err != nil {
		t.Error(err)
	}
	for i, l := range leaks {
		if t.Error(l); i == 20 {
			break
		}
	}
	for _, process := range []string{"provider-1.onion", "provider-1.broker", "provider-1.discovery", "provider-1.metric", "provider-1.task", "provider-1.node",
		consumer + ".onion", consumer + ".broker", consumer + ".task", consumer + ".node"} {
		if c := seen[process]; c.All == 0 || c.Unix == 0 && strings.HasSuffix(process, "broker") {
			t.Errorf("of %s strace has seen %+v", process, c)
		}
	}
	t.Logf("system calls seen: %+v", seen)
	packets, err := n.Packets()
	if err != nil || len(packets) > 0 {
		t.Errorf("%d packets would have left the machine: %.2000q, %v", len(packets), packets, err)
	}
}

func stockIsCaught(t *testing.T, n *anonymous.Network, evil *hostile.Poisoner, dir string) {
	tor, err := n.Tor("provider-2")
	if err != nil {
		t.Fatal(err)
	}
	leaks, packets, err := anonymous.Stock(t.Context(), dir, tor, evil.Address())
	if err != nil {
		t.Fatal(err)
	}
	found := func(parts ...string) bool {
		return slices.ContainsFunc(leaks, func(l anonymous.Leak) bool {
			return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l.Line, p) })
		})
	}
	for what, parts := range map[string][]string{
		"a name look-up": {"connect(", "htons(53)"}, "TCP to a canary": {"connect(", "192.0.2.77"}, "UDP to a canary": {"192.0.2.78", "htons(4078)"}, "IPv6 to a canary": {"2001:db8::"},
	} {
		if !found(parts...) {
			t.Errorf("the trace does not show %s", what)
		}
	}
	all := strings.Join(packets, "\n")
	for _, want := range []string{"udp to 198.18.0.53:53", "tcp to 192.0.2.77:4077", "udp to 192.0.2.78:4078", "2001:db8::"} {
		if !strings.Contains(all, want) {
			t.Errorf("no packet is %q", want)
		}
	}
	t.Logf("of the stock host %d system calls and %d packets were caught, %d of them different: %.400q", len(leaks), len(packets), len(packets), packets)
	if t.Failed() {
		t.Logf("leaks: %v", leaks[:min(len(leaks), 40)])
	}
}
