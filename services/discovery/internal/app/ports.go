package app

import (
	"context"
	"time"

	"github.com/shallot-net/shallot/kit/crew"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// Identity is who this node is and where it listens.
type Identity struct {
	PeerID    string
	Addresses []string // multiaddrs without /p2p
}

// Neighbour is a peer that is connected now.
type Neighbour struct {
	PeerID string
	RTT    time.Duration // 0 when not measured
}

// Network is the broker's side of peers and connections. Calls block until they are done or ctx ends.
type Network interface {
	Self(ctx context.Context) (Identity, error)
	// Connect dials a peer; with peerID empty the addresses end in /p2p/ID. It returns the peer's id.
	Connect(ctx context.Context, peerID string, addresses []string) (string, error)
	Neighbours(ctx context.Context) ([]Neighbour, error)
	// Watch calls back for every peer that is connected, then for changes, until ctx ends or the broker is lost.
	Watch(ctx context.Context, changed func(peerID string, connected bool)) error
}

// Events is the broker's side of what nodes say to each other. Sends return when the other service has acknowledged.
type Events interface {
	// Sign encodes and signs an announcement, in the form in which it is handed on.
	Sign(ctx context.Context, a domain.Announcement) ([]byte, error)
	// Publish gossips a signed announcement.
	Publish(ctx context.Context, signed []byte) error
	// SendAnnouncement hands a signed announcement to one peer.
	SendAnnouncement(ctx context.Context, peerID string, signed []byte) error
	// SendDiscover asks a peer who is out there.
	SendDiscover(ctx context.Context, peerID string, q Question) error
	SendDiscoverResponse(ctx context.Context, peerID string, r DiscoverResponse) error
	Ping(ctx context.Context, peerID string) error
}

// Question is a Discover.
type Question struct {
	ID    string   // its answer repeats it
	Types []string // that the asker is interested in; none: all
	Limit int      // the most announcements wanted
	Has   []uint32 // marks of those that the asker has; see package marks
	Own   bool     // nothing but the answerer's own announcement is wanted
}

// DiscoverResponse is the answer to a Discover.
type DiscoverResponse struct {
	InReplyTo string
	Signed    [][]byte // the answerer's own announcement first
	Known     int
	Puzzle    domain.Puzzle // the answerer's; without a nonce: it has none
}

// Store keeps what must survive a restart. See storetest for what every store must do.
type Store interface {
	// LoadPeers returns the stored rows; Connected, RTT and Vouched are not stored.
	LoadPeers(ctx context.Context) ([]domain.Peer, error)
	// SavePeers replaces rows and deletes others. It returns at once: a crash may lose what was saved last.
	SavePeers(put []domain.Peer, del []string)
	// ReserveVersions takes n versions that nobody got before and nobody will get again, not below atLeast, and returns the
	// first. It is durable when it returns.
	ReserveVersions(ctx context.Context, n, atLeast uint64) (uint64, error)
	// LoadSelf returns what SaveSelf stored last; ok is false when nothing was.
	LoadSelf(ctx context.Context) (s Self, ok bool, err error)
	SaveSelf(ctx context.Context, s Self) error
}

// Shared is what several replicas of this service have in common. One of them leads: it alone has to do with the network, and writes the peer table; the others show it. See storetest.
type Shared interface {
	crew.Members
	// Listen tells what the others write, until ctx ends, and that something may have been missed, at first too. heard must not block.
	Listen(ctx context.Context, heard func(News)) error
	// Rows and Row are of the peer table, with Vouched; false: there is none of this id.
	Rows(ctx context.Context) ([]domain.Peer, error)
	Row(ctx context.Context, id string) (domain.Peer, bool, error)
	// LoadPuzzle returns what SavePuzzle stored last, which is durable when it returns; without a nonce where nothing was.
	LoadPuzzle(ctx context.Context) (domain.Puzzle, error)
	SavePuzzle(ctx context.Context, p domain.Puzzle) error
}

// News is what a replica hears of another.
type News struct {
	Missed bool   // anything may have changed
	Left   bool   // one has ended
	Self   bool   // what this node's announcement says, or its puzzle
	Peer   string // the row of this peer
}

// Self is what this node's announcement says beside its identity and addresses.
type Self struct {
	Capabilities []domain.Capability
	SealingKey   string
}

// Counter counts what happened; the names are those of package app.
type Counter interface {
	Count(event string)
}
