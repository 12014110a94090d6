// Package failclosed tests networks of anonymous nodes as users start them: over a private Tor network, each in its fence.
package failclosed

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/anonymous"
	"github.com/shallot-net/shallot/test/internal/dev"
)

const (
	consumer = "consumer-1"
	provider = "provider-1"
	// recovery is how long a node may take to be back after its tor is.
	recovery = time.Minute
)

// session is a network that the tests below use one after the other.
type session struct {
	*anonymous.Network
	dir, probe string
	secrets    *anonymous.Secrets
	bridge     *anonymous.Bridge
}

// A network takes half a minute to come up, so that there is one.
func TestAnonymousNetwork(t *testing.T) {
	anonymous.Need(t, "tor", "strace")
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "anon") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &session{dir: dir}
	if s.probe, err = anonymous.Probe(dir); err != nil {
		t.Fatal(err)
	}
	s.Network, err = anonymous.Start(t.Context(), anonymous.Config{Bin: bin, Dir: dir, Providers: 3, Consumers: 1, Traced: []string{provider, guest, consumer}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the network was ready after %v", s.ReadyAfter.Round(time.Second))
	t.Cleanup(func() {
		_ = s.Stop()
		if t.Failed() {
			t.Logf("supervisor said:\n%s\n%s", s.Tail(), s.Logs())
		}
	})
	s.bridge = s.StartBridge(t)
	s.secrets = s.Gather(t.Context())
	evil, blunt := s.Poison(t, "provider-3", consumer)
	s.secrets.Peers(slices.Concat(evil.Strangers(), blunt.Strangers(), []string{evil.ID, blunt.ID})...)

	t.Run("tasks of every type", func(t *testing.T) { s.Tasks(t, consumer, s.probe) })
	t.Run("an executor of the operator's own", s.guestExecutor)
	t.Run("a provider that comes back from a backup", s.restored)
	t.Run("without its tor a consumer is offline, and keeps its tasks", s.consumerOffline)
	t.Run("without its tor a provider is offline, and comes back", s.providerOffline)
	t.Run("a node behind a bridge", s.bridged)
	t.Run("a circuit that dies in the middle of a result", s.circuitDies)
	t.Run("a consumer that is away while its task ends", s.consumerAway)
	t.Run("tors die while tasks run", s.torsDie)
	t.Run("an address of somebody else", s.foreignAddress)
	t.Run("nothing that a node says or writes tells where and who peers are", s.trail)
	if err := s.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	t.Run("no process left Tor", s.verdict)
	t.Run("a home is of one mode", s.modes)
}

// offline takes a node's tor away until back is called, and waits until the node says so.
func (s *session) offline(t *testing.T, node string) (back func()) {
	t.Helper()
	restore, err := s.Offline(node)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	anonymous.Eventually(t, recovery, node+" says that it is offline", func() bool {
		n := s.Status(t, node)
		return !n.GetOnline() && n.GetTor().GetState() == "unreachable" && n.GetTor().GetDetail() != ""
	})
	t.Logf("%s says so after %v: %s", node, time.Since(begin).Round(10*time.Millisecond), s.Status(t, node).GetTor().GetDetail())
	return func() {
		t.Helper()
		if err := restore(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		anonymous.Eventually(t, recovery, node+" is online again", func() bool { return s.Status(t, node).GetOnline() })
		t.Logf("%s is online %v after its tor was started", node, time.Since(begin).Round(10*time.Millisecond))
	}
}

// task is what the command shows of one.
type task struct {
	ID, State string
	Attempts  int
	History   []struct{ State, What string }
}

func (s *session) show(t *testing.T, id string) task {
	t.Helper()
	return s.showAt(t, consumer, id)
}

func (s *session) showAt(t *testing.T, node, id string) (out task) {
	t.Helper()
	r := s.Shallot(t, node, "", "task", "show", id, "--output", "json")
	if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil {
		t.Fatalf("%v in %s%s", err, r.Stdout, r.Stderr)
	}
	return out
}

// submit gives a task to the consumer and returns its id.
func (s *session) submit(t *testing.T, args ...string) string {
	t.Helper()
	return s.submitAt(t, consumer, args...)
}

func (s *session) submitAt(t *testing.T, node string, args ...string) string {
	t.Helper()
	r := s.Shallot(t, node, "", append([]string{"run", "--detach"}, args...)...)
	if r.Code != 0 {
		t.Fatalf("a task was not taken: %s", r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// result waits for a task and checks what it prints.
func (s *session) result(t *testing.T, id, want string) {
	t.Helper()
	s.Shallot(t, consumer, "", "task", "watch", id)
	if shown := s.show(t, id); shown.State != "COMPLETED" {
		t.Errorf("task %s is %+v", id, shown)
	}
	s.Want(t, consumer, want, "task", "result", id)
}

func (s *session) consumerOffline(t *testing.T) {
	at := s.Status(t, provider).GetPeerId() // the poisoner takes sums, too, and does not always say at once that it is busy
	back := s.offline(t, consumer)
	id := s.submit(t, "sum", "--provider", at, "1", "2", "3")
	if shown := s.show(t, id); shown.State != "PENDING" {
		t.Errorf("a task of a node that is offline is %+v", shown)
	}
	back()
	begin := time.Now()
	s.result(t, id, "6\n")
	t.Logf("its task was done %v later", time.Since(begin).Round(10*time.Millisecond))
}

func (s *session) providerOffline(t *testing.T) {
	id := s.Status(t, provider).GetPeerId() // a node's alias of itself is nobody else's
	s.offline(t, provider)()
	begin := time.Now()
	s.Want(t, consumer, "6\n", "run", "sum", "--provider", id, "1", "2", "3")
	t.Logf("it did a task %v later", time.Since(begin).Round(10*time.Millisecond))
}

// An onion address is its peer's key, so that nobody can be sent to another's.
func (s *session) foreignAddress(t *testing.T) {
	one, two := s.Status(t, provider), s.Status(t, "provider-2")
	address, _, _ := strings.Cut(one.GetAddresses()[0], "/p2p/")
	c, err := s.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{address + "/p2p/" + two.GetPeerId(), "/ip4/192.0.2.7/tcp/4001/p2p/" + two.GetPeerId(), "/dnsaddr/canary.test/p2p/" + two.GetPeerId()} {
		_, err := c.ConnectPeer(t.Context(), &nodev1.ConnectPeerRequest{Address: a})
		if err == nil {
			t.Errorf("%s was taken", a)
			continue
		}
		t.Logf("%s: %v", a, err)
	}
}

func (s *session) trail(t *testing.T) {
	finds := s.Files(t, s.secrets)
	for _, node := range []string{consumer, provider} {
		finds = append(finds, s.Answers(t, s.secrets, node)...)
	}
	for _, f := range finds {
		t.Error(f)
	}
	if s.secrets.Keys() < 4+10 {
		t.Errorf("only %d keys were seen: the test shows too little", s.secrets.Keys())
	}
	t.Logf("looked for %d keys and their holders", s.secrets.Keys())
}

func (s *session) verdict(t *testing.T) {
	leaks, seen, err := s.Leaks()
	if err != nil {
		t.Error(err)
	}
	for _, l := range leaks {
		t.Error(l)
	}
	t.Logf("system calls seen: %+v", seen)
	if len(seen) != 6+4+6 {
		t.Errorf("strace has seen %d processes", len(seen))
	}
}

func (s *session) modes(t *testing.T) {
	for what, args := range map[string][]string{
		"an anonymous home in open mode": {"up", "--home", s.Home(consumer)},
		"an anonymous network's, by dev": {"dev", "--home", s.Network.Dir},
		"an open home in anonymous mode": {"up", "--anonymous", "--home", s.openHome(t)},
	} {
		r := s.Shallot(t, consumer, "", args...)
		if r.Code == 0 || !strings.Contains(r.Stderr, "another --home") && !strings.Contains(r.Stderr, "--anonymous") {
			t.Errorf("%s: exit code %d, %s", what, r.Code, r.Stderr)
		}
		t.Logf("%s: %s", what, r.Stderr)
	}
}

// openHome is one that an open node has run in.
func (s *session) openHome(t *testing.T) string {
	t.Helper()
	n, err := dev.Start(t.Context(), dev.Config{Bin: s.Bin, Dir: filepath.Join(s.dir, "open"), Providers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(); err != nil {
		t.Error(fmt.Errorf("stop: %w", err))
	}
	return n.Home(provider)
}
