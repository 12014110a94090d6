package rest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/kit/home"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// Siblings are the nodes of one user on this machine, between which a dashboard can switch.
type Siblings struct {
	// Home is this node's own.
	Home home.Home
	// File names them, as `shallot dev` writes it; "" where the node is alone.
	File string
}

// Sibling is one of them.
type Sibling struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	URL     string `json:"url"`
	Current bool   `json:"current"`
}

// Bounds of what is read of files that others wrote, in bytes.
const (
	maxSiblings  = 4 << 20
	maxAnnounced = 64 << 10
)

// near lists them as a browser finds them that came here by host: cookies belong to a name, so the others are named as this one was. A gateway that
// does not run is left out.
func (s Siblings) near(ctx context.Context, host string, node nodev1.NodeServiceClient) []Sibling {
	var file struct {
		Nodes []struct{ Name, Role, Home string }
	}
	if s.File == "" || readJSON(s.File, maxSiblings, &file) != nil {
		return []Sibling{s.alone(ctx, host, node)}
	}
	out := []Sibling{}
	for _, n := range file.Nodes {
		h, err := home.Find(n.Home)
		if err != nil {
			continue
		}
		a, err := announced(h)
		if err != nil {
			continue
		}
		out = append(out, Sibling{n.Name, n.Role, named(a.URL, host), h.Dir == s.Home.Dir})
	}
	return out
}

// alone is a node of which no others are known. Its name is its role, for want of another.
func (s Siblings) alone(ctx context.Context, host string, node nodev1.NodeServiceClient) Sibling {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	n, err := node.GetNode(ctx, &nodev1.GetNodeRequest{})
	one := Sibling{Name: "node", URL: "http://" + host, Current: true}
	if err == nil {
		one.Name, one.Role = n.GetNode().GetRole(), n.GetNode().GetRole()
	}
	return one
}

// named puts the name of host in the place of a loopback address.
func named(address, host string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	ip, err := netip.ParseAddr(u.Hostname())
	name, _, serr := net.SplitHostPort(host)
	if err != nil || !ip.IsLoopback() || serr != nil {
		return address
	}
	u.Host = net.JoinHostPort(name, u.Port())
	return u.String()
}

func readJSON(path string, limit int64, into any) error {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errors.New("it is too large to be true")
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}
