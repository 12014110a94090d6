package libp2p

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shallot-net/shallot/kit/fault"
)

// In anonymous mode content travels by hosts of its own, the lanes of a persona: libp2p has one connection between two peers, and a large result on that of events would have them wait
// behind it. So each lane is another peer, with a key, a host and circuits of its own, and several of them side by side are several circuits.
//
// Whose lanes they are is said on the connection of events, which proves who says it (greet.go), and nowhere else: a lane lets nobody in who has not been named there, so to
// strangers it is a service that hangs up. The keys follow from the persona's: they are as fresh as it is, come back with it after a restart, and tell nobody of it. A provider's
// first lane has an onion service, always; all other lanes are opened when they are needed, only dial, and are closed when they have been idle.
type bulk struct {
	h     *Host
	seeds [][]byte
	ids   []peer.ID

	opening sync.Mutex // one lane is opened or closed at a time

	mu     sync.Mutex
	lanes  map[int]*lane
	claims map[peer.ID]*claim  // by the peer at the host of events
	owners map[peer.ID]peer.ID // of lanes, from the claims
	coming map[peer.ID]bool    // peers who are being dialled because they have asked for it
	news   chan struct{}       // closed and replaced with every connection
	closed bool
}

// claim is what a peer has said of its lanes.
type claim struct {
	lanes     []peer.ID
	reachable bool
	conn      string // on which it was said
}

const (
	// maxClaims bounds the peers whose lanes are known.
	maxClaims = 1024
	// laneInfo sets the keys of lanes apart from other uses of a persona's.
	laneInfo = "shallot lane v1 %d"
	// laneComes is how long a lane that was asked to come may take: a dial, as long as it may take.
	laneComes = 2 * time.Minute
	// laneCheck is how often idle lanes are looked for.
	laneCheck = 15 * time.Second
)

func newBulk(h *Host, seed []byte, lanes int) (*bulk, error) {
	b := &bulk{h: h, lanes: make(map[int]*lane), claims: make(map[peer.ID]*claim), owners: make(map[peer.ID]peer.ID), coming: make(map[peer.ID]bool), news: make(chan struct{})}
	for i := range lanes {
		own, err := hkdf.Key(sha256.New, seed, nil, fmt.Sprintf(laneInfo, i), ed25519.SeedSize)
		if err != nil {
			return nil, err
		}
		id, err := laneID(ed25519.NewKeyFromSeed(own).Public().(ed25519.PublicKey))
		if err != nil {
			return nil, err
		}
		b.seeds, b.ids = append(b.seeds, own), append(b.ids, id)
	}
	h.wg.Go(b.closeIdle)
	return b, nil
}

func laneID(public []byte) (peer.ID, error) {
	key, err := crypto.UnmarshalEd25519PublicKey(public)
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(key)
}

// reachable: the first lane has an onion service, as the host of events has.
func (b *bulk) reachable() bool { return b.h.inbound != nil }

// listen opens the first lane where it can be reached.
func (b *bulk) listen() error {
	if b == nil {
		return nil
	}
	_, err := b.open(0)
	return err
}

// open makes sure of a lane, which is used until release.
func (b *bulk) open(number int) (*lane, error) {
	b.opening.Lock()
	defer b.opening.Unlock()
	b.mu.Lock()
	l, closed := b.lanes[number], b.closed
	if l != nil {
		l.users++
	}
	b.mu.Unlock()
	if l != nil {
		return l, nil
	}
	if closed {
		return nil, fault.Unavailable("PERSONA_CLOSED", "the persona was closed")
	}
	l, err := b.newLane(number)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	l.users++
	b.lanes[number] = l
	b.mu.Unlock()
	if err := l.listen(b.h.network); err != nil {
		return nil, errors.Join(err, b.end(l))
	}
	return l, nil
}

func (b *bulk) release(l *lane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.users--
}

