package repository

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/broker/internal/adapter/repository/disk"
	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/kit/bounded"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// Config says where content is kept and with whom it is shared. Only Dir is required.
type Config struct {
	Dir      string
	Log      *slog.Logger
	Registry prometheus.Registerer
	// Anonymous: blocks are served to those only to whom their pins grant them, and asked for only at the peers that a request names. Routing and Advertise mean nothing then.
	Anonymous bool
	// StallTimeout is how long a fetch waits for the next block before it gives up; default 30 s, in anonymous mode 90 s.
	StallTimeout time.Duration
	// CollectEvery is the time between collections of what nobody pins; default 30 minutes, negative for never. Content that is not
	// pinned is kept for one such time at least after it was last written or pinned, a fifth of it when there is little room left; so a
	// transfer that was cut off goes on from where it was.
	CollectEvery time.Duration
	// Quota is how many bytes may be on disk; 0 for no limit. What would go beyond it is refused.
	Quota int64
	// Routing finds providers of content for a persona; nil asks connected peers only. It is called when the persona is attached.
	Routing func(persona string) Routing
	// Advertise is the owner whose pinned content the node's own persona says through Routing that it has; empty: nobody's. AdvertiseFirst is how long after the start
	// it begins; default some seconds.
	Advertise      string
	AdvertiseFirst time.Duration
	// Lanes are hosts for content beside those of events, in anonymous mode; nil: a persona's one host does both.
	Lanes *Lanes
	// Flooded is told once a second of a peer that asks for more than anybody has to; nil: nobody wants to know.
	Flooded func(persona, peer string)
	// Disk overrides how the disk is used, for tests; its Dir and Log are ignored.
	Disk disk.Config
	// Now replaces the clock of pins that end.
	Now func() time.Time
}

// Store is the repository of one node: one set of blocks, shared by all personas.
type Store struct {
	cfg     Config
	profile profile
	log     *slog.Logger
	blocks  app.Store
	grants  *app.Grants // nil: everybody may have everything
	disk    *disk.Store
	close   func() error
	metrics *metrics
	ctx     context.Context
	cancel  context.CancelCauseFunc
	done    sync.WaitGroup
	collect *app.Collector
	puts    gate
	gets    gate
	pinned  chan cid.Cid // content that is to be advertised now; nil: none is

	mu       sync.Mutex
	personas map[string]*persona
}

// persona is one name in the network. In anonymous mode it is present there by its lanes, which are one, its host's, where content has no hosts of its own.
type persona struct {
	lane
	name    string
	routing Routing       // nil: none
	lanes   map[int]*lane // anonymous mode; guarded by Store.mu
	only    *only         // anonymous mode without hosts for content
}

// lane is bitswap on one host.
type lane struct {
	host    host.Host
	bitswap *bitswap.Bitswap // nil: the host has no part in content
	net     *watched
	rests   rests
}

// New opens the store and begins to collect what nobody keeps.
func New(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	mode := openProfile()
	if cfg.Anonymous {
		mode = anonymousProfile()
		cfg.Routing, cfg.Advertise = nil, ""
	} else {
		cfg.Lanes = nil
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = mode.stall
	}
	if cfg.CollectEvery == 0 {
		cfg.CollectEvery = 30 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dc := cfg.Disk
	dc.Dir, dc.Log, dc.Quota = cfg.Dir, cfg.Log, cfg.Quota
	blocks, err := disk.Open(dc)
	if err != nil {
		if f := toFault(err, cid.Undef); fault.From(f).Reason != fault.ReasonInternal {
			return nil, f
		}
		return nil, fault.FailedPrecondition("CONTENT_STORE_UNUSABLE", "%s", err).Because(err)
	}
	s := &Store{cfg: cfg, profile: mode, log: cfg.Log, blocks: blocks, disk: blocks, close: blocks.Close, personas: make(map[string]*persona),
		puts: make(gate, maxTransfers), gets: make(gate, maxTransfers)}
	s.metrics = newMetrics(cfg.Registry, cfg.Quota, blocks.Used)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if mode.byName {
		s.grants = app.NewGrants(app.GrantsConfig{Store: blocks, Links: linksOf, Now: cfg.Now, Log: cfg.Log})
		s.blocks = granting{blocks, s.grants, cfg.Lanes}
		if err := s.grants.Load(); err != nil {
			return nil, errors.Join(toFault(err, cid.Undef), blocks.Close())
		}
	}
	s.collect = app.NewCollector(app.CollectorConfig{Store: s.blocks, Links: linksOf, Now: cfg.Now})
	if cfg.CollectEvery > 0 {
		s.done.Add(1)
		go s.collectLoop()
	}
	if cfg.Advertise != "" && cfg.Routing != nil {
		s.pinned = make(chan cid.Cid, maxFresh)
		s.done.Go(s.advertiseLoop)
	}
	return s, nil
}

// Attach serves and fetches blocks on a persona's host, until Detach.
func (s *Store) Attach(name string, h host.Host) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return fault.Unavailable(fault.ReasonShuttingDown, "the content store is shutting down")
	}
	if _, ok := s.personas[name]; ok {
		return fault.AlreadyExists("PERSONA_ATTACHED", "the persona %q shares content already", name)
	}
	p := &persona{name: name, lane: lane{host: h}}
	if s.cfg.Routing != nil {
		p.routing = s.cfg.Routing(name)
	}
	switch {
	case s.cfg.Lanes != nil:
		p.lanes = make(map[int]*lane)
	case s.profile.byName:
		p.lane = *s.present(name, h, namedProviders{h})
		p.lanes, p.only = map[int]*lane{0: &p.lane}, newOnly(h, s.profile.connect)
	case p.routing != nil:
		p.lane = *s.present(name, h, p.routing)
	default:
		p.lane = *s.present(name, h, nil)
	}
	s.personas[name] = p
	return nil
}

