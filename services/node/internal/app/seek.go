package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/marks"
	"github.com/shallot-net/shallot/kit/pace"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

const (
	dialTimeout = 10 * time.Second
	dialAtOnce  = 4
	askAtOnce   = 16
	askMany     = 3 // connected providers that are asked in one round while there is news, 2 otherwise
	askFirst    = 100 * time.Millisecond
	askOften    = 700 * time.Millisecond // the longest pause while there is news
	loadsAtOnce = 4                      // metrics that are asked for in one round
	loadsEvery  = 400 * time.Millisecond // the least time between two rounds
	staleBusy   = 2 * time.Second        // a metric this old is asked for again while tasks are being placed
	staleIdle   = 20 * time.Second       // the same otherwise
	placingSpan = 10 * time.Second
	maxFailures = 6 // questions in a row not taken by a peer that never announced itself: it is no provider
	sweepEvery  = time.Second
	// With fewer connections than this, those that were reached before are dialled too.
	fewConns      = 3
	recallEvery   = time.Minute
	recallAgain   = 500 * time.Millisecond
	recallTimeout = time.Second
	sampleWanted  = 64
	enoughKnown   = 64 // who knows so many providers need not hurry to know more
	markedUpTo    = 4  // times the view: a larger network is asked without marks
)

// Run joins the network and keeps the view true, until ctx ends; it returns when nothing is under way any more.
func (c *Consumer) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	for _, loop := range []func(context.Context){c.joining, c.asking, c.loading, c.sweeping, c.looking} {
		loops.Go(func() { loop(ctx) })
	}
	loops.Wait()
	c.end()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.fresh.Wait()
	return nil
}

// wait until d is over, somebody kicks, or ctx ends (false).
func wait(ctx context.Context, d time.Duration, kick <-chan struct{}) bool {
	_, ok := waitKick(ctx, d, kick)
	return ok
}

// waitKick is wait that tells whether somebody kicked.
func waitKick(ctx context.Context, d time.Duration, kick <-chan struct{}) (kicked, ok bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false, false
	case <-kick:
		return true, true
	case <-t.C:
		return false, true
	}
}

// ---- connections

type dialling struct {
	failures int
	next     time.Time
	busy     bool
}

// joining dials bootstrap addresses until one works, and known providers until there are enough connections.
func (c *Consumer) joining(ctx context.Context) {
	var dials sync.WaitGroup
	defer dials.Wait()
	slots := make(chan struct{}, dialAtOnce)
	var mu sync.Mutex
	state := map[string]*dialling{} // by address, or by peer id
	started := time.Now()
	for {
		now := time.Now()
		next := now.Add(30 * time.Second)
		if !c.recall(ctx) { // the broker may be starting
			next = now.Add(recallAgain)
		}
		for _, t := range c.targets() {
			mu.Lock()
			d := state[t.key]
			if d == nil {
				if len(state) > 4096 {
					clear(state)
				}
				d = &dialling{}
				state[t.key] = d
			}
			due := !d.busy && !now.Before(d.next)
			if !d.busy && d.next.Before(next) && !due {
				next = d.next
			}
			mu.Unlock()
			if !due {
				continue
			}
			select {
			case slots <- struct{}{}:
			default:
				next = now.Add(50 * time.Millisecond)
				continue
			}
			d.busy = true
			dials.Go(func() {
				err := c.dial(ctx, t)
				<-slots
				mu.Lock()
				defer mu.Unlock()
				d.busy = false
				if err == nil {
					d.failures, d.next = 0, time.Now().Add(time.Second) // if it is lost again at once
					return
				}
				d.failures++
				b := domain.Backoff{First: 50 * time.Millisecond, Max: 30 * time.Second}
				if time.Since(started) < c.cfg.Settle { // nodes that start together must find each other soon
					b.Max = 300 * time.Millisecond
				}
				d.next = time.Now().Add(b.After(d.failures, nil))
				kick(c.joinKick)
			})
		}
		if !wait(ctx, max(time.Until(next), 10*time.Millisecond), c.joinKick) {
			return
		}
	}
}

type target struct {
	key       string
	peer      string // "" for a bootstrap address
	addresses []string
	vouched   bool
}