// end closes a lane. Under opening.
func (b *bulk) end(l *lane) error {
	b.mu.Lock()
	delete(b.lanes, l.number)
	b.mu.Unlock()
	l.cancel()
	err := b.h.network.cfg.OffLane(b.h.persona, l.number)
	if l.in != nil {
		b.h.network.cfg.Onion.Services.Drop(l.in.serviceID)
	}
	return errors.Join(err, l.host.Close())
}

func (b *bulk) closeIdle() {
	t := time.NewTicker(laneCheck)
	defer t.Stop()
	for {
		select {
		case <-b.h.ctx.Done():
			return
		case now := <-t.C:
			b.sweep(now)
		}
	}
}

// sweep closes the lanes that nobody uses.
func (b *bulk) sweep(now time.Time) {
	b.opening.Lock()
	defer b.opening.Unlock()
	b.mu.Lock()
	var idle []*lane
	for _, l := range b.lanes {
		if l.users == 0 && l.in == nil && now.Sub(time.Unix(0, l.moved.Load())) > l.idle {
			idle = append(idle, l)
		}
	}
	b.mu.Unlock()
	for _, l := range idle {
		_ = b.end(l)
	}
}

func (b *bulk) close() error {
	if b == nil {
		return nil
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	b.mu.Lock()
	b.closed = true
	open := make([]*lane, 0, len(b.lanes))
	for _, l := range b.lanes {
		open = append(open, l)
	}
	b.mu.Unlock()
	var errs []error
	for _, l := range open {
		errs = append(errs, b.end(l))
	}
	return errors.Join(errs...)
}

// owner is the peer whose lane it is; empty: nobody has named it.
func (b *bulk) owner(of peer.ID) peer.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.owners[of]
}

// admits tells whether a lane has business here: a peer that may be here has named it.
func (b *bulk) admits(text string) bool {
	id, err := peer.Decode(text)
	if err != nil {
		return false
	}
	owner := b.owner(id)
	return owner != "" && b.h.gate.allowed(owner)
}

// restrict closes the connections to lanes of peers that may not be here any more.
func (b *bulk) restrict() {
	if b == nil {
		return
	}
	b.mu.Lock()
	open := make([]*lane, 0, len(b.lanes))
	for _, l := range b.lanes {
		open = append(open, l)
	}
	b.mu.Unlock()
	for _, l := range open {
		for _, p := range l.host.Network().Peers() {
			if !l.gate.admitted(p) {
				_ = l.host.Network().ClosePeer(p)
			}
		}
	}
}

// report tells of what lanes do wrong, as their owners' doing.
func (b *bulk) report(ctx context.Context, offences <-chan offence) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-offences:
			if owner := b.owner(o.peer); owner != "" && b.h.handlers.Misbehaved != nil {
				b.h.handlers.Misbehaved(owner.String(), o.what)
			}
		}
	}
}

// changed wakes those who wait for a connection.
func (b *bulk) changed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.news)
	b.news = make(chan struct{})
}

func (b *bulk) disconnected(l *lane, p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.connected(p) {
		return // by another connection
	}
	l.heard.Delete(p)
	if gone := l.gone[p]; gone != nil {
		close(gone)
		delete(l.gone, p)
	}
}

// learn notes what a peer says of its lanes. A lane that another peer has named stays that one's: nobody can take over what is not his.
func (b *bulk) learn(p peer.ID, c *claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.claims[p]; old != nil {
		b.forget(p, old)
	} else if len(b.claims) >= maxClaims {
		b.makeRoom()
	}
	b.claims[p] = c
	for _, id := range c.lanes {
		if b.owners[id] == "" {
			b.owners[id] = p
		}
	}
}

func (b *bulk) forget(p peer.ID, c *claim) {
	delete(b.claims, p)
	for _, id := range c.lanes {
		if b.owners[id] == p {
			delete(b.owners, id)
		}
	}
}

// makeRoom forgets a peer that is not connected, or any: it says again what it has said when it wants something. Under mu.
func (b *bulk) makeRoom() {
	var victim peer.ID
	for p := range b.claims {
		victim = p
		if b.h.host.Network().Connectedness(p) != network.Connected {
			break
		}
	}
	b.forget(victim, b.claims[victim])
}
