package tor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// lookEvery is how often the consensus is read while Ready waits for one: tor tells nobody of it without a control port.
const lookEvery = 100 * time.Millisecond

// maxConsensus bounds what is read of one; a relay takes some 300 bytes.
const maxConsensus = 1 << 20

// Ready blocks until clients of the network can make and reach onion services: the authorities have agreed on a consensus that holds now and has every tor of
// the network in it as a directory of onion services, and all tors have joined. Meanwhile it calls progress, where that is not nil, at each change with a
// percentage that does not fall and what is waited for, which at the end is empty. When ctx ends it returns a fault (TOR_START_FAILED) that says what was
// waited for.
func (p *Private) Ready(ctx context.Context, progress func(percent int, waiting string)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	best, told, said := 0, -1, ""
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		percent, waiting := p.state(time.Now())
		best = max(best, percent)
		if progress != nil && (best != told || waiting != said) {
			progress(best, waiting)
		}
		told, said = best, waiting
		if waiting == "" {
			return nil
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return fault.Wrap(context.Cause(ctx), fault.From(ctx.Err()).Code, ReasonStartFailed, "the private Tor network did not become ready: it waits for %s", waiting)
		}
	}
}

// state says how far the network is. Half of the way is the consensus, half the joining of all.
func (p *Private) state(now time.Time) (percent int, waiting string) {
	dirs, when := 0, "the authorities' first vote"
	for _, n := range p.nodes {
		if !n.authority {
			continue
		}
		c, err := readConsensus(filepath.Join(n.data(), microdescConsensus))
		if err == nil && now.Before(c.validUntil) && c.hsDirs > dirs {
			dirs = c.hsDirs
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sum, slow := 0, ""
	for _, n := range p.nodes {
		b := p.percent[n.name]
		sum += b.Percent
		switch {
		case p.down[n.name] != nil:
			slow = fmt.Sprintf("%s, which ended (%v)", n.name, p.down[n.name])
		case b.Percent < 100 && slow == "":
			slow = n.name + ", which has not begun to join"
			if b.Summary != "" {
				slow = fmt.Sprintf("%s (%s)", n.name, b.Summary)
			}
		}
	}
	percent = 50*dirs/len(p.nodes) + 50*sum/(100*len(p.nodes))
	switch {
	case dirs > 0 && dirs < len(p.nodes):
		when = fmt.Sprintf("a vote that has all %d relays in it (the last had %d)", len(p.nodes), dirs)
	case dirs > 0:
		when = slow
	}
	if when == "" {
		return 100, ""
	}
	return min(percent, 99), when
}

// consensus is what is read of one.
type consensus struct {
	validUntil time.Time
	hsDirs     int // relays that run and keep descriptors of onion services
}

func readConsensus(path string) (consensus, error) {
	f, err := os.Open(path)
	if err != nil {
		return consensus{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConsensus))
	if err != nil {
		return consensus{}, err
	}
	return parseConsensus(data)
}

// parseConsensus reads the few lines that matter (dir-spec, §3.4): when it ends, and the flags of each relay.
func parseConsensus(data []byte) (c consensus, err error) {
	for line := range bytes.Lines(data) {
		word, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		switch word {
		case "valid-until":
			if c.validUntil, err = time.Parse(time.DateTime, rest); err != nil {
				return consensus{}, fmt.Errorf("valid-until: %w", err)
			}
		case "s":
			flags := " " + rest + " "
			if strings.Contains(flags, " HSDir ") && strings.Contains(flags, " Running ") {
				c.hsDirs++
			}
		}
	}
	if c.validUntil.IsZero() {
		return consensus{}, fmt.Errorf("it has no valid-until")
	}
	return c, nil
}
