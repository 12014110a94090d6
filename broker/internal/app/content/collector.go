package content

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// Links returns what a block refers to, by content: those that have links themselves, and leaves.
type Links func(cid string, read func(key string) ([]byte, error)) (Node, error)

// Node is one block of a DAG.
type Node struct {
	Key string
	// Inner are children that may have links, by CID; Leaves are keys of those that have none.
	Inner  []string
	Leaves []string
}

// CollectorConfig is what a Collector works with; all are required.
type CollectorConfig struct {
	Store Store
	Links Links
	Now   func() time.Time
}

// Collector removes blocks that no pin needs: it marks what pins reach, then sweeps the rest. It is conservative. What is young, held
// or possibly marked stays; and when the links of anything pinned cannot be read, nothing is removed at all, because what hangs on
// them cannot be known.
type Collector struct {
	cfg      CollectorConfig
	mu       sync.Mutex
	previous Generation
	blocks   int64 // that the last sweep left
}

// NewCollector makes one; it does nothing by itself.
func NewCollector(cfg CollectorConfig) *Collector { return &Collector{cfg: cfg} }

const pinPage = 512

// Collect takes what was last touched before the previous call and is not needed by any pin. Concurrent calls wait for each other.
func (c *Collector) Collect(ctx context.Context) (Swept, error) { return c.collect(ctx, false) }

// CollectAll takes all that no pin needs and nobody holds, however young it is, and gives back what space it can.
func (c *Collector) CollectAll(ctx context.Context) (Swept, error) { return c.collect(ctx, true) }

func (c *Collector) collect(ctx context.Context, all bool) (Swept, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	expired, err := c.expire(ctx)
	if err != nil {
		return Swept{Expired: expired}, fmt.Errorf("lift pins that have ended: %w", err)
	}
	cutoff, err := c.cfg.Store.Advance()
	if err != nil {
		return Swept{Expired: expired}, err
	}
	// One generation back, so that content lives for one whole interval at least: between Put and the Pin that follows it, say.
	sweep := min(c.previous, cutoff)
	if all {
		sweep = cutoff
	}
	c.previous = cutoff
	marked, err := c.mark(ctx)
	if err != nil {
		return Swept{Expired: expired}, err
	}
	swept, err := c.cfg.Store.Sweep(ctx, sweep, marked.has, all)
	swept.Expired = expired
	if err == nil {
		c.blocks = swept.Kept
	}
	return swept, err
}

// expire lifts pins that have ended, unless they are renewed meanwhile.
func (c *Collector) expire(ctx context.Context) (n int64, err error) {
	now := c.cfg.Now()
	err = c.eachPin(ctx, func(pins []content.Pin) error {
		var ended []content.Pin
		for _, p := range pins {
			if p.Expired(now) {
				ended = append(ended, p)
			}
		}
		n += int64(len(ended))
		if len(ended) == 0 {
			return nil
		}
		return c.cfg.Store.Commit(Change{Unpins: ended})
	})
	return n, err
}

func (c *Collector) eachPin(ctx context.Context, f func([]content.Pin) error) error {
	for cursor := ""; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		pins, next, err := c.cfg.Store.Pins("", "", cursor, pinPage)
		if err != nil {
			return err
		}
		if err := f(pins); err != nil {
			return err
		}
		if cursor = next; next == "" {
			return nil
		}
	}
}

// mark finds everything that pins reach. It holds the keys approximately: a few dead blocks are taken for live ones, and never the
// other way round.
func (c *Collector) mark(ctx context.Context) (*filter, error) {
	marked := newFilter(c.blocks)
	last := ""
	err := c.eachPin(ctx, func(pins []content.Pin) error {
		for _, p := range pins {
			if p.CID == last { // pins of one content follow each other
				continue
			}
			last = p.CID
			if err := c.markDAG(ctx, p.CID, marked); err != nil {
				return fmt.Errorf("nothing is collected, because pinned content %s cannot be walked: %w", p.CID, err)
			}
		}
		return nil
	})
	return marked, err
}

// markDAG visits inner nodes once each, also across DAGs that share parts. The filter may claim that one was visited that was not,
// and then its children would be missed; so inner nodes are remembered exactly.
func (c *Collector) markDAG(ctx context.Context, root string, marked *filter) error {
	seen := map[string]struct{}{root: {}}
	for todo := []string{root}; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		cid := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		n, err := c.cfg.Links(cid, c.cfg.Store.Get)
		if err != nil {
			return err
		}
		marked.add(n.Key)
		for _, key := range n.Leaves {
			marked.add(key)
		}
		for _, child := range n.Inner {
			if _, ok := seen[child]; ok {
				continue
			}
			if len(seen) >= MaxInner {
				return errTooManyNodes
			}
			seen[child] = struct{}{}
			todo = append(todo, child)
		}
	}
	return nil
}

// MaxInner is how many nodes with links one DAG may have: at a thousand leaves of 1 MiB each, far more than any disk holds.
const MaxInner = 1 << 18

var errTooManyNodes = errors.New("it has too many nodes with links")
