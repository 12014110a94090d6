package app

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

const (
	firstWait   = 100 * time.Millisecond
	longestWait = 30 * time.Second
	maxDials    = 4 // at once
	// A peer whose connection broke and that could not be dialled twice since counts as unreachable; with one dial it might be
	// restarting.
	lostDials   = 2
	pingsAtOnce = 4
	// A network that was cut in two has enough neighbours in either half, so nobody misses anybody there: peers that are missing,
	// and bootstrap addresses, are dialled now and then whatever a node has. In a large network each node does so as seldom as
	// it announces itself, within reason: the halves should not have to wait for hours.
	exploreEvery = time.Minute
	rejoinEvery  = 5 * time.Minute
	seekSeldom   = 40 * time.Minute
	// Where many hours may pass between two announcements of a peer, it is dialled to see whether it is there: about the whole table in two hours.
	// Each costs either side some twenty kilobytes.
	checkEvery = 30 * time.Second
	checkAfter = 2 * time.Hour // without a word of it
	nudgeEvery = 5 * time.Second
)

// newWait is a back-off with jitter of half its value either way.
func newWait(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor, b.Multiplier = first, longest, 0.5, 2
	return b
}

// dialWait is when a peer may be dialled again.
type dialWait struct {
	*backoff.ExponentialBackOff
	until time.Time
}

// joinLoop keeps dialling one bootstrap address while this node has too few neighbours, and seldom when it has enough. Each
// address has a loop of its own, so that a dead one holds up nobody.
func (s *Service) joinLoop(ctx context.Context, addr string) error {
	wait := newWait(firstWait, longestWait)
	_, whose, _ := strings.Cut(addr, "/p2p/")
	rejoin := time.Now().Add(pace.Jitter(rejoinEvery))
	for {
		if s.countNeighbours() >= fewNeighbours && (time.Now().Before(rejoin) || s.isConnected(whose)) {
			wait.Reset()
			if !sleep(ctx, wait.NextBackOff()+resyncEvery/2, nil) {
				return nil
			}
			continue
		}
		next := wait.NextBackOff()
		rejoin = time.Now().Add(pace.Jitter(max(rejoinEvery, min(s.interval(), seekSeldom))))
		id, err := s.join(ctx, addr)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.Debug("bootstrap address not reached", logging.Addr(addr), logging.Err(err))
			s.cfg.Counter.Count(CountJoinFailed)
		case id == s.Identity().PeerID && id != "":
			return nil // this node is its own bootstrap node
		default:
			// Connected: now it is up to the others to bring this node more neighbours. Where they do not, this address is
			// dialled again, which costs nothing while the connection stands.
			next = max(next, 5*time.Second)
		}
		if !sleep(ctx, next, nil) {
			return nil
		}
	}
}

func (s *Service) join(ctx context.Context, addr string) (string, error) {
	_, whose, _ := strings.Cut(addr, "/p2p/")
	return s.connect(ctx, whose, "", []string{addr})
}

// connect dials a peer, and has it asked who is out there. whose is the peer that is expected at the addresses, id the one that the broker is to find there, or empty.
func (s *Service) connect(ctx context.Context, whose, id string, addresses []string) (string, error) {
	call, cancel := context.WithTimeout(ctx, s.cfg.Dial)
	defer cancel()
	s.mu.Lock()
	s.dialled[whose] = true // before: the broker may tell of the connection while this waits for it
	s.mu.Unlock()
	found, err := s.net.Connect(call, id, addresses)
	s.mu.Lock()
	if (err != nil || found != whose) && !s.table.IsConnected(whose) {
		delete(s.dialled, whose)
	}
	there := err == nil && s.table.IsConnected(found)
	s.mu.Unlock()
	if there && s.cfg.AskKnown && !s.knows(found) { // it was connected before, and not asked
		s.ask(found)
	}
	return found, err
}

// Join dials one more address now and returns whom it found there.
func (s *Service) Join(ctx context.Context, addr string) (string, error) {
	if !domain.JoinAddressShaped(addr) {
		return "", fault.InvalidArgument("ADDRESS_INVALID", "the address is no multiaddr that ends in /p2p/ID, such as /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…")
	}
	return s.join(ctx, addr)
}

func (s *Service) countNeighbours() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.table.Neighbours())
}

