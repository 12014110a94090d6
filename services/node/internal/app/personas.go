package app

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pace"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// PersonaNetwork is the broker's part in personas.
type PersonaNetwork interface {
	// OpenPersona makes a network identity, or finds the one of that name. Its key is kept until ClosePersona.
	OpenPersona(ctx context.Context, name string) error
	ClosePersona(ctx context.Context, name string) error
	// Personas lists the open ones, the node's own excluded.
	Personas(ctx context.Context) ([]string, error)
	// ConnectAs dials a peer as a persona; DisconnectAs ends the connection.
	ConnectAs(ctx context.Context, persona, peer string, addresses []string) error
	DisconnectAs(ctx context.Context, persona, peer string) error
	// SendEventAs returns nil once the receiving service has acknowledged.
	SendEventAs(ctx context.Context, persona, peer string, typ eventv1.EventType, id string, payload proto.Message, timeout time.Duration) error
}

// PersonaUse knows which personas are still needed.
type PersonaUse interface {
	// PersonasInUse names each once for every provider that has an unfinished task of it, or once without a provider.
	PersonasInUse(ctx context.Context) ([]*taskv1.PersonaUse, error)
}

// PersonasConfig bounds them. Zero values take the defaults.
type PersonasConfig struct {
	Warm   int // kept open and connected to nobody, for tasks to come; 4
	PerJob int // that the shards of one job leave from at most; 8
	Most   int // open at once; 128
	// Introduce is how long it may take to reach a provider as a persona and have its announcement; 90 s.
	Introduce time.Duration
	// Linger is about how long one that nothing needs any more stays; 20 s. It is drawn anew for each, so that its end tells little of the task's.
	Linger time.Duration
	// Beat is how often a provider that has a task is asked for a sign of life, by the task's persona, and how long it has for it; 10 s. A connection of
	// which the far tor has died stands for half a minute and more, and only this side can make another.
	Beat time.Duration
	// Pause is about how long it is between two that are opened in advance; 1 s, drawn as Linger is.
	Pause time.Duration
}

func (c *PersonasConfig) defaults() {
	set(&c.Warm, 4)
	set(&c.PerJob, 8)
	set(&c.Most, 128)
	set(&c.Introduce, 90*time.Second)
	set(&c.Linger, 20*time.Second)
	set(&c.Beat, 10*time.Second)
	set(&c.Pause, time.Second)
}

