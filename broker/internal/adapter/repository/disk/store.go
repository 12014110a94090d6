package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/storage"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/logging"
)

// Config says where a store is; only Dir is required.
type Config struct {
	Dir      string
	Log      *slog.Logger
	PackSize int64  // bytes at which the next pack is begun; default 128 MiB
	Reserve  uint64 // bytes of the disk that are left free; default 32 MiB
	Quota    int64  // bytes that packs may take; 0 for no limit
	FS       FS     // default: the operating system's

	wrapIndex func(storage.Storage) storage.Storage // the index's file system, for tests
}

// Store implements app.Store.
type Store struct {
	cfg   Config
	index string
	packs *packs
	room  room

	// ops is held for reading by whatever must end before Close.
	ops sync.RWMutex
	// mu is held for reading between looking at the index and writing what follows from it, and for writing where a collection removes.
	// Nobody holds it during a sync: whoever waits to write would make everybody wait for the disk.
	mu     sync.RWMutex
	db     *leveldb.DB
	st     storage.Storage
	broken error // the index refused a write; it is opened again when there is space
	closed bool

	genMu sync.Mutex
	gen   uint64
	holds map[*hold]struct{}
}

type hold struct{ gen uint64 }

var _ app.Store = (*Store)(nil)

// Open opens or makes the store. *content.TornError names what cannot be read; a store that another process has open is no
// torn one.
func Open(cfg Config) (*Store, error) {
	if cfg.PackSize <= 0 {
		cfg.PackSize = 128 << 20
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = 32 << 20
	}
	if cfg.FS == nil {
		cfg.FS = osFS{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, index: filepath.Join(cfg.Dir, "index"), holds: make(map[*hold]struct{})}
	packDir := filepath.Join(cfg.Dir, "packs")
	if err := os.MkdirAll(packDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the content store %s: %w", cfg.Dir, err)
	}
	// Packs without an index are a store whose index was lost: making an empty one would hide that.
	entries, err := cfg.FS.ReadDir(packDir)
	if err != nil {
		return nil, fmt.Errorf("open the content store %s: %w", cfg.Dir, err)
	}
	if err := s.openDB(len(entries) == 0); err != nil {
		return nil, err
	}
	if s.packs, err = openPacks(packDir, cfg.FS, cfg.PackSize); err != nil {
		_ = s.closeDB()
		return nil, fmt.Errorf("open the content store %s: %w", cfg.Dir, err)
	}
	s.room = room{fsys: cfg.FS, dir: cfg.Dir, reserve: cfg.Reserve}
	return s, nil
}

func (s *Store) openDB(create bool) error {
	db, st, err := openIndex(s.index, create, s.cfg.wrapIndex)
	switch {
	case err == nil:
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, storage.ErrLocked):
		return fmt.Errorf("the content store %s is in use by another process: stop it, or use another home: %w", s.cfg.Dir, err)
	case isTorn(err):
		return &content.TornError{Path: s.index, Err: err}
	default:
		return s.writeFailed(fmt.Errorf("open the content index %s: %w", s.index, err)) // it writes when it opens
	}
	s.db, s.st = db, st
	gen, err := readGeneration(db)
	if err != nil {
		_ = s.closeDB()
		return &content.TornError{Path: s.index, Err: err}
	}
	s.genMu.Lock()
	s.gen = max(gen, s.gen) + 1
	gen = s.gen
	s.genMu.Unlock()
	if err := db.Put([]byte(keyGeneration), generationValue(gen), nil); err != nil {
		_ = s.closeDB()
		return s.writeFailed(fmt.Errorf("write the content index %s: %w", s.index, err))
	}
	return nil
}

func (s *Store) closeDB() error { return errors.Join(s.db.Close(), s.st.Close()) }

// Close makes everything durable and ends. Calls that come later fail with content.ErrClosed.
func (s *Store) Close() error {
	s.ops.Lock()
	defer s.ops.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.packs.close(), s.closeDB())
}

// Used is the bytes that packs take.
func (s *Store) Used() int64 { return s.packs.used() }

