package run

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// TestRealProcesses starts three providers and a consumer of real processes, as `shallot dev` does, where SHALLOT_BIN says
// that they have been built.
func TestRealProcesses(t *testing.T) {
	bin, _ := os.Getenv("SHALLOT_BIN"), os.Getenv("SHALLOT_BIN_SUM") // go test repeats what has passed when what it has read changed; programs that a test starts are not among that
	for _, p := range []string{"broker", "discovery", "metric", "task", "node"} {
		if _, err := os.Stat(filepath.Join(bin, "shallot-"+p)); bin == "" || err != nil {
			t.Skip("SHALLOT_BIN has no binaries: `make build` makes them")
		}
	}
	ctx := testContext(t)
	first := startReal(t, bin, RoleProvider, "")
	address := first.get(ctx, func(n *nodev1.Node) bool { return len(n.GetAddresses()) > 0 }).GetAddresses()[0]
	providers := []*realNode{first, startReal(t, bin, RoleProvider, address), startReal(t, bin, RoleProvider, address)}
	began := time.Now()
	c := startReal(t, bin, RoleConsumer, address)
	n := c.get(ctx, func(n *nodev1.Node) bool { return n.GetReady() && n.GetProvidersKnown() == 3 })
	t.Logf("ready, and all known, %v after the consumer's start", time.Since(began).Round(time.Millisecond))
	if n.GetRole() != RoleConsumer || n.GetMode() != "open" || !n.GetOnline() || n.GetConnections() == 0 {
		t.Errorf("the node says %v", n)
	}
	for _, p := range providers {
		n := p.get(ctx, func(n *nodev1.Node) bool {
			return n.GetReady() && n.GetProvidersKnown() == 2 && len(n.GetCapabilities()) > 0
		})
		if len(n.GetProcesses()) != 5 {
			t.Errorf("a provider has the processes %v", n.GetProcesses())
		}
		for _, x := range n.GetProcesses() {
			if x.GetPid() == 0 || x.GetState() != "serving" {
				t.Errorf("process %v", x)
			}
		}
	}
	var took []time.Duration
	for i := range 50 {
		began := time.Now()
		c.run(ctx, "", sumOf(fmt.Sprint(i), "1")).want(t, fmt.Sprint(i+1)+"\n")
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("a task takes %v (median), %v (90th percentile)", took[25], took[45])
	eventually(t, "there are metrics of all providers", func() bool {
		r, err := c.api.ListMetrics(ctx, &nodev1.ListMetricsRequest{})
		return err == nil && len(r.GetMetrics()) == 3 && r.GetMetrics()[0].GetMetric().GetMemory().GetTotal() > 0
	})
	g, err := telemetryv1.NewTelemetryServiceClient(first.conn).Gather(ctx, &telemetryv1.GatherRequest{})
	if err != nil || len(g.GetProcesses()) != 5 {
		t.Fatalf("gathered %d processes, %v", len(g.GetProcesses()), err)
	}
	for _, p := range g.GetProcesses() {
		if p.GetError() != "" || len(p.GetText()) == 0 || p.GetPid() == 0 {
			t.Errorf("%s: %d bytes, pid %d, %q", p.GetProcess(), len(p.GetText()), p.GetPid(), p.GetError())
		}
	}
	// The processes of both sides are killed under way, and come back.
	for _, p := range []string{"task", "node"} {
		c.kill(p)
		c.spawn(p)
		c.get(ctx, func(n *nodev1.Node) bool { return n.GetReady() && n.GetProvidersKnown() == 3 })
		c.run(ctx, "", sumOf("1", "1")).want(t, "2\n")
	}
	// The consumer's broker is killed and comes back: the next task waits for it.
	c.kill("broker")
	done := make(chan outcome, 1)
	go func() { done <- c.run(ctx, "", sumOf("40", "2")) }()
	c.spawn("broker")
	(<-done).want(t, "42\n")
}

type realNode struct {
	member
	t    *testing.T
	bin  string
	home home.Home
	args map[string][]string
	cmds map[string]*exec.Cmd
}

func startReal(t *testing.T, bin, role, bootstrap string) *realNode {
	dir, err := os.MkdirTemp("", "sn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &realNode{t: t, bin: bin, home: h, cmds: map[string]*exec.Cmd{}, args: map[string][]string{
		"broker": {"--listen_addrs", "/ip4/127.0.0.1/tcp/0", "--routing", map[string]string{RoleProvider: "server", RoleConsumer: "client"}[role]}, "discovery": nil, "metric": nil, "task": {"--role", role}, "node": {"--role", role}}}
	processes := []string{"broker", "task", "node"}
	if role == RoleProvider {
		processes = []string{"broker", "discovery", "metric", "task", "node"}
	}
	if bootstrap != "" {
		at := "node"
		if role == RoleProvider {
			at = "discovery"
		}
		n.args[at] = append(n.args[at], "--bootstrap", bootstrap)
	}
	for _, p := range processes {
		n.spawn(p)
	}
	conn, err := rpc.Dial(h.Endpoint("node"), rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	n.conn, n.api = conn, nodev1.NewNodeServiceClient(conn)
	return n
}

func (n *realNode) spawn(process string) {
	cmd := exec.Command(filepath.Join(n.bin, "shallot-"+process), append([]string{"--home", n.home.Dir, "--log.format", "text", "--log.level", cmp.Or(os.Getenv("SHALLOT_LOG"), "info")}, n.args[process]...)...)
	out, err := cmd.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.cmds[process] = cmd
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			n.t.Log(process, lines.Text())
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-logged
		err := cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) && !strings.Contains(err.Error(), "killed") {
			n.t.Errorf("%s: %v", process, err)
		}
	})
}

func (n *realNode) kill(process string) {
	if err := n.cmds[process].Process.Kill(); err != nil {
		n.t.Fatal(err)
	}
}

// get waits until the node says what is wanted.
func (n *realNode) get(ctx context.Context, ok func(*nodev1.Node) bool) *nodev1.Node {
	n.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last *nodev1.Node
	for {
		r, err := n.api.GetNode(ctx, &nodev1.GetNodeRequest{})
		if ctx.Err() == nil && fault.From(err) != nil && fault.From(err).Code == codes.Unavailable {
			<-tick.C // it was killed
			continue
		}
		if err != nil {
			n.t.Fatalf("%v; before that the node said %v", err, last)
		}
		if last = r.GetNode(); ok(last) {
			return last
		}
		<-tick.C
	}
}
