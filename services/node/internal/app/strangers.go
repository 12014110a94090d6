package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

const (
	findTimeout = 12 * time.Second
	findLimit   = 16
	maxMissing  = 64               // names that are looked for
	missedFor   = 10 * time.Second // a task that still waits has asked again by then
	lookAgain   = time.Minute      // for providers of a type, at the longest
	// lookFirst is how long a node with few connections waits for its bootstrap nodes, and those that it has reached before, to answer.
	lookFirst  = 3 * time.Second
	lookSeldom = 10 * time.Minute
)

// missing is a name that nobody known has.
type missing struct {
	missedAt time.Time
	next     time.Time
	looked   int
}

// miss says that no known provider takes tasks of a type: the routing table may know one. It does not block. Locked by the caller.
func (c *Consumer) miss(task string) {
	name := domain.NameOfType(task)
	m := c.missing[name]
	if m == nil {
		if len(c.missing) >= maxMissing {
			return
		}
		m = &missing{}
		c.missing[name] = m
		kick(c.lookKick)
	}
	m.missedAt = time.Now()
}

// looking looks for strangers in the routing table: for those who take a type of task for which nobody is known, and for anybody while there are next
// to no connections. Who they are they say themselves, once they are connected and asked.
func (c *Consumer) looking(ctx context.Context) {
	var looks sync.WaitGroup
	defer looks.Wait()
	anybody := &missing{next: time.Now().Add(lookFirst)}
	for {
		c.mu.Lock()
		now := time.Now()
		next := now.Add(lookAgain)
		var names []string
		due := func(name string, m *missing, longest time.Duration) {
			if !now.Before(m.next) {
				names = append(names, name)
				m.looked++
				m.next = now.Add(domain.Backoff{First: time.Second, Max: longest}.After(m.looked, nil))
			}
			if m.next.Before(next) {
				next = m.next
			}
		}
		for name, m := range c.missing {
			if now.Sub(m.missedAt) > missedFor && !now.Before(m.next) {
				delete(c.missing, name)
				continue
			}
			due(name, m, lookAgain)
		}
		if len(c.conns) < fewConns {
			due(domain.NameProvider, anybody, lookSeldom)
		} else {
			anybody.looked = 0
		}
		c.mu.Unlock()
		for _, name := range names {
			looks.Go(func() { c.look(ctx, name) })
		}
		if !wait(ctx, max(time.Until(next), 10*time.Millisecond), c.lookKick) {
			return
		}
	}
}

// look connects to those who have a name, some at a time.
func (c *Consumer) look(ctx context.Context, name string) {
	var dials sync.WaitGroup
	defer dials.Wait()
	slots := make(chan struct{}, dialAtOnce)
	find, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	found := 0
	err := c.net.Find(find, name, findLimit, func(p KnownPeer) {
		c.mu.Lock()
		connected := c.conns[p.PeerID] != nil
		c.mu.Unlock()
		if found++; connected || found > findLimit || !domain.ValidPeerID(p.PeerID) {
			return
		}
		dials.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
			defer cancel()
			if _, err := c.net.Connect(ctx, p.PeerID, p.Addresses); err != nil {
				c.log.Debug("a provider that the routing table named could not be reached", logging.Err(err))
			}
		})
	})
	if err != nil {
		c.log.Debug("the routing table was asked in vain", logging.Err(err))
		return
	}
	c.log.Debug("the routing table was asked", slog.Int("named", found))
}