// present makes a persona's bitswap on a host.
func (s *Store) present(persona string, h host.Host, finder routing.ContentDiscovery) *lane {
	net := &watched{BitSwapNetwork: bsnet.NewFromIpfsHost(h), s: s, persona: persona, wants: newWants(), refused: bounded.New[peer.ID, time.Time](maxRefused), givers: bounded.New[cid.Cid, peer.ID](maxGivers)}
	return &lane{host: h, bitswap: bitswap.New(s.ctx, net, finder, &blockstore{s, persona}, s.profile.options()...), net: net}
}

// Detach ends what Attach began. An unknown persona is no error.
func (s *Store) Detach(name string) error {
	s.mu.Lock()
	p := s.personas[name]
	delete(s.personas, name)
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	var errs []error
	if p.bitswap != nil {
		errs = append(errs, p.bitswap.Close())
	}
	for _, l := range s.lanesOf(p) {
		if l != &p.lane {
			errs = append(errs, l.bitswap.Close())
		}
	}
	return errors.Join(errs...)
}

// Close detaches everything, ends what is running, and makes what is stored durable.
func (s *Store) Close() error {
	s.cancel(fault.Unavailable(fault.ReasonShuttingDown, "the content store is shutting down"))
	s.mu.Lock()
	names := make([]string, 0, len(s.personas))
	for name := range s.personas {
		names = append(names, name)
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.Detach(name))
	}
	s.done.Wait()
	return errors.Join(append(errs, s.close())...)
}

// serve tells the personas' servers of new blocks: a peer may have asked for one before it was there. Not in anonymous mode: a server would give them to whoever has.
func (s *Store) serve(cids []cid.Cid, data [][]byte) {
	if s.profile.byName {
		return
	}
	s.mu.Lock()
	servers := make([]*bitswap.Bitswap, 0, len(s.personas))
	for _, p := range s.personas {
		servers = append(servers, p.bitswap)
	}
	s.mu.Unlock()
	if len(servers) == 0 {
		return
	}
	many := make([]blocks.Block, 0, len(cids))
	for i, c := range cids {
		if b, err := blocks.NewBlockWithCid(data[i], c); err == nil {
			many = append(many, b)
		}
	}
	for _, bs := range servers {
		// The server alone: it looks at sizes, where the client would keep the bytes.
		if err := bs.Server.NotifyNewBlocks(s.ctx, many...); err != nil && s.ctx.Err() == nil {
			s.log.Debug("telling peers of new blocks", logging.Err(err))
		}
	}
}

func (s *Store) persona(name string) (*persona, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.personas[name]
	if !ok {
		return nil, fault.NotFound(ReasonPersona, "there is no persona %q: open it first", name)
	}
	return p, nil
}

// Collect takes what nobody keeps now. It returns what it did.
func (s *Store) Collect(ctx context.Context) (app.Swept, error) {
	swept, err := s.collect.Collect(ctx)
	s.metrics.collected(swept, err)
	return swept, err
}

// CollectAll takes all that nobody keeps now, however young it is.
func (s *Store) CollectAll(ctx context.Context) (app.Swept, error) {
	swept, err := s.collect.CollectAll(ctx)
	s.metrics.collected(swept, err)
	return swept, err
}

// Usage is how many bytes are on disk, and how many may be; 0 for no limit.
func (s *Store) Usage() (used, quota int64) { return s.disk.Used(), s.cfg.Quota }

const collectLimit = 10 * time.Minute

func (s *Store) collectLoop() {
	defer s.done.Done()
	// A burst of content that was fetched and let go must not stop all writing until the next regular time.
	early := time.NewTicker(s.cfg.CollectEvery / 5)
	defer early.Stop()
	last := time.Now()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-early.C:
		}
		if time.Since(last) < s.cfg.CollectEvery-s.cfg.CollectEvery/10 && !s.disk.Tight() {
			continue
		}
		last = time.Now()
		ctx, cancel := context.WithTimeout(s.ctx, collectLimit)
		swept, err := s.Collect(ctx)
		cancel()
		switch {
		case err != nil && s.ctx.Err() == nil:
			s.log.Warn("collecting content that nobody keeps", logging.Err(err))
		case swept.Blocks > 0:
			s.log.Info("collected content that nobody keeps", "blocks", swept.Blocks, "bytes", swept.Bytes, "kept", swept.Kept)
		}
	}
}