// targets are whom to dial now.
func (c *Consumer) targets() []target {
	bootstrap := c.cfg.Bootstrap()
	c.mu.Lock()
	defer c.mu.Unlock()
	named := slices.Concat(bootstrap, c.joined) // the first is not this one's to append to
	for _, a := range named {
		c.dir.Name(domain.AddressPeer(a))
	}
	var out []target
	missing := c.cfg.Neighbours - len(c.conns)
	if missing <= 0 {
		return nil
	}
	for _, a := range named {
		if c.conns[domain.AddressPeer(a)] == nil {
			out = append(out, target{key: a, addresses: []string{a}})
		}
	}
	var known []string
	for _, p := range c.dir.View() {
		if !p.Connected && (p.State == domain.StateAvailable || p.Suspected) && len(p.Addresses) > 0 {
			known = append(known, p.PeerID)
		}
	}
	for _, id := range pick(known, missing) {
		p := c.dir.Get(id)
		out = append(out, target{key: id, peer: id, addresses: p.Addresses, vouched: p.Vouched()})
	}
	// Bootstrap nodes may all be gone, and the view of those of yesterday with the process that had it.
	if len(c.conns) < fewConns {
		for _, p := range c.before {
			if c.conns[p.PeerID] == nil && c.dir.Get(p.PeerID) == nil {
				out = append(out, target{key: p.PeerID, peer: p.PeerID, addresses: p.Addresses})
			}
		}
	}
	return out
}

// recall asks the broker whom this node has reached before, while it has next to nobody. It is false when the broker did not say.
func (c *Consumer) recall(ctx context.Context) bool {
	c.mu.Lock()
	due := len(c.conns) < fewConns && time.Since(c.lookedAt) > recallEvery
	if due {
		c.lookedAt = time.Now()
	}
	c.mu.Unlock()
	if !due {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
	defer cancel()
	known, err := c.net.Known(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.log.Debug("the broker did not say whom it has reached before", logging.Err(err))
		c.lookedAt = time.Time{}
		return false
	}
	c.before = known
	return true
}

func (c *Consumer) dial(ctx context.Context, t target) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	connect := c.net.Connect
	if t.vouched {
		connect = c.net.ConnectVouched
	}
	_, err := connect(ctx, t.peer, t.addresses)
	if err == nil {
		return nil
	}
	f := fault.From(err)
	if f.Reason == "DIAL_BUDGET" { // it was not dialled, which says nothing of it
		return err
	}
	c.log.Debug("a provider could not be connected to", logging.Addr(t.addresses[0]), logging.Err(f))
	if t.peer != "" && !errors.Is(err, context.Canceled) {
		c.mu.Lock()
		c.dir.Suspect(t.peer, time.Now())
		c.mu.Unlock()
	}
	return err
}

// Join dials one more address now, and keeps it as a bootstrap address for as long as the process lives.
func (c *Consumer) Join(ctx context.Context, address string) (string, error) {
	id, err := c.net.Connect(ctx, "", []string{address})
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.joined) < maxJoined {
		c.joined = append(c.joined, address)
	}
	c.newsAt = time.Now()
	kick(c.askKick)
	return id, nil
}

// ---- questions

// asking asks connected providers who is out there: often while there is news, then less and less.
func (c *Consumer) asking(ctx context.Context) {
	var asks sync.WaitGroup
	defer asks.Wait()
	slots := make(chan struct{}, askAtOnce)
	pause := askFirst
	for {
		now := time.Now()
		c.mu.Lock()
		news := now.Sub(c.newsAt) < c.cfg.Settle
		settled := c.cfg.Ask.Interval(max(c.known, len(c.dir.View())))
		c.dir.SetAsking(pace.Stated(settled))
		if news {
			pause = min(max(pause, askFirst)*3/2, askOften)
		} else {
			pause = min(pause*2, settled)
		}
		peers := c.whomToAsk(now, news)
		for id, q := range c.questions {
			if now.After(q.until) {
				delete(c.questions, id)
			}
		}
		c.mu.Unlock()
		for _, id := range peers {
			select {
			case slots <- struct{}{}:
				asks.Go(func() {
					defer func() { <-slots }()
					_ = c.ask(ctx, id, eventv1.EventType_EVENT_TYPE_DISCOVER, &eventv1.Discover{Limit: sampleWanted})
				})
			default:
			}
		}
		kicked, ok := waitKick(ctx, pace.Jitter(pause), c.askKick)
		if !ok {
			return
		}
		if kicked {
			pause = askFirst
		}
	}
}

// whomToAsk: those that were just connected, and a few of the others at random.
func (c *Consumer) whomToAsk(now time.Time, news bool) []string {
	n := 2
	if news {
		n = askMany
	}
	var fresh, others []string
	for id, k := range c.conns {
		// A new one's discovery service may not be up yet: it is asked again soon, then less often.
		again := domain.Backoff{First: askFirst, Max: 2 * time.Second}.After(k.failures+1, nil)
		switch {
		case !k.answered && now.Sub(k.askedAt) < again:
		case !k.answered && k.failures < maxFailures:
			fresh = append(fresh, id)
		case k.answered:
			others = append(others, id)
		case now.Sub(k.askedAt) > time.Minute: // perhaps its discovery service is back
			others = append(others, id)
		}
	}
	out := append(pick(fresh, askAtOnce), pick(others, n)...)
	for _, id := range out {
		c.conns[id].askedAt = now
	}
	return out
}