// watchLoop follows the broker's connections. When the broker is lost so are all of them.
func (s *Service) watchLoop(ctx context.Context) error {
	wait := newWait(10*time.Millisecond, time.Second)
	for {
		began := time.Now()
		err := s.net.Watch(ctx, s.connectionChanged)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Debug("connections are not watched", logging.Err(err))
		s.mu.Lock()
		all := s.table.Connected()
		s.mu.Unlock()
		for _, id := range all {
			s.connectionChanged(id, false)
		}
		if time.Since(began) > 2*time.Second {
			wait.Reset()
		}
		if !sleep(ctx, wait.NextBackOff(), nil) {
			return nil
		}
		wake(s.identify) // a broker that restarted may listen elsewhere
	}
}

func (s *Service) connectionChanged(id string, connected bool) {
	s.mu.Lock()
	was := s.table.IsConnected(id)
	if s.table.SetConnected(id, connected) {
		s.changedLocked(id)
	}
	if connected {
		delete(s.lost, id)
		delete(s.retry, id)
		if s.online.IsZero() {
			s.online = time.Now()
			wake(s.advertise)
		}
	} else {
		if p, ok := s.table.Get(id); ok && was && p.State == domain.Available && len(s.lost) < s.cfg.MaxPeers {
			s.lost[id] = 0
		}
		if len(s.table.Connected()) == 0 {
			s.online = time.Time{}
		}
	}
	_, known := s.table.Get(id)
	asked := known || s.dialled[id] || !s.cfg.AskKnown
	if !connected {
		delete(s.dialled, id)
	}
	s.mu.Unlock()
	switch {
	case connected && !was:
		if asked && s.acts() && s.lead.Leads() {
			s.ask(id)
		}
		wake(s.redial)
	case !connected:
		wake(s.redial)
	}
}

// neighbourLoop sees to it that this node is connected to enough providers, and looks after those it has.
func (s *Service) neighbourLoop(ctx context.Context) error {
	look := time.Now().Add(time.Second) // round trips: soon at first, then seldom
	explore, check := time.Now().Add(pace.Jitter(exploreEvery)), time.Now().Add(pace.Jitter(checkEvery))
	for {
		s.dialSome(ctx)
		if !time.Now().Before(explore) {
			s.explore(ctx)
			explore = time.Now().Add(pace.Jitter(max(exploreEvery, min(s.interval(), seekSeldom))))
		}
		if !time.Now().Before(check) {
			s.check(ctx)
			check = time.Now().Add(pace.Jitter(checkEvery))
		}
		if !time.Now().Before(look) {
			s.lookAfter(ctx)
			look = time.Now().Add(resyncEvery)
		}
		if !sleep(ctx, min(s.nextDial(), max(time.Until(look), 0), max(time.Until(explore), 0), max(time.Until(check), 0)), s.redial) {
			return nil
		}
	}
}

