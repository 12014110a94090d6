package api

import (
	"context"
	"slices"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/invite"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// NetworkKey is the key of the node's private network. FAILED_PRECONDITION, NETWORK_OPEN: it is of none.
type NetworkKey func() ([invite.KeySize]byte, error)

// CreateInvite makes a line of text by which others join.
func (s *Service) CreateInvite(ctx context.Context, in *nodev1.CreateInviteRequest) (*nodev1.CreateInviteResponse, error) {
	key, err := s.cfg.NetworkKey()
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