var errTooManyQuestions = errors.New("too many questions wait for an answer")

// marks are of the announcements in the view, for a question that asks for others. Where there are far more than it holds, hardly any would be of one that
// is told. c.mu is held.
func (c *Consumer) marks(question string) []uint32 {
	view := c.dir.View()
	if c.known > markedUpTo*max(len(view), enoughKnown) {
		return nil
	}
	out := make([]uint32, 0, min(len(view), marks.Most))
	for _, p := range view {
		if p.State == domain.StateAvailable && len(out) < marks.Most && (!c.cfg.Aloof || p.Vouched()) { // of the others it matters who tells of them
			out = append(out, marks.Of(question, p.PeerID, p.Version))
		}
	}
	return out
}

// ask puts a question to a peer. The answer is an event of its own. A Discover gets its marks here.
func (c *Consumer) ask(ctx context.Context, peer string, kind eventv1.EventType, payload proto.Message) error {
	id := brokerclient.NewID()
	c.mu.Lock()
	if len(c.questions) >= maxQuestions {
		c.mu.Unlock()
		return errTooManyQuestions
	}
	c.questions[id] = question{peer, kind, time.Now().Add(answerWithin + c.cfg.AskTimeout)}
	c.counts.Asked++
	if d, ok := payload.(*eventv1.Discover); ok {
		d.Has = c.marks(id)
	}
	c.mu.Unlock()
	err := c.net.SendEvent(ctx, peer, kind, id, payload, c.cfg.AskTimeout)
	if err == nil {
		return nil
	}
	c.log.Debug("a question was not taken", logging.Peer(peer), logging.Err(err))
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.questions, id)
	if conn := c.conns[peer]; conn != nil {
		conn.failures++
	}
	return err
}

// loading asks a few providers for their metrics: those that are connected or have tasks of ours, the stalest first.
func (c *Consumer) loading(ctx context.Context) {
	var asks sync.WaitGroup
	defer asks.Wait()
	for {
		c.mu.Lock()
		now := time.Now()
		stale := staleIdle
		if now.Sub(c.placedAt) < placingSpan && !c.cfg.Aloof { // who asked more often would say that tasks are being placed now
			stale = staleBusy
		}
		peers := c.staleLoads(now, stale)
		c.mu.Unlock()
		for _, id := range peers {
			asks.Go(func() { _ = c.ask(ctx, id, eventv1.EventType_EVENT_TYPE_METRIC_QUERY, &eventv1.MetricQuery{}) })
		}
		if len(peers) > 0 { // a round lasts as long as its slowest answer, and is followed by a pause
			asks.Wait()
		}
		if !wait(ctx, domain.Jitter(loadsEvery, nil), nil) {
			return
		}
		if len(peers) == 0 && !wait(ctx, stale/4, c.loadKick) {
			return
		}
	}
}

func (c *Consumer) staleLoads(now time.Time, stale time.Duration) []string {
	open := map[string]bool{}
	for _, q := range c.questions {
		if q.kind == eventv1.EventType_EVENT_TYPE_METRIC_QUERY {
			open[q.peer] = true
		}
	}
	// Many connections are left from placements. These ask for themselves.
	connected := len(c.conns) <= 2*c.cfg.Neighbours
	var missing, old []string
	for _, p := range c.dir.View() {
		switch {
		case p.State != domain.StateAvailable || open[p.PeerID] || (p.Placed == 0 || c.cfg.Aloof) && !(p.Connected && connected):
		case p.Load == nil:
			missing = append(missing, p.PeerID)
		case now.Sub(p.Load.At) > stale:
			old = append(old, p.PeerID)
		}
	}
	out := pick(missing, loadsAtOnce)
	return append(out, pick(old, loadsAtOnce-len(out))...)
}

// sweeping notices who was not heard of in time.
func (c *Consumer) sweeping(ctx context.Context) {
	before := -1
	for wait(ctx, sweepEvery, nil) {
		c.mu.Lock()
		available, forgotten := c.dir.Sweep(time.Now())
		c.mu.Unlock()
		if available != before || len(forgotten) > 0 {
			before = available
			c.Changed()
		}
	}
}