func set[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

const (
	personaPrefix = "t-"
	personaSweep  = 3 * time.Second
	personaCall   = 10 * time.Second
	// introducedFor is how long what a provider handed to a persona is good for another task of the same job.
	introducedFor = 2 * time.Minute
)

// Personas has every task leave from a network identity of its own: a key, a host and circuits that nothing else uses, made before the task is there and
// closed after its end. What finds providers is the node's own persona, which never submits. The shards of a job share a few.
//
// It decides nothing about where a task goes: that is another Placement's business.
type Personas struct {
	cfg   PersonasConfig
	inner Placement
	net   PersonaNetwork
	use   PersonaUse
	log   *slog.Logger
	// Unreachable is told of providers that could not be reached. It must not block.
	Unreachable func(peer string)

	mu      sync.Mutex
	warm    []string // never used
	opening int      // in advance
	held    map[string]*identity
	byTask  map[string]*identity
	byJob   map[string][]*identity
	waiting map[string]chan *eventv1.DiscoverResponse // by the id of the question
	asked   map[string][2]string                      // persona and peer of the same
	kick    chan struct{}
	beats   map[[2]string]context.CancelFunc // persona and peer that are asked for signs of life
	loops   sync.WaitGroup                   // of those, and of what waits for its end
	past    sync.Mutex                       // held while it is asked what an earlier life of this process has left
	told    bool                             // that was said; under mu
	carries bool                             // of several processes of the node this one sees to personas; under mu
}

// identity is a persona that tasks have left from, or are about to.
type identity struct {
	name    string
	job     string
	tasks   int // that are being placed
	placed  int // that have been, for an even share
	idle    time.Time
	closeAt time.Time // zero: something needs it
	closing bool      // somebody waits for that time
	met     map[string]meeting
	opened  chan struct{} // nil, or closed once it is open or failed says why not
	failed  error
}

// meeting is what a provider has handed to a persona.
type meeting struct {
	sealingKey string
	puzzle     *eventv1.Puzzle // what it asks for a submission
	at         time.Time
}

// NewPersonas makes them; Run it.
func NewPersonas(cfg PersonasConfig, inner Placement, net PersonaNetwork, use PersonaUse, log *slog.Logger) *Personas {
	cfg.defaults()
	return &Personas{cfg: cfg, inner: inner, net: net, use: use, log: log, Unreachable: func(string) {}, held: map[string]*identity{}, byTask: map[string]*identity{},
		byJob: map[string][]*identity{}, waiting: map[string]chan *eventv1.DiscoverResponse{}, asked: map[string][2]string{}, beats: map[[2]string]context.CancelFunc{}, kick: make(chan struct{}, 1)}
}

// Later is a Placement for the moment in which a task is made: to reach a provider takes seconds here, and nobody should wait so long to hear that a task is
// kept. The task is placed right after.
func (p *Personas) Later() Placement { return later{} }

type later struct{}

func (later) Place(context.Context, *domain.Need) (*taskv1.Candidate, *domain.Why) {
	return nil, &domain.Why{Because: domain.BecauseNotYet, Detail: "a persona is taken, and reaches a provider"}
}
func (later) Keepers(*domain.Need, string) []*taskv1.Candidate { return nil }

// Place finds a provider and reaches it as the task's persona. It takes some round trips, over Tor seconds.
func (p *Personas) Place(ctx context.Context, need *domain.Need) (*taskv1.Candidate, *domain.Why) {
	careful := *need
	careful.Vouched = true
	candidate, why := p.inner.Place(ctx, &careful)
	if candidate == nil {
		return nil, why
	}
	who, err := p.take(ctx, need)
	if err != nil {
		why.Because, why.Detail = domain.BecauseNoPersona, "no persona to leave from: "+fault.From(err).Message
		return nil, why
	}
	met, err := p.meet(ctx, who, candidate)
	p.release(who)
	if err != nil {
		p.log.Debug("a persona could not reach a provider", logging.Peer(candidate.GetPeerId()), logging.Err(err))
		if ctx.Err() == nil {
			p.Unreachable(candidate.GetPeerId())
		}
		why.Because, why.Detail = domain.BecauseLost, "the provider that was chosen could not be reached: another is looked for"
		return nil, why
	}
	candidate.Persona, candidate.SealingKey, candidate.Puzzle = who.name, met.sealingKey, met.puzzle
	return candidate, why
}

// Keepers are the inner Placement's. They are told of the task by its provider, and of its consumer know the persona.
func (p *Personas) Keepers(need *domain.Need, runner string) []*taskv1.Candidate {
	return p.inner.Keepers(need, runner)
}

// take finds the persona that a task leaves from: the one that it left from before, one of its job's, or a fresh one. A place in a job is taken before its
// persona is open, so that there are never more than it may have; where no further one can be had, its shards share those that there are.
func (p *Personas) take(ctx context.Context, need *domain.Need) (*identity, error) {
	if need.Job != "" {
		if err := p.recall(ctx); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	if who := p.byTask[need.TaskID]; who != nil && need.TaskID != "" && p.held[who.name] == who {
		return p.takeHeld(ctx, need, who)
	}
	full := len(p.warm) == 0 && len(p.held)+p.opening >= p.cfg.Most
	if team := p.byJob[need.Job]; need.Job != "" && len(team) > 0 && (full || len(team) >= p.perJob(need)) {
		return p.takeHeld(ctx, need, slices.MinFunc(team, func(a, b *identity) int { return a.placed - b.placed }))
	}
	if full {
		p.mu.Unlock()
		return nil, fault.ResourceExhausted("TOO_MANY_PERSONAS", "all %d are in use: the task waits until one is free", p.cfg.Most)
	}
	who := &identity{name: personaPrefix + strings.ToLower(rand.Text()), job: need.Job, met: map[string]meeting{}}
	if n := len(p.warm); n > 0 {
		i := mrand.IntN(n)
		who.name = p.warm[i]
		p.warm = slices.Delete(p.warm, i, i+1)
	} else {
		who.opened = make(chan struct{})
	}
	p.held[who.name] = who
	if need.Job != "" {
		p.byJob[need.Job] = append(p.byJob[need.Job], who)
	}
	p.hold(who, need)
	p.mu.Unlock()
	kick(p.kick)
	if who.opened == nil {
		return who, nil
	}
	err := p.open(ctx, who.name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		who.failed = err
		who.tasks--
		p.forget(who.name)
	}
	close(who.opened)
	return who, err
}

// takeHeld takes one that is held, as soon as it is open; p.mu is held, and is not any more when it returns.
func (p *Personas) takeHeld(ctx context.Context, need *domain.Need, who *identity) (*identity, error) {
	p.hold(who, need)
	p.mu.Unlock()
	if who.opened == nil {
		return who, nil
	}
	var err error
	select {
	case <-who.opened:
		err = who.failed
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.release(who)
	}
	return who, err
}

// perJob is how many the shards of a job leave from at one time.
func (p *Personas) perJob(need *domain.Need) int {
	if need.Personas > 0 {
		return min(need.Personas, p.cfg.Most)
	}
	return min(p.cfg.PerJob, p.cfg.Most)
}

// hold keeps an identity while a task is being placed; p.mu is held.
func (p *Personas) hold(who *identity, need *domain.Need) {
	if need.TaskID != "" {
		p.byTask[need.TaskID] = who
	}
	who.tasks++
	who.placed++
	who.closeAt = time.Time{}
}

func (p *Personas) release(who *identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who.tasks--
	who.idle = time.Now()
}

func (p *Personas) open(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, personaCall)
	defer cancel()
	return p.net.OpenPersona(ctx, name)
}

// meet connects a persona to a provider and has it hand over its announcement on that very connection: the key in it is the one that the task is sealed to.
func (p *Personas) meet(ctx context.Context, who *identity, c *taskv1.Candidate) (meeting, error) {
	p.mu.Lock()
	m, ok := who.met[c.GetPeerId()]
	p.mu.Unlock()
	if ok && time.Since(m.at) < introducedFor {
		return m, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Introduce)
	defer cancel()
	a, err := p.connected(ctx, who.name, c, p.cfg.Introduce/4)
	if err != nil && ctx.Err() == nil && silent(err) {
		// What stood was a connection whose far end had died, or a circuit that has since: of that nothing tells this side for half a minute. Another is made, once.
		_ = p.net.DisconnectAs(ctx, who.name, c.GetPeerId())
		a, err = p.connected(ctx, who.name, c, p.cfg.Introduce)
	}
	if err != nil {
		return meeting{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m = meeting{a.SealingKey, puzzleOf(&a), time.Now()}
	who.met[c.GetPeerId()] = m
	return m, nil
}

// connected dials a provider, which takes as long as it has to, and has its announcement within the time.
func (p *Personas) connected(ctx context.Context, persona string, c *taskv1.Candidate, within time.Duration) (domain.Announcement, error) {
	if err := p.net.ConnectAs(ctx, persona, c.GetPeerId(), c.GetAddresses()); err != nil {
		return domain.Announcement{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return p.introduced(ctx, persona, c.GetPeerId())
}

// silent tells of a peer that was connected and has not answered, from one that could not be dialled or says no.
func silent(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || fault.From(err).Reason == "SEND_TIMEOUT"
}

// introduced asks a provider for its own announcement.
func (p *Personas) introduced(ctx context.Context, persona, peer string) (domain.Announcement, error) {
	id := brokerclient.NewID()
	answer := make(chan *eventv1.DiscoverResponse, 1)
	p.mu.Lock()
	p.waiting[id], p.asked[id] = answer, [2]string{persona, peer}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, id)
		delete(p.asked, id)
	}()
	sent := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		sent <- p.net.SendEventAs(ctx, persona, peer, eventv1.EventType_EVENT_TYPE_DISCOVER, id, &eventv1.Discover{Own: true}, p.cfg.Introduce)
	}()
	for {
		select {
		case err := <-sent: // the answer may come before the acknowledgement
			if err != nil {
				return domain.Announcement{}, err
			}
			sent = nil
		case r := <-answer:
			a, err := introduction(r, peer)
			if err != nil {
				return a, err
			}
			return priced(a, r.GetPuzzle())
		case <-ctx.Done():
			return domain.Announcement{}, ctx.Err()
		}
	}
}

// introduction finds the provider's own announcement in its answer.
func introduction(r *eventv1.DiscoverResponse, peer string) (domain.Announcement, error) {
	for _, ev := range r.GetAnnouncements() {
		a, err := announcementOf(ev)
		if err != nil || a.PeerID != peer {
			continue
		}
		if a.Leaving {
			return a, fault.Unavailable("PROVIDER_LEAVING", "the provider is about to leave")
		}
		return a, nil
	}
	return domain.Announcement{}, fault.Unavailable("NOT_INTRODUCED", "the provider did not hand over its announcement")
}

// DiscoverResponse takes a provider's answer to a persona. What nobody asked for is ignored.
func (p *Personas) DiscoverResponse(persona, from string, ev *eventv1.Event) Verdict {
	var m eventv1.DiscoverResponse
	if err := proto.Unmarshal(ev.GetPayload(), &m); err != nil {
		return rejected("NOT_DECODABLE")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	answer, who := p.waiting[m.GetInReplyTo()], p.asked[m.GetInReplyTo()]
	if answer == nil || who != [2]string{persona, from} {
		return ignored("NOT_ASKED")
	}
	select {
	case answer <- &m:
	default: // a second answer to one question
	}
	return Verdict{}
}

// Run keeps personas ready, and closes those that nothing needs any more, until ctx ends. They stay open then: what is on its way needs them.
func (p *Personas) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { p.sweeping(ctx) })
	loops.Go(func() { p.filling(ctx) })
	loops.Wait()
	p.loops.Wait()
	return nil
}

// filling opens personas in advance, one after the other, and none right after one was taken: the task that it was taken for goes first.
func (p *Personas) filling(ctx context.Context) {
	_ = p.recall(ctx) // or the next sweep says whether this process is the one that sees to personas
	for {
		p.mu.Lock()
		missing := p.carries && len(p.warm) < p.cfg.Warm && len(p.warm)+len(p.held)+p.opening < p.cfg.Most
		if missing {
			p.opening++
		}
		p.mu.Unlock()
		if missing {
			p.fill(ctx)
		} else if !wait(ctx, time.Minute, p.kick) {
			return
		}
		if !wait(ctx, pace.Drawn(p.cfg.Pause), nil) {
			return
		}
	}
}

// fill opens one more.
func (p *Personas) fill(ctx context.Context) {
	name := personaPrefix + strings.ToLower(rand.Text())
	err := p.open(ctx, name)
	p.mu.Lock()
	p.opening--
	if err == nil && p.carries { // else another process finds it at the broker
		p.warm = append(p.warm, name)
	}
	p.mu.Unlock()
	if err != nil {
		p.log.Debug("a persona could not be opened in advance", logging.Err(err))
	}
}