// dialSome dials those whose connection broke, and, when there are too few neighbours, others.
func (s *Service) dialSome(ctx context.Context) {
	now := time.Now()
	ready := func(id string) bool {
		w := s.retry[id]
		return id != s.identity.PeerID && (w == nil || !now.Before(w.until))
	}
	s.mu.Lock()
	var dial []domain.Peer
	for id := range s.lost {
		if p, ok := s.table.Get(id); ok && !p.Connected && ready(id) && len(dial) < maxDials {
			dial = append(dial, p)
		}
	}
	if missing := s.cfg.Neighbours - len(s.table.Neighbours()); missing > 0 {
		for _, p := range s.table.ToDial(min(missing, maxDials), ready) {
			if !slices.ContainsFunc(dial, func(q domain.Peer) bool { return q.PeerID == p.PeerID }) {
				dial = append(dial, p)
			}
		}
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range dial {
		wg.Go(func() { s.dial(ctx, p) })
	}
	wg.Wait()
}

// explore dials one of those that are missing, of the table or of the book.
func (s *Service) explore(ctx context.Context) {
	now := time.Now()
	s.mu.Lock()
	missing := slices.DeleteFunc(append(s.table.Missing(), s.book.All()...), func(p domain.Peer) bool {
		w := s.retry[p.PeerID]
		return p.PeerID == s.identity.PeerID || s.table.IsConnected(p.PeerID) || w != nil && now.Before(w.until)
	})
	s.mu.Unlock()
	if len(missing) > 0 {
		s.dial(ctx, missing[rand.IntN(len(missing))])
	}
}

// check dials one of those that are taken to be there though nobody has heard of them for long. Who is there says so, when it is asked as a new
// neighbour is; who is not makes room in the table.
func (s *Service) check(ctx context.Context) {
	now := time.Now()
	s.mu.Lock()
	p, ok := s.table.Unseen(now.Add(-checkAfter), func(id string) bool {
		w := s.retry[id]
		return w == nil || !now.Before(w.until)
	})
	s.mu.Unlock()
	if ok {
		s.dial(ctx, p)
	}
}

func (s *Service) dial(ctx context.Context, p domain.Peer) {
	_, err := s.connect(ctx, p.PeerID, p.PeerID, p.Addresses)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Also after success: the broker tells of the connection, and until then nobody dials again.
	w := s.retry[p.PeerID]
	if w == nil {
		w = &dialWait{ExponentialBackOff: newWait(time.Second, 5*time.Minute)}
		s.retry[p.PeerID] = w
	}
	w.until = time.Now().Add(w.NextBackOff())
	if err == nil || ctx.Err() != nil {
		return
	}
	s.cfg.Counter.Count(CountDialFailed)
	// Without anybody it is this node that is not there.
	if known, ok := s.table.Get(p.PeerID); ok && time.Since(known.LastSeen) > checkAfter && len(s.table.Neighbours()) > 0 {
		s.unreachableLocked(p.PeerID)
	}
	if n, was := s.lost[p.PeerID]; was {
		s.lost[p.PeerID] = n + 1
		if n+1 >= lostDials {
			delete(s.lost, p.PeerID)
			s.unreachableLocked(p.PeerID)
		}
	}
}

func (s *Service) unreachableLocked(id string) {
	if s.table.Unreachable(id) {
		s.changedLocked(id)
		s.cfg.Counter.Count(CountUnavailable)
	}
}

// nextDial is when somebody may be dialled again.
func (s *Service) nextDial() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := resyncEvery
	soonest := func(id string) bool {
		d := time.Duration(0)
		if w := s.retry[id]; w != nil {
			d = time.Until(w.until)
		}
		if id != s.identity.PeerID {
			next = min(next, max(d, 10*time.Millisecond))
		}
		return false
	}
	for id := range s.lost {
		soonest(id)
	}
	if len(s.table.Neighbours()) < s.cfg.Neighbours {
		s.table.ToDial(1, soonest)
	}
	return next
}

// overdueLocked picks neighbours to ask for what should have been heard of them by now.
func (s *Service) overdueLocked() []string {
	now := time.Now()
	out := s.table.Overdue(now, pingsAtOnce, func(id string) bool { return now.Sub(s.nudged[id]) > nudgeEvery })
	for _, id := range out {
		s.nudged[id] = now
	}
	return out
}

// pruneLocked forgets waits and queries that nobody needs any more, so that no map grows.
func (s *Service) pruneLocked() {
	now := time.Now()
	for id := range s.retry {
		if _, known := s.table.Get(id); !known && !s.book.Has(id) {
			delete(s.retry, id)
		}
	}
	for id := range s.lost {
		if _, known := s.table.Get(id); !known {
			delete(s.lost, id)
		}
	}
	for id, at := range s.nudged {
		if now.Sub(at) > nudgeEvery {
			delete(s.nudged, id)
		}
	}
	for id, q := range s.asked {
		if now.After(q.until) {
			delete(s.asked, id)
		}
	}
}

// lookAfter reads the neighbours' round trips from the broker and pings those it has none of.
func (s *Service) lookAfter(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := s.net.Neighbours(call)
	if err != nil {
		s.log.Debug("neighbours not listed", logging.Err(err))
		return
	}
	var ping []string
	s.mu.Lock()
	for _, n := range list {
		switch p, known := s.table.Get(n.PeerID); {
		case !known || p.State != domain.Available:
		case n.RTT > 0:
			s.roundTripLocked(n.PeerID, n.RTT)
		default:
			ping = append(ping, n.PeerID)
		}
	}
	s.mu.Unlock()
	for _, id := range ping[:min(pingsAtOnce, len(ping))] {
		_, _ = s.Ping(call, id)
	}
}

func (s *Service) roundTripLocked(id string, rtt time.Duration) {
	if s.table.SetRTT(id, rtt) {
		s.changedLocked(id)
	}
}

// Ping measures the round trip to a peer's discovery service.
func (s *Service) Ping(ctx context.Context, id string) (time.Duration, error) {
	if !domain.PeerIDShaped(id) {
		return 0, fault.InvalidArgument("PEER_ID_INVALID", "the peer id is not 1 to 128 letters and digits")
	}
	began := time.Now()
	if err := s.ev.Ping(ctx, id); err != nil {
		return 0, err
	}
	rtt := time.Since(began)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.IsConnected(id) {
		s.roundTripLocked(id, rtt)
	}
	return rtt, nil
}
