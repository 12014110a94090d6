package app

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
)

// maxPersonas bounds the hosts of one process: each costs about a megabyte.
const maxPersonas = 256

// PersonaInfo is what others may know of a persona.
type PersonaInfo struct {
	Name     string
	PeerID   string
	OpenedAt time.Time
}

// persona is one network identity: its host, and what is on its way from and to its peers.
type persona struct {
	broker  *Broker
	name    string
	opened  time.Time
	host    Host
	signing *signing

	mu       sync.Mutex
	senders  map[string]*sender
	remotes  map[string]*remote
	watchers map[*Watcher]struct{}
	peers    map[string]struct{} // connected
	leaves   map[string]func()   // of the topics that are joined
	closed   chan struct{}
}

// open makes a persona's host from its key, which is made if need be, and listens.
func (b *Broker) open(name string) (*persona, error) {
	b.opening.Lock()
	defer b.opening.Unlock()
	b.mu.Lock()
	p, there := b.personas[name]
	n, closed := len(b.personas), b.closed
	b.mu.Unlock()
	switch {
	case there:
		return p, nil
	case closed:
		return nil, fault.Unavailable(fault.ReasonShuttingDown, "the broker is shutting down")
	case n >= maxPersonas:
		return nil, fault.ResourceExhausted("TOO_MANY_PERSONAS", "%d personas are open, which is the most: close one", n)
	}
	seed, opened, err := b.cfg.Keys.Create(name)
	if err != nil {
		return nil, err
	}
	p = &persona{broker: b, name: name, opened: opened, senders: make(map[string]*sender), remotes: make(map[string]*remote),
		watchers: make(map[*Watcher]struct{}), peers: make(map[string]struct{}), leaves: make(map[string]func()), closed: make(chan struct{})}
	handlers := Handlers{Stream: p.serve, Validate: p.validateGossip, Gossip: p.gossip, Lost: b.obs.Dropped, Changed: p.changed, Reached: func(string, []string) {},
		Misbehaved: p.misbehaved, Standing: p.standing}
	if name == "" {
		handlers.Reached, handlers.Routed, handlers.Seeds = b.known.reached, b.known.routed, b.known.seeds
	}
	p.host, err = b.cfg.Network.Open(name, seed, handlers)
	if err != nil {
		return nil, err
	}
	p.signing = newSigning(p)
	if err := p.joinWanted(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.restrict()
	if err := p.host.Listen(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	b.mu.Lock()
	b.personas[name] = p
	b.mu.Unlock()
	p.restrict()
	return p, p.joinWanted() // what was asked for meanwhile
}

func (p *persona) restrict() {
	p.broker.mu.Lock()
	admits := p.broker.admits
	p.broker.mu.Unlock()
	if admits != nil {
		p.host.Restrict(admits)
	}
}

func (p *persona) close() error {
	close(p.closed)
	<-p.signing.gone
	p.mu.Lock()
	for w := range p.watchers {
		w.end(fault.Unavailable("PERSONA_CLOSED", "the persona was closed"))
	}
	clear(p.watchers)
	senders := p.senders
	p.senders = nil
	p.mu.Unlock()
	err := p.host.Close()
	for _, s := range senders {
		s.close()
	}
	p.mu.Lock()
	p.broker.obs.Adjust("peers", -float64(len(p.peers)))
	clear(p.peers)
	p.mu.Unlock()
	return err
}

// persona finds an open one. Every call that names a persona comes through here.
func (b *Broker) persona(name string) (*persona, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.personas[name]
	switch {
	case ok:
		return p, nil
	case b.closed:
		return nil, fault.Unavailable(fault.ReasonShuttingDown, "the broker is shutting down")
	case b.cfg.Mode == ModeOpen && name != "":
		return nil, notInOpenMode(name)
	case name == "":
		return nil, fault.Unavailable("NOT_STARTED", "the broker is starting: try again")
	}
	known := make([]string, 0, len(b.personas))
	for n := range b.personas {
		known = append(known, n)
	}
	slices.Sort(known)
	return nil, fault.FailedPrecondition("PERSONA_NOT_OPEN", "there is no open persona %q: open it first %s", name, fault.Suggest(name, known)).With("persona", name)
}

func notInOpenMode(name string) error {
	return fault.FailedPrecondition("OPEN_MODE", "persona %q: in open mode the node's own persona, named \"\", is the only one", name).With("persona", name)
}

// OpenPersona makes a fresh identity or returns the one of that name.
func (b *Broker) OpenPersona(name string) (PersonaInfo, error) {
	if b.cfg.Mode == ModeOpen {
		return PersonaInfo{}, notInOpenMode(name)
	}
	if !validPersona(name) {
		return PersonaInfo{}, fault.InvalidArgument("PERSONA_INVALID", "persona %q: a name is 1 to 64 of a-z, 0-9 and -", name)
	}
	p, err := b.open(name)
	if err != nil {
		return PersonaInfo{}, err
	}
	return p.info(), nil
}

// ClosePersona ends a persona and forgets its key. One that is not there is no error.
func (b *Broker) ClosePersona(name string) error {
	if name == "" {
		return fault.InvalidArgument("PERSONA_INVALID", "the node's own persona cannot be closed")
	}
	if b.cfg.Mode == ModeOpen {
		return notInOpenMode(name)
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	b.mu.Lock()
	p, ok := b.personas[name]
	delete(b.personas, name)
	b.mu.Unlock()
	var err error
	if ok {
		err = p.close()
	}
	// The key goes in any case: a persona that was closed must not come back with the next start.
	if rerr := b.cfg.Keys.Remove(name); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// Personas lists the open ones, the node's own first.
func (b *Broker) Personas() []PersonaInfo {
	b.mu.Lock()
	out := make([]PersonaInfo, 0, len(b.personas))
	for _, p := range b.personas {
		out = append(out, p.info())
	}
	b.mu.Unlock()
	slices.SortFunc(out, func(x, y PersonaInfo) int { return strings.Compare(x.Name, y.Name) })
	return out
}

func (p *persona) info() PersonaInfo {
	return PersonaInfo{Name: p.name, PeerID: p.host.ID(), OpenedAt: p.opened}
}

func validPersona(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// sign puts the persona's name and signature on a copy of the event.
func (p *persona) sign(e *event.Event) (*event.Event, error) {
	sig, err := p.host.Sign(e.SigningBytes())
	if err != nil {
		return nil, err
	}
	c := *e
	c.Author, c.Signature = p.host.ID(), sig
	return &c, nil
}
