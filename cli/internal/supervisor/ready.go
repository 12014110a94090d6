package supervisor

import (
	"github.com/shallot-net/shallot/kit/home"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// ReadyNode is one node at the moment of readiness.
type ReadyNode struct {
	NodePlace
	PeerID     string `json:"peer_id,omitempty"` // open mode
	Alias      string `json:"alias,omitempty"`   // anonymous mode: what the node calls itself
	GatewayURL string `json:"gateway_url"`
}

// readyNode says of a node what people may see.
func readyNode(place NodePlace, n *nodev1.Node, h home.Home) ReadyNode {
	g, _ := ReadGateway(h) // a gateway that does not say where it is shows as nothing
	r := ReadyNode{NodePlace: place, Alias: n.GetAlias(), GatewayURL: g.URL}
	if r.Alias == "" {
		r.PeerID = n.GetPeerId()
	}
	return r
}
