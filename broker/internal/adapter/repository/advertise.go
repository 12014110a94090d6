package repository

import (
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/broker/internal/domain/providers"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
)

// Routing finds who has content, and says that this node has some.
type Routing interface {
	routing.ContentDiscovery
	Provide(ctx context.Context, c cid.Cid, announce bool) error
}

// UserOwner is the owner of what users pin. Other content is asked for at the node that it is known to be at, so nobody looks for it.
const UserOwner = "user"

const (
	maxFresh       = 64
	advertiseFirst = 15 * time.Second // a node that starts has nobody to tell before
	// advertiseGap is the least time between two records: whoever has many does not say them in one breath.
	advertiseGap     = 250 * time.Millisecond
	advertiseAgain   = 5 * time.Second // after a failure, doubled up to advertiseLongest
	advertiseLongest = 5 * time.Minute // a node that was alone for long is found soon after it is no more; to try alone costs nothing
	advertiseTimeout = 30 * time.Second
)

// advertise says soon that this node has some content. It does not block; what it drops is said in its turn.
func (s *Store) advertise(c cid.Cid, owner string) {
	if s.pinned == nil || owner != s.cfg.Advertise {
		return
	}
	select {
	case s.pinned <- c:
	default:
	}
}

// advertiseLoop says what this node has: what is new at once, and all of it as often as records are to be said again.
func (s *Store) advertiseLoop() {
	first := s.cfg.AdvertiseFirst
	if first <= 0 {
		first = pace.Jitter(advertiseFirst)
	}
	wait := advertiseAgain
	all := time.NewTimer(first)
	defer all.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case c := <-s.pinned:
			if err := s.say(c); err != nil {
				s.log.Debug("content was not advertised", logging.Err(err))
				wait = advertiseAgain // each of many that fail together must not put off the rest further
				all.Reset(pace.Jitter(wait))
			}
		case <-all.C:
			if err := s.sayAll(); err != nil {
				s.log.Debug("content was not advertised", logging.Err(err))
				all.Reset(pace.Jitter(wait))
				wait = min(2*wait, advertiseLongest)
				continue
			}
			wait = advertiseAgain
			all.Reset(pace.Jitter(providers.AgainEvery))
		}
	}
}

// sayAll advertises what the owner has pinned, the first of it where it is much.
func (s *Store) sayAll() error {
	cursor, said := "", 0
	for {
		pins, next, err := s.Pins(s.cfg.Advertise, cursor, content.MaxPage)
		if err != nil {
			return err
		}
		for _, p := range pins {
			c, err := cid.Decode(p.CID)
			if err != nil {
				continue // not of this store's making
			}
			if err := s.say(c); err != nil {
				return err
			}
			if said++; said >= providers.MaxOwn {
				return nil
			}
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

func (s *Store) say(c cid.Cid) error {
	own, err := s.persona("")
	if err != nil {
		return err // it is about to be opened
	}
	ctx, cancel := context.WithTimeout(s.ctx, advertiseTimeout)
	defer cancel()
	err = own.routing.Provide(ctx, c, true)
	pause := time.NewTimer(advertiseGap)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.ctx.Done():
		return errors.Join(err, context.Cause(s.ctx))
	}
	return err
}
