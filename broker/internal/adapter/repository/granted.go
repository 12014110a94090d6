package repository

import (
	"context"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// In anonymous mode a peer gets the blocks that were granted to it on the persona whose host it asks, and of all others it hears what it would hear if they were not here.
//
// That is decided where bitswap asks the store how large a block is: there one that may not be had is one that is not there, and goes the same way from then on. bitswap's own
// filter (WithPeerBlockRequestFilter) answers alike at first sight only: what it refuses takes no place in the peer's wantlist, so that a peer which fills it sees a difference.

type askerKey struct{}

// asking is a context by which the store knows who wants blocks.
func asking(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, askerKey{}, who)
}

// may says whether who asks may know that a block is here. It looks at nothing but grants, so it takes the same time whether there is one.
func (b *blockstore) may(ctx context.Context, c cid.Cid) bool {
	if b.s.grants == nil {
		return true
	}
	who, ok := ctx.Value(askerKey{}).(string)
	return ok && b.s.grants.Allowed(b.persona, who, keyOf(c))
}

// granting is a store whose pins are grants.
type granting struct {
	app.Store
	grants *app.Grants
	lanes  *Lanes // nil: content has no hosts of its own
}

// Commit implements app.Store.
func (g granting) Commit(c app.Change) error {
	err := g.Store.Commit(c)
	if len(c.Pins)+len(c.Unpins) > 0 { // after an error it may or may not have happened
		g.grants.Changed(append(slices.Clip(c.Pins), c.Unpins...)...)
	}
	if g.lanes != nil && err == nil {
		for _, p := range c.Pins {
			if len(p.Readers) > 0 {
				g.lanes.Expect(p.Persona, slices.Clone(p.Readers))
			}
		}
	}
	return err
}

// newPin makes the pin that was asked for.
func (s *Store) newPin(cid string, pin PinFor, now time.Time) (content.Pin, error) {
	p, err := content.NewPin(cid, pin.Owner, pin.Keep, now)
	if err != nil {
		return p, err
	}
	return s.grant(p, pin)
}

// grant adds a pin's readers, in the form in which hosts name peers.
func (s *Store) grant(p content.Pin, pin PinFor) (content.Pin, error) {
	if !s.profile.byName {
		return p, nil
	}
	if len(pin.Readers) > content.MaxReaders {
		return p.GrantedTo(pin.Persona, pin.Readers) // says so before each is looked at
	}
	readers := make([]string, len(pin.Readers))
	for i, r := range pin.Readers {
		id, err := peer.Decode(r)
		if err != nil {
			return p, &content.InvalidError{Field: "readers", Value: r[:min(len(r), content.MaxPeerID)], Why: "it is not a peer id"}
		}
		readers[i] = id.String()
	}
	return p.GrantedTo(pin.Persona, readers)
}
