package run

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// startThird starts a broker that serves the routing table and nothing else: it has no discovery that could tell of others, and no service that hears gossip, so it
// relays none. It returns the broker's address.
func startThird(ctx context.Context, t *testing.T, bin string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &realNode{t: t, bin: bin, home: h, cmds: map[string]*exec.Cmd{}, args: map[string][]string{"broker": {"--listen_addrs", "/ip4/127.0.0.1/tcp/0", "--routing", "server"}}}
	n.spawn("broker")
	conn, err := rpc.Dial(h.Endpoint("broker"), rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	address := ""
	eventually(t, "the third says where it is", func() bool {
		r, err := brokerv1.NewNetworkServiceClient(conn).Self(ctx, &brokerv1.SelfRequest{})
		if err != nil || len(r.GetAddresses()) == 0 {
			return false
		}
		address = r.GetAddresses()[0] + "/p2p/" + r.GetPeerId()
		return true
	})
	return address
}

// TestRealStrangers: a provider and a consumer know nobody but a third node, which does not know what either is. A task finds the provider, and the
// consumer finds content of which it has the name alone.
func TestRealStrangers(t *testing.T) {
	bin, _ := os.Getenv("SHALLOT_BIN"), os.Getenv("SHALLOT_BIN_SUM") // go test repeats what has passed when what it has read changed; programs that a test starts are not among that
	for _, p := range []string{"broker", "discovery", "metric", "task", "node"} {
		if _, err := os.Stat(filepath.Join(bin, "shallot-"+p)); bin == "" || err != nil {
			t.Skip("SHALLOT_BIN has no binaries: `make build` makes them")
		}
	}
	ctx := testContext(t)
	third := startThird(ctx, t, bin)
	provider := startReal(t, bin, RoleProvider, third)
	id := provider.get(ctx, func(n *nodev1.Node) bool { return n.GetReady() && len(n.GetCapabilities()) > 0 }).GetPeerId()
	data := bytes.Repeat([]byte("of a stranger "), 1000)
	put, err := provider.api.PutContent(ctx)
	if err == nil {
		err = put.Send(&nodev1.PutContentRequest{Data: data})
	}
	if err != nil {
		t.Fatal(err)
	}
	stored, err := put.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	consumer := startReal(t, bin, RoleConsumer, third)
	o := consumer.run(ctx, "", sumOf("40", "2"))
	o.want(t, "42\n")
	if o.task.GetProvider() != id {
		t.Error("another provider has run the task")
	}
	get, err := consumer.api.GetContent(ctx, &nodev1.GetContentRequest{Cid: stored.GetCid()})
	var got []byte
	for err == nil {
		var r *nodev1.GetContentResponse
		if r, err = get.Recv(); err == nil {
			got = append(got, r.GetData()...)
		}
	}
	if !errors.Is(err, io.EOF) || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(data), err)
	}
}
