// Package contenttest has the conformance suite that every content.Store passes, and a store in memory.
package contenttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// Key is the name of bytes: their SHA-256 as a multihash.
func Key(data []byte) string {
	sum := sha256.Sum256(data)
	return "\x12\x20" + string(sum[:])
}

// Block names bytes.
func Block(data []byte) app.Block { return app.Block{Key: Key(data), Data: data} }

type entry struct {
	data []byte
	gen  app.Generation
}

// Memory is a content.Store without a disk.
type Memory struct {
	mu     sync.Mutex
	blocks map[string]entry
	pins   map[string]content.Pin // by cid, 0, owner
	gen    app.Generation
	holds  map[*app.Generation]struct{}
	fail   error
}

var _ app.Store = (*Memory)(nil)

// NewMemory makes an empty one.
func NewMemory() *Memory {
	return &Memory{blocks: make(map[string]entry), pins: make(map[string]content.Pin), gen: 1, holds: make(map[*app.Generation]struct{})}
}

// FailNext makes the next change fail.
func (m *Memory) FailNext(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// Damage changes a block's bytes.
func (m *Memory) Damage(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.blocks[key]
	e.data = append(slices.Clone(e.data), 'x')
	m.blocks[key] = e
}

// Get implements content.Store.
func (m *Memory) Get(key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.blocks[key]
	if !ok {
		return nil, content.ErrNotFound
	}
	if Key(e.data) != key {
		return nil, &content.CorruptError{Key: key, Path: "memory"}
	}
	return slices.Clone(e.data), nil
}

// Size implements content.Store.
func (m *Memory) Size(key string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.blocks[key]
	if !ok {
		return 0, content.ErrNotFound
	}
	return len(e.data), nil
}

// Commit implements content.Store.
func (m *Memory) Commit(c app.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail; err != nil {
		m.fail = nil
		return err
	}
	for _, b := range c.Blocks {
		if len(b.Data) > content.MaxBlock {
			return &content.InvalidError{Field: "block", Value: hex.EncodeToString([]byte(b.Key)), Why: "it is too large"}
		}
	}
	for _, b := range c.Blocks {
		m.blocks[b.Key] = entry{slices.Clone(b.Data), m.gen}
	}
	for _, p := range c.Pins {
		m.pins[p.CID+"\x00"+p.Owner] = p
	}
	for _, p := range c.Unpins {
		k := p.CID + "\x00" + p.Owner
		if p.ExpiresAt.IsZero() || m.pins[k].ExpiresAt.Equal(p.ExpiresAt) {
			delete(m.pins, k)
		}
	}
	return nil
}

// Touch implements content.Store.
func (m *Memory) Touch(keys []string) (missing []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		e, ok := m.blocks[k]
		if !ok {
			missing = append(missing, k)
			continue
		}
		e.gen = m.gen
		m.blocks[k] = e
	}
	return missing, nil
}

// Hold implements content.Store.
func (m *Memory) Hold() func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.gen
	m.holds[&g] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.holds, &g)
	}
}

// Pins implements content.Store.
func (m *Memory) Pins(cid, owner, cursor string, limit int) (pins []content.Pin, next string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]string, 0, len(m.pins))
	for k, p := range m.pins {
		if (cid == "" || p.CID == cid) && (owner == "" || p.Owner == owner) && k > cursor {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, strings.Compare)
	for i, k := range keys {
		if i == limit {
			return pins, keys[i-1], nil
		}
		pins = append(pins, m.pins[k])
	}
	return pins, "", nil
}

// Advance implements content.Store.
func (m *Memory) Advance() (app.Generation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cutoff := m.gen
	m.gen++
	for g := range m.holds {
		cutoff = min(cutoff, *g-1)
	}
	return cutoff, nil
}

// Sweep implements content.Store.
func (m *Memory) Sweep(ctx context.Context, cutoff app.Generation, keep func(string) bool, _ bool) (app.Swept, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var done app.Swept
	for k, e := range m.blocks {
		if ctx.Err() != nil {
			return done, ctx.Err()
		}
		if e.gen > cutoff || keep(k) {
			done.Kept++
			continue
		}
		done.Blocks, done.Bytes = done.Blocks+1, done.Bytes+int64(len(e.data))
		delete(m.blocks, k)
	}
	return done, nil
}

// Each implements content.Store.
func (m *Memory) Each(ctx context.Context, visit func(string, int) error) error {
	m.mu.Lock()
	sizes := make(map[string]int, len(m.blocks))
	for k, e := range m.blocks {
		sizes[k] = len(e.data)
	}
	m.mu.Unlock()
	for k, n := range sizes {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := visit(k, n); err != nil {
			return err
		}
	}
	return nil
}
