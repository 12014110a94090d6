package disk

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// Commit implements app.Store. What is there already is touched first, then what is new is appended and synced, and then the index
// is written: the moment at which the change happens.
func (s *Store) Commit(c app.Change) error {
	s.ops.RLock()
	defer s.ops.RUnlock()
	if err := s.heal(); err != nil {
		return err
	}
	defer s.Hold()() // between the steps no collection may take what the first one found
	fresh, err := s.touchKnown(c.Blocks)
	if err != nil {
		return err
	}
	batch := new(leveldb.Batch)
	done, err := s.writeBlocks(fresh, batch)
	if err != nil {
		return s.writeFailed(err)
	}
	defer done()
	for _, p := range c.Pins {
		v := pinValue(p)
		batch.Put(pinKey(p), v)
		batch.Put(ownerKey(p), v)
	}
	if c.Durable {
		if err := s.packs.sync(); err != nil {
			return s.writeFailed(err)
		}
	}
	// A pin that is lifted only if it has not been renewed is compared and removed alone.
	if conditional(c.Unpins) {
		s.mu.Lock()
		defer s.mu.Unlock()
	} else {
		s.mu.RLock()
		defer s.mu.RUnlock()
	}
	if err := s.unpin(c.Unpins, batch); err != nil {
		return err
	}
	return s.writeIndex(batch, c.Durable)
}

func conditional(unpins []content.Pin) bool {
	for _, p := range unpins {
		if !p.ExpiresAt.IsZero() {
			return true
		}
	}
	return false
}

// unpin adds to the batch; the caller holds mu, for writing where a pin has an end to be compared.
func (s *Store) unpin(pins []content.Pin, batch *leveldb.Batch) error {
	if s.closed {
		return content.ErrClosed
	}
	for _, p := range pins {
		if !p.ExpiresAt.IsZero() {
			v, err := s.db.Get(pinKey(p), nil)
			if errors.Is(err, leveldb.ErrNotFound) || err == nil && !bytes.Equal(v, pinValue(p)) {
				continue
			}
			if err != nil {
				return s.readFailed(err)
			}
		}
		batch.Delete(pinKey(p))
		batch.Delete(ownerKey(p))
	}
	return nil
}

// writeIndex writes at once what belongs together. The caller holds mu.
func (s *Store) writeIndex(batch *leveldb.Batch, durable bool) error {
	if s.closed {
		return content.ErrClosed
	}
	if batch.Len() == 0 && !durable {
		return nil
	}
	if batch.Len() == 0 { // a sync of what was written before needs something to carry it
		batch.Put([]byte(keyGeneration), generationValue(s.generation()))
	}
	if err := s.db.Write(batch, &opt.WriteOptions{Sync: durable}); err != nil {
		s.genMu.Lock()
		s.broken = err
		s.genMu.Unlock()
		return s.writeFailed(fmt.Errorf("write the index %s: %w", s.index, err))
	}
	return nil
}

// touchKnown returns the blocks that are to be written, and gives the others to the current generation. Small ones are always
// written: that costs less than to look, and mends what may be damaged.
func (s *Store) touchKnown(blocks []app.Block) (fresh []namedBlock, err error) {
	for _, b := range blocks {
		if len(b.Data) > content.MaxBlock {
			return nil, &content.InvalidError{Field: "block", Value: fmt.Sprintf("%d bytes", len(b.Data)), Why: "it is larger than peers take"}
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	gen := s.generation()
	batch := new(leveldb.Batch)
	fresh = make([]namedBlock, 0, len(blocks))
	for _, b := range blocks {
		if len(b.Data) > smallData {
			if at, err := s.lookup(b.Key); err == nil {
				if _, err := s.readChecked(b.Key, at); err == nil {
					at.gen = gen
					batch.Put([]byte(prefixBlock+b.Key), at.encode())
					continue
				}
			}
		}
		fresh = append(fresh, namedBlock{b.Key, b.Data})
	}
	return fresh, s.writeIndex(batch, false)
}

// writeBlocks appends blocks and adds their places to the batch. Until done is called their pack counts as being written, so that no
// collection takes it for an empty one.
func (s *Store) writeBlocks(blocks []namedBlock, batch *leveldb.Batch) (done func(), err error) {
	if len(blocks) == 0 {
		return func() {}, nil
	}
	total := 0
	for _, b := range blocks {
		total += len(b.data)
	}
	if used := s.packs.used(); s.cfg.Quota > 0 && used+int64(total) > s.cfg.Quota {
		return nil, &content.QuotaError{Used: used, Quota: s.cfg.Quota}
	}
	if err := s.room.check(total); err != nil {
		return nil, err
	}
	p, err := s.packs.take()
	if err != nil {
		return nil, err
	}
	places, err := s.packs.append(p, blocks)
	s.packs.give(p)
	if err != nil {
		s.packs.settle(p)
		return nil, err
	}
	gen := s.generation()
	for i, at := range places {
		at.gen = gen
		batch.Put([]byte(prefixBlock+blocks[i].key), at.encode())
	}
	return func() { s.packs.settle(p) }, nil
}

// Touch implements app.Store.
func (s *Store) Touch(keys []string) (missing []string, err error) {
	s.ops.RLock()
	defer s.ops.RUnlock()
	if err := s.heal(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	gen := s.generation()
	batch := new(leveldb.Batch)
	for _, key := range keys {
		at, err := s.lookup(key)
		if errors.Is(err, content.ErrNotFound) {
			missing = append(missing, key)
			continue
		}
		if err != nil {
			return nil, err
		}
		if at.gen == gen {
			continue
		}
		at.gen = gen
		batch.Put([]byte(prefixBlock+key), at.encode())
	}
	return missing, s.writeIndex(batch, false)
}
