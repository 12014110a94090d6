package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/logging"
)

const (
	sweepBatch = 256 // blocks removed, or looked at, under the lock at once: about a millisecond
)

// effort is what a sweep does for the space of blocks that are gone.
type effort struct {
	sealFrom int64 // a pack with less in it is not worth being emptied
	live     int64 // percent of a pack's bytes below which its live blocks are written again, so that it can go
	maxMoved int64 // bytes that are written again at most
}

var (
	usual    = effort{sealFrom: 8 << 20, live: 50, maxMoved: 256 << 20}
	thorough = effort{sealFrom: 64 << 10, live: 90, maxMoved: math.MaxInt64}
)

// Advance implements app.Store.
func (s *Store) Advance() (app.Generation, error) {
	s.ops.RLock()
	defer s.ops.RUnlock()
	if err := s.heal(); err != nil {
		return 0, err
	}
	// Durable, so that packs which only saw changes that are not get synced and closed too.
	if err := s.packs.sync(); err != nil {
		return 0, s.writeFailed(err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.genMu.Lock()
	s.gen++
	gen, cutoff := s.gen, s.gen-1
	for h := range s.holds {
		cutoff = min(cutoff, h.gen-1)
	}
	s.genMu.Unlock()
	batch := new(leveldb.Batch)
	batch.Put([]byte(keyGeneration), generationValue(gen))
	return app.Generation(cutoff), s.writeIndex(batch, true)
}

// entry is a block as the index had it when it was looked at.
type entry struct {
	key, value []byte // with prefix
	at         place
}

// Sweep implements app.Store. It removes index entries first, durably, and files after: killed between, it leaves a file that the next
// sweep finds without entries.
func (s *Store) Sweep(ctx context.Context, cutoff app.Generation, keep func(key string) bool, all bool) (app.Swept, error) {
	var done app.Swept
	effort := usual
	if all {
		effort = thorough
	}
	s.ops.RLock()
	defer s.ops.RUnlock()
	if err := s.heal(); err != nil {
		return done, err
	}
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	if closed {
		return done, content.ErrClosed
	}
	// Whatever lies in a sealed pack is in the index by now, or dead.
	s.packs.seal(effort.sealFrom)
	sealed := s.packs.sealed()

	live := make(map[uint32]int64, len(sealed))
	var doomed []entry
	remove := func() error {
		n, bytes, err := s.remove(doomed, uint64(cutoff))
		done.Blocks, done.Bytes, doomed = done.Blocks+n, done.Bytes+bytes, doomed[:0]
		return err
	}
	err := s.eachBlock(ctx, func(e entry) error {
		if e.at.gen > uint64(cutoff) || keep(string(e.key[len(prefixBlock):])) {
			live[e.at.pack] += int64(e.at.size)
			done.Kept++
			return nil
		}
		if doomed = append(doomed, e.clone()); len(doomed) == sweepBatch {
			return remove()
		}
		return nil
	})
	if err == nil {
		err = remove()
	}
	if err != nil {
		return done, err
	}
	return done, s.reclaim(ctx, effort, sealed, live, &done)
}

func (e entry) clone() entry {
	return entry{bytes.Clone(e.key), bytes.Clone(e.value), e.at}
}

// Each implements app.Store.
func (s *Store) Each(ctx context.Context, visit func(key string, size int) error) error {
	s.ops.RLock()
	defer s.ops.RUnlock()
	return s.eachBlock(ctx, func(e entry) error { return visit(string(e.key[len(prefixBlock):]), int(e.at.size)) })
}

// eachBlock visits the index as it was when it was called. The entry is f's only until f returns.
func (s *Store) eachBlock(ctx context.Context, f func(entry) error) error {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return content.ErrClosed
	}
	it := s.db.NewIterator(util.BytesPrefix([]byte(prefixBlock)), &opt.ReadOptions{DontFillCache: true})
	s.mu.RUnlock()
	defer it.Release()
	for n := 0; it.Next(); n++ {
		if n%sweepBatch == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		at, err := decodePlace(it.Value())
		if err != nil {
			return &content.TornError{Path: s.index, Err: err}
		}
		if err := f(entry{it.Key(), it.Value(), at}); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return s.readFailed(err)
	}
	return nil
}

// unchanged says whether the index still has the entry; the caller holds mu for writing.
func (s *Store) unchanged(e entry) (bool, error) {
	if s.closed {
		return false, content.ErrClosed
	}
	v, err := s.db.Get(e.key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, s.readFailed(err)
	}
	return bytes.Equal(v, e.value), nil
}

// remove takes the entries out unless they were touched since they were looked at.
func (s *Store) remove(entries []entry, cutoff uint64) (n, size int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := new(leveldb.Batch)
	for _, e := range entries {
		same, err := s.unchanged(e)
		if err != nil {
			return 0, 0, err
		}
		if !same || e.at.gen > cutoff {
			continue
		}
		batch.Delete(e.key)
		n, size = n+1, size+int64(e.at.size)
	}
	if batch.Len() == 0 {
		return 0, 0, nil
	}
	return n, size, s.writeIndex(batch, false)
}

// reclaim deletes packs in which nothing lives, and then those of which little lives, after writing that again. In this order: the
// disk may be full.
func (s *Store) reclaim(ctx context.Context, e effort, sealed, live map[uint32]int64, done *app.Swept) error {
	sparse := make(map[uint32]bool)
	empty := make(map[uint32]bool)
	budget := e.maxMoved
	for id, size := range sealed {
		switch n := live[id]; {
		case n == 0:
			empty[id] = true
		case n < size/100*e.live && n <= budget && size >= e.sealFrom:
			budget -= n
			sparse[id] = true
		}
	}
	if err := s.removePacks(empty); err != nil {
		return err
	}
	if len(sparse) == 0 {
		return nil
	}
	moved, err := s.move(ctx, sparse)
	done.Moved += moved
	if err != nil {
		return err
	}
	return s.removePacks(sparse)
}

func (s *Store) removePacks(ids map[uint32]bool) error {
	if len(ids) == 0 {
		return nil
	}
	// What the index says must be on disk before the files go.
	if err := s.syncIndex(); err != nil {
		return err
	}
	var errs []error
	for id := range ids {
		if err := s.packs.remove(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", s.packs.path(id), err))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) syncIndex() error {
	if err := s.packs.sync(); err != nil {
		return s.writeFailed(err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.writeIndex(new(leveldb.Batch), true)
}

// move writes the live blocks of sparse packs again. A pack with a block that cannot be read stays: it is taken out of sparse.
func (s *Store) move(ctx context.Context, sparse map[uint32]bool) (moved int64, err error) {
	var some []entry
	size := 0
	flush := func() error {
		n, err := s.rewrite(some, sparse)
		moved += n
		some, size = some[:0], 0
		return err
	}
	err = s.eachBlock(ctx, func(e entry) error {
		if !sparse[e.at.pack] {
			return nil
		}
		some = append(some, e.clone())
		if size += int(e.at.size); size >= 4<<20 || len(some) == sweepBatch {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return moved, err
}

func (s *Store) rewrite(entries []entry, sparse map[uint32]bool) (moved int64, err error) {
	var blocks []namedBlock
	var from []entry
	for _, e := range entries {
		key := string(e.key[len(prefixBlock):])
		b, err := s.readChecked(key, e.at)
		if errors.Is(err, content.ErrNotFound) {
			continue // nothing to save
		}
		if err != nil {
			delete(sparse, e.at.pack)
			s.cfg.Log.Warn("a pack keeps its place on disk, because a block in it cannot be read", logging.Err(err))
			continue
		}
		blocks, from = append(blocks, namedBlock{key, b}), append(from, e)
		moved += int64(len(b))
	}
	if len(blocks) == 0 {
		return 0, nil
	}
	if err := s.room.check(int(moved)); err != nil {
		return 0, err
	}
	p, err := s.packs.take()
	if err != nil {
		return 0, s.writeFailed(err)
	}
	defer s.packs.settle(p)
	places, err := s.packs.append(p, blocks)
	s.packs.give(p)
	if err != nil {
		return 0, s.writeFailed(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := new(leveldb.Batch)
	for i, e := range from {
		at := places[i]
		// Touched meanwhile, it keeps the generation; gone, it stays gone.
		now, err := s.lookup(blocks[i].key)
		if err != nil || now.pack != e.at.pack || now.off != e.at.off {
			continue
		}
		at.gen = now.gen
		batch.Put(e.key, at.encode())
	}
	return moved, s.writeIndex(batch, false)
}
