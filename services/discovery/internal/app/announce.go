package app

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

const (
	versionBlock = 256                    // announcements between two reservations: days of them
	leaveTimeout = 500 * time.Millisecond // the broker may be stopping as well
	maxPush      = 16                     // neighbours that are told of a change directly
	greeters     = 8                      // announcements that one newcomer triggers in a whole small network, on average
	greetUpTo    = 16                     // providers of a network in which newcomers are greeted; a newcomer's neighbours tell it of the others anyway
)

// versions hands out version numbers from blocks that are reserved on disk before their first number is used, so that no
// crash and no lost write repeats one.
type versions struct {
	store       Store
	mu          sync.Mutex
	next, until uint64
}

func (v *versions) take(ctx context.Context) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next >= v.until {
		first, err := v.store.ReserveVersions(ctx, versionBlock, v.next)
		if err != nil {
			return 0, err
		}
		v.next, v.until = first, first+versionBlock
	}
	v.next++
	return v.next - 1, nil
}

// skipTo makes the next version larger than one that was heard: this node's own past, when its store was lost.
func (v *versions) skipTo(seen uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next <= seen {
		v.next, v.until = seen+1, 0
	}
}

// wakeAnnounce makes an announcement go out soon. changed says that it tells something new.
func (s *Service) wakeAnnounce(changed bool) {
	if changed {
		wake(s.advertise)
	}
	for {
		select {
		case s.announce <- changed:
			return
		default:
		}
		select { // a change must not be lost behind a mere repetition
		case was := <-s.announce:
			changed = changed || was
		default:
		}
	}
}

// announceLoop says who this node is: on change, when woken, and at the interval that the network's size allows.
func (s *Service) announceLoop(ctx context.Context) error {
	wait := newWait(firstWait, longestWait)
	changed := false
	for {
		next := pace.Jitter(s.interval())
		switch err := s.announceOnce(ctx, changed); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.Debug("announcing failed", logging.Err(err))
			next = wait.NextBackOff()
		default:
			changed = false
			wait.Reset()
		}
		t := time.NewTimer(next)
		select {
		case <-t.C:
		case c := <-s.announce:
			changed = changed || c
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (s *Service) interval() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Pace.Interval(s.networkLocked())
}

// networkLocked estimates the number of providers, this one included.
func (s *Service) networkLocked() int {
	return s.size.Estimate(time.Now(), s.table.CountAvailable()+1)
}

// announceOnce signs the next version and tells it. It is no error that there is nothing to say yet.
func (s *Service) announceOnce(ctx context.Context, changed bool) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, ok := s.compose()
	if !ok {
		return nil
	}
	signed, err := s.sign(call, &a)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if a.PeerID != s.identity.PeerID { // the broker became somebody else meanwhile
		s.mu.Unlock()
		return nil
	}
	s.own, s.signed = a, signed
	told := s.table.Neighbours()
	s.mu.Unlock()
	err = s.ev.Publish(call, signed)
	s.cfg.Counter.Count(CountAnnounced)
	if changed {
		s.push(told, signed)
	} else if len(told) > 0 {
		s.askOne(told[rand.IntN(len(told))], regularSample)
	}
	return err
}

// compose is what this node has to say now, without a version; false until it knows who it is and what it does.
func (s *Service) compose() (domain.Announcement, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.identity.PeerID == "" || !s.hasSelf {
		return domain.Announcement{}, false
	}
	a := domain.Announcement{PeerID: s.identity.PeerID, Role: domain.RoleProvider, Capabilities: s.self.Capabilities, SealingKey: s.self.SealingKey, Effort: s.puzzle.Effort,
		Interval: pace.Stated(s.cfg.Pace.Interval(s.networkLocked()))}
	if s.cfg.Coarse {
		a.Interval = pace.StatedClass(s.cfg.Pace.Interval(s.networkLocked()))
	}
	for _, addr := range s.identity.Addresses {
		if len(a.Addresses) < domain.MaxAddresses && domain.AddressShaped(addr) {
			a.Addresses = append(a.Addresses, addr)
		}
	}
	return a, true
}

func (s *Service) sign(ctx context.Context, a *domain.Announcement) ([]byte, error) {
	var err error
	if a.Version, err = s.versions.take(ctx); err != nil {
		return nil, err
	}
	return s.ev.Sign(ctx, *a)
}

// push tells neighbours directly, beside gossip: its mesh takes a second to form after a connection.
func (s *Service) push(peers []string, signed []byte) {
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	for _, id := range peers[:min(maxPush, len(peers))] {
		s.spawn(s.answers, func(ctx context.Context) {
			call, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			_ = s.ev.SendAnnouncement(call, id, signed) // gossip carries it too
		})
	}
}

// greet announces this node to a newcomer, if this node is among the few that should. In a larger network its neighbours
// tell a newcomer of more than a few words could. And there, who is new to a table is hardly ever new to the network: full tables
// let go of one peer for another all the time, so that each announcement would call for others, and they for more.
func (s *Service) greet(network int) {
	if network <= greetUpTo && rand.IntN(max(network, 1)) < greeters && s.triggers.Allow() {
		s.wakeAnnounce(false)
	}
}

// leave tells the network that this node stops on purpose. Nothing is lost when nobody hears it.
func (s *Service) leave() {
	if !s.lead.Leave() {
		return // others go on
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	s.mu.Lock()
	a, said := s.own, s.own.Version > 0
	told := slices.Clone(s.table.Neighbours())
	s.mu.Unlock()
	if !said {
		return
	}
	a.Leaving = true // the rest stays: it is where to look for this node when everybody comes back
	signed, err := s.sign(ctx, &a)
	if err != nil {
		s.log.Debug("saying goodbye failed", logging.Err(err))
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.ev.Publish(ctx, signed) })
	for _, id := range told[:min(maxPush, len(told))] {
		wg.Go(func() { _ = s.ev.SendAnnouncement(ctx, id, signed) })
	}
	wg.Wait()
}
