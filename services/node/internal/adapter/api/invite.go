package api

import (
	"context"
	"slices"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/invite"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// ReasonOpen is given for a node that is of no private network, as far as its home says.
const ReasonOpen = "NETWORK_OPEN"

// NetworkKey is the key of the node's private network. FAILED_PRECONDITION, ReasonOpen: the home has none.
type NetworkKey func() ([invite.KeySize]byte, error)

// errElsewhere is of a node in containers: the broker has the key, and node is not given it.
var errElsewhere = fault.FailedPrecondition("NETWORK_KEY_ELSEWHERE", "this node's network is a private one, and the node service is not given its key, as in containers: whoever made the network with 'shallot network create' has it. "+
	"Make the invite there, with an address of a provider: 'shallot --home DIR network invite --address ADDRESS'; 'shallot node --show-addresses' prints addresses")

// CreateInvite makes a line of text by which others join.
func (s *Service) CreateInvite(ctx context.Context, in *nodev1.CreateInviteRequest) (*nodev1.CreateInviteResponse, error) {
	key, err := s.cfg.NetworkKey()
	if f := fault.From(err); f != nil && f.Reason == ReasonOpen {
		if self, berr := s.cfg.Identity.Now(ctx); berr == nil && self.GetPrivateNetwork() {
			return nil, errElsewhere
		}
	}
	if err != nil {
		return nil, err
	}
	i := invite.Invite{Key: key, Anonymous: s.cfg.Anonymous, Addresses: in.GetAddresses()}
	if len(i.Addresses) == 0 {
		if i.Addresses, err = s.joinThrough(ctx); err != nil {
			return nil, err
		}
	}
	line, err := i.Encode()
	if err != nil {
		return nil, err
	}
	return &nodev1.CreateInviteResponse{Invite: line, Local: !slices.ContainsFunc(i.Addresses, func(a string) bool { return !invite.Loopback(a) })}, nil
}

// joinThrough are addresses of this node, where it is a provider, and of others.
func (s *Service) joinThrough(ctx context.Context) ([]string, error) {
	var byNode [][]string
	if s.cfg.Role == domain.RoleProvider {
		self, err := s.cfg.Identity.Now(ctx)
		if err != nil {
			return nil, err
		}
		byNode = append(byNode, full(self.GetPeerId(), self.GetAddresses()))
	}
	peers, _, err := s.cfg.View.ListPeers(ctx, PeerQuery{State: domain.StateAvailable})
	if err != nil {
		return nil, err
	}
	for _, p := range peers {
		byNode = append(byNode, full(p.GetPeerId(), p.GetAddresses()))
	}
	out := invite.Through(byNode)
	if len(out) == 0 {
		return nil, fault.FailedPrecondition("NOBODY_TO_JOIN", "no provider with an address is known yet, and a network is joined through one: start one with 'shallot up --role provider'")
	}
	return out, nil
}
