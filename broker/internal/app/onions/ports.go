// Package onions keeps onion services at tor: it adds, watches, repairs and withdraws them, through tor's restarts and its own.
package onions

import (
	"context"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

// Tor is one tor's control port.
type Tor interface {
	// Open connects, authenticates and looks whether this tor may be used at all. It blocks no longer than some tens of seconds. The error is a *Trouble.
	Open(ctx context.Context) (Session, error)
}

// Session is one connection to tor. Its calls are made one at a time; each has a time limit of its own. An error that is neither ErrCollision, ErrUnknown nor
// a *Rejected ends the session: it is a *Trouble, and Done is closed.
type Session interface {
	Version() string
	// Warning says in words what of tor's configuration is unwise, "" for nothing.
	Warning() string
	// Look asks tor for its connection to the network and the detached onion services that it has, those of others among them.
	Look(ctx context.Context) (Seen, error)
	// Add makes a detached service. ErrCollision: tor has one of this key. *Rejected: tor does not take the request.
	Add(ctx context.Context, s onionsvc.Service) error
	// Delete ends one. ErrUnknown: there is none that this program could end.
	Delete(ctx context.Context, id string) error
	// Authorize gives tor a client's private key. *Rejected: tor does not take it.
	Authorize(ctx context.Context, id string, key []byte) error
	// Events are what tor tells by itself. The channel is never closed.
	Events() <-chan Event
	// Done is closed when the connection has ended, however; then Err says why.
	Done() <-chan struct{}
	Err() error
	Close()
}

// Seen is the answer of a look at tor.
type Seen struct {
	Network  onionsvc.Network
	Detached []string
}

// EventKind says what an Event tells.
type EventKind uint8

// Kinds of events.
const (
	EventUpload    EventKind = iota + 1 // a descriptor is on its way to a directory: ServiceID
	EventUploaded                       // a directory has taken it: ServiceID
	EventBootstrap                      // Progress, Tag, Reason
	EventLive                           // Up
	EventCircuits                       // Up, Reason
	EventDirectory                      // Up
)

// Event is what tor tells by itself.
type Event struct {
	Kind        EventKind
	ServiceID   string
	Progress    int
	Tag, Reason string
	Up          bool
}

// Records are what the process remembers of its services after it was killed: which it made, and what was asked for. Keys are not in it.
type Records interface {
	// Load returns what was saved last. After an error there is nothing, and the error says which file is broken.
	Load() (map[string]Record, error)
	// Save returns once it is on disk.
	Save(map[string]Record) error
}

// Record is of one service.
type Record struct {
	Digest      string    // of the request
	PublishedAt time.Time // when its descriptor was first taken; zero when it was not yet
}

// Observer counts. Nothing that it is told is an identity.
type Observer interface {
	Added(why string) // new, again (it was not published in time, or its tor restarted) or adopted
	Uploaded()
	Lost() // a connection to tor
	// Gauges are set after every change.
	Gauges(online bool, services, published int)
}
