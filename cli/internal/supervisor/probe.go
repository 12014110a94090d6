package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
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
	resp, err := p.client.GetNode(ctx, &nodev1.GetNodeRequest{ShowAddresses: true})
	if err != nil {
		if f := fault.From(err); f.Code == codes.DeadlineExceeded || f.Code == codes.Unavailable {
			return nil, errors.New("its node service does not answer yet")
		}
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
		resp, err := p.client.ListPeers(ctx, &nodev1.ListPeersRequest{State: "available", PageToken: token, ShowAddresses: true})
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

// TorState says how an anonymous node gets on with tor.
func TorState(t *nodev1.Tor) string {
	s := t.GetState()
	if s == "starting" {
		s += fmt.Sprintf(", %d %%", t.GetProgress())
	}
	if t.GetDetail() != "" {
		s += " (" + t.GetDetail() + ")"
	}
	return s
}

// torWaits is what a node waits for at tor, "" when others can reach it or it needs no tor.
func torWaits(n *nodev1.Node) string {
	t := n.GetTor()
	if t == nil || t.GetState() == "online" {
		return ""
	}
	return "tor: " + TorState(t)
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

// Healthy asks a gateway how it is; it answers within two seconds.
func (g Gateway) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(g.URL, "/")+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("its address %q is none: %w", g.URL, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is on this machine
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("nobody answers on %s: %w", g.URL, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s/healthz answers %s", g.URL, resp.Status)
	}
	return nil
}