// Tight says that little may be written before a write is refused.
func (s *Store) Tight() bool {
	if s.cfg.Quota > 0 && s.Used() > s.cfg.Quota-s.cfg.Quota/10 {
		return true
	}
	free, err := s.cfg.FS.Free(s.cfg.Dir)
	return err == nil && free < s.cfg.Reserve+tightFree
}

const tightFree = 512 << 20

func (s *Store) generation() uint64 {
	s.genMu.Lock()
	defer s.genMu.Unlock()
	return s.gen
}

// Hold implements app.Store.
func (s *Store) Hold() func() {
	s.genMu.Lock()
	defer s.genMu.Unlock()
	h := &hold{s.gen}
	s.holds[h] = struct{}{}
	return func() {
		s.genMu.Lock()
		defer s.genMu.Unlock()
		delete(s.holds, h)
	}
}

// lookup finds a block's place; the caller holds mu.
func (s *Store) lookup(key string) (place, error) {
	if s.closed {
		return place{}, content.ErrClosed
	}
	v, err := s.db.Get([]byte(prefixBlock+key), nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return place{}, content.ErrNotFound
	}
	if err != nil {
		return place{}, s.readFailed(err)
	}
	at, err := decodePlace(v)
	if err != nil {
		return place{}, &content.TornError{Path: s.index, Err: err}
	}
	return at, nil
}

func (s *Store) readFailed(err error) error {
	if isTorn(err) {
		return &content.TornError{Path: s.index, Err: err}
	}
	return fmt.Errorf("read the content index %s: %w", s.index, err)
}

// Get implements app.Store.
func (s *Store) Get(key string) ([]byte, error) {
	var last place
	for {
		s.mu.RLock()
		at, err := s.lookup(key)
		s.mu.RUnlock()
		if err != nil {
			return nil, err
		}
		b, err := s.readChecked(key, at)
		// A collection may have moved the block since: then its place is another one now.
		if errors.Is(err, content.ErrNotFound) && at != last {
			last = at
			continue
		}
		return b, err
	}
}

func (s *Store) readChecked(key string, at place) ([]byte, error) {
	if at.size > content.MaxBlock {
		return nil, &content.CorruptError{Key: key, Path: s.packs.path(at.pack)}
	}
	b := make([]byte, at.size)
	if err := s.packs.read(at, b); err != nil {
		if errors.Is(err, content.ErrNotFound) {
			return nil, err
		}
		return nil, fmt.Errorf("read %s: %w", s.packs.path(at.pack), err)
	}
	if matches(key, b) {
		return b, nil
	}
	if !s.packs.holds(key, at) {
		return nil, content.ErrNotFound // it was never durable, and a power cut took it
	}
	return nil, &content.CorruptError{Key: key, Path: s.packs.path(at.pack)}
}

// Size implements app.Store.
func (s *Store) Size(key string) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, err := s.lookup(key)
	return int(at.size), err
}

// writeFailed says what a failed write means to the caller.
func (s *Store) writeFailed(err error) error {
	var full *content.FullError
	switch {
	case err == nil || errors.As(err, &full) || errors.Is(err, content.ErrClosed):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return &content.FullError{Path: s.cfg.Dir, Err: err}
	case isTorn(err):
		return &content.TornError{Path: s.index, Err: err}
	}
	return err
}

// heal opens the index again after it refused a write: LevelDB's journal takes nothing more after an error, though what it
// has can still be read. It is not tried before there is space.
func (s *Store) heal() error {
	s.genMu.Lock()
	broken := s.broken
	s.genMu.Unlock()
	if broken == nil {
		return nil
	}
	s.room.forget()
	if err := s.room.check(4 << 20); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil || s.closed {
		return nil
	}
	if err := s.closeDB(); err != nil {
		s.cfg.Log.Warn("closing the content index after a failed write", logging.Err(err))
	}
	if err := s.openDB(false); err != nil {
		return s.writeFailed(err)
	}
	s.genMu.Lock()
	s.broken = nil
	s.genMu.Unlock()
	s.cfg.Log.Info("the content index was opened again after a failed write")
	return nil
}
