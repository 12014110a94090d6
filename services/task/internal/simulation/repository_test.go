package simulation_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

// content is what one node's broker keeps: what is not pinned is gone at once, so that whoever lets go too early is found out.
type content struct {
	mu     sync.Mutex
	blocks map[string][]byte
	pins   map[app.Pinned]time.Time // until when; zero: until unpinned
}

func newContent() *content {
	return &content{blocks: make(map[string][]byte), pins: make(map[app.Pinned]time.Time)}
}

func (c *content) put(w *world, data []byte, pin app.Pin) string {
	cid := app.SmallCID(sha256.Sum256(data))
	if strings.HasPrefix(pin.Owner, "replica:") {
		w.tally.add("copies", 1)
	}
	w.know(cid, w.labelOf(pin.Owner))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks[cid] = data
	c.pin(cid, pin)
	return cid
}

func (c *content) pin(cid string, pin app.Pin) {
	until := time.Time{}
	if pin.Keep > 0 {
		until = time.Now().Add(pin.Keep)
	}
	c.pins[app.Pinned{CID: cid, Owner: pin.Owner}] = until
}

// collect forgets what nobody pins. c.mu is held.
func (c *content) collect() {
	now, kept := time.Now(), make(map[string]bool)
	for p, until := range c.pins {
		if !until.IsZero() && !until.After(now) {
			delete(c.pins, p)
			continue
		}
		kept[p.CID] = true
	}
	for cid := range c.blocks {
		if !kept[cid] {
			delete(c.blocks, cid)
		}
	}
}

func (c *content) get(cid string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.collect()
	return c.blocks[cid]
}

// pinned lists the owners of what is pinned now.
func (c *content) pinned() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.collect()
	var out []string
	for p := range c.pins {
		out = append(out, p.Owner)
	}
	return out
}

// repository is the content as one process has it: it fails now and then, and always when the process has ended.
type repository struct {
	l *life
}

var errRepository = errors.New("the repository is away")

func (r repository) fails(what string) bool {
	w := r.l.side.w
	return r.l.gone() || w.hostile() && w.dice.chance(w.odds.content, w.dice.nth(r.l.side.name+" "+what))
}

func (r repository) PutSmall(_ context.Context, _ string, data []byte, pin app.Pin) (string, error) {
	w := r.l.side.w
	if r.fails("puts a little of " + w.labelOf(pin.Owner)) {
		return "", errRepository
	}
	return r.l.side.content.put(w, data, pin), nil
}

func (r repository) Put(ctx context.Context, _ string, src io.Reader, pin app.Pin) (string, error) {
	what := r.l.side.w.labelOf(pin.Owner)
	if r.fails("puts " + what) {
		return "", errRepository
	}
	b, err := io.ReadAll(src)
	if err != nil {
		return "", err
	}
	w := r.l.side.w
	wait(ctx, w.dice.span(0, 50*time.Millisecond, w.dice.nth(r.l.side.name+" put takes "+what)))
	if r.l.gone() {
		return "", errCrash
	}
	return r.l.side.content.put(w, b, pin), ctx.Err()
}

func (r repository) Get(ctx context.Context, _, cid string, from []string, maxSize int64) (io.ReadCloser, error) {
	s := r.l.side
	w := s.w
	what := w.label(cid)
	wait(ctx, w.dice.span(time.Millisecond, 200*time.Millisecond, w.dice.nth(s.name+" get takes "+what)))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.fails("gets " + what) {
		return nil, errRepository
	}
	b := s.content.get(cid)
	for _, peer := range from {
		if other := w.peers[peer]; b == nil && other != nil && s.reachable() && other.reachable() {
			b = other.content.get(cid)
		}
	}
	if b == nil {
		return nil, app.ErrNotFound
	}
	if int64(len(b)) > maxSize {
		return nil, fmt.Errorf("the content has %d bytes, more than %d", len(b), maxSize)
	}
	if r.fails("reads " + what) { // it breaks off
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), broken{})), nil
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errRepository }

func (r repository) Renew(_ context.Context, _, cid string, pin app.Pin) error {
	if r.fails("renews") {
		return errRepository
	}
	c := r.l.side.content
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.collect(); c.blocks[cid] == nil {
		return app.ErrNotFound
	}
	c.pin(cid, pin)
	return nil
}

func (r repository) Unpin(_ context.Context, pins ...app.Pinned) error {
	what := ""
	for _, p := range pins {
		what += " " + r.l.side.w.labelOf(p.Owner)
	}
	if r.fails("unpins" + what) {
		r.l.side.w.excuse("pins")
		return errRepository
	}
	c := r.l.side.content
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range pins {
		delete(c.pins, p)
	}
	return nil
}

func (r repository) Pinned(_ context.Context, kind string, most int) ([]app.Pinned, error) {
	if r.fails("lists pins") {
		return nil, errRepository
	}
	c := r.l.side.content
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []app.Pinned
	for p := range c.pins {
		if strings.HasPrefix(p.Owner, kind) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b app.Pinned) int { return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.CID, b.CID)) })
	return out[:min(len(out), most)], nil
}

// labelOf names the task that content is kept for.
func (w *world) labelOf(owner string) string {
	_, id, _ := strings.Cut(owner, ":")
	return w.label(id)
}

func isShare(owner string) bool { return strings.HasPrefix(owner, "share:") }

// wait ends early with the context.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
