package supervisor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

const (
	probeTimeout  = 2 * time.Second
	probeInterval = 25 * time.Millisecond
	// maxPages bounds a listing whose page tokens never end.
	maxPages = 1000
)

// probe asks a node's node service how it is.
type probe struct {
	cc     *grpc.ClientConn
	client nodev1.NodeServiceClient
}

func newProbe(h home.Home) (*probe, error) {
	cc, err := rpc.Dial(h.Endpoint("node"), rpc.ClientConfig{Timeout: probeTimeout})
	if err != nil {
		return nil, err
	}
	return &probe{cc, nodev1.NewNodeServiceClient(cc)}, nil
}

func (p *probe) close() { _ = p.cc.Close() }

func (p *probe) node(ctx context.Context) (*nodev1.Node, error) {
	resp, err := p.client.GetNode(ctx, &nodev1.GetNodeRequest{})
	if err != nil {
		return nil, err
	}
	if resp.GetNode() == nil {
		return nil, fmt.Errorf("the node service answered without a node")
	}
	return resp.GetNode(), nil
}

// available returns the ids of the providers that the node holds available.
func (p *probe) available(ctx context.Context) (map[string]bool, error) {
	ids := map[string]bool{}
	token := ""
	for range maxPages {
		resp, err := p.client.ListPeers(ctx, &nodev1.ListPeersRequest{State: "available", PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, peer := range resp.GetPeers() {
			ids[peer.GetPeerId()] = true
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	return ids, nil
}

// missing says what a node still waits for, "" when it is ready.
func missing(n *nodev1.Node) string {
	if n.GetReady() && n.GetPeerId() != "" {
		return ""
	}
	var bad []string
	for _, p := range n.GetProcesses() {
		if p.GetState() == "serving" {
			continue
		}
		what := p.GetName() + " is " + strings.ReplaceAll(p.GetState(), "_", " ")
		if p.GetDetail() != "" {
			what += " (" + p.GetDetail() + ")"
		}
		bad = append(bad, what)
	}
	if len(bad) == 0 {
		return "not ready yet"
	}
	return strings.Join(bad, ", ")
}

// poll calls check until it has nothing to complain of, and hands every complaint to note.
func poll(ctx context.Context, every time.Duration, note func(string), check func(context.Context) string) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		complaint := check(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		note(complaint)
		if complaint == "" {
			return nil
		}
		timer.Reset(every)
	}
}
