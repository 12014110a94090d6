package rest

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

const aPeer, aName = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp", "p-3k9xw2mh"

// GetPeer answers as an anonymous node does.
func (f *fakeNode) GetPeer(_ context.Context, r *nodev1.GetPeerRequest) (*nodev1.GetPeerResponse, error) {
	if r.GetPeerId() != aName {
		return nil, fault.NotFound("PEER_NOT_FOUND", "peer_id is %s, and this node knows no peer of this alias", r.GetPeerId()).With("peer_id", r.GetPeerId())
	}
	p := &discoveryv1.Peer{Alias: aName, State: "available"}
	if r.GetShowAddresses() {
		p.PeerId = aPeer
	}
	return &nodev1.GetPeerResponse{Peer: p}, nil
}

func TestAliasesOverREST(t *testing.T) {
	g := start(t)
	for path, want := range map[string]map[string]any{
		"/v1/peers/" + aName:                           {"alias": aName, "peer_id": "", "state": "available"},
		"/v1/peers/" + aName + "?show_addresses=true":  {"alias": aName, "peer_id": aPeer},
		"/v1/peers/" + aName + "?show_addresses=false": {"alias": aName, "peer_id": ""},
		"/v1/peers/p-00000000":                         {"reason": "PEER_NOT_FOUND", "message": "peer_id is p-00000000, and this node knows no peer of this alias"},
	} {
		_, body, _ := g.do(t, "GET", path, "")
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %s is %v in %s", path, k, got[k], body)
			}
		}
	}
}
