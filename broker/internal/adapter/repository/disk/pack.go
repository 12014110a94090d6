package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// pack is one append-only file. Only who took it from packs.take appends to it; anybody reads and syncs.
type pack struct {
	id   uint32
	path string
	file File
	end  atomic.Int64
	// pending counts appends that the index does not know of yet; guarded by packs.mu.
	pending int

	nudged int64 // end when writing back was last started
	syncMu sync.Mutex
	synced int64 // guarded by syncMu
}

// sync returns when everything that was appended before is on disk. Callers that come together share one sync.
func (p *pack) sync() error {
	want := p.end.Load()
	p.syncMu.Lock()
	defer p.syncMu.Unlock()
	if p.synced >= want {
		return nil
	}
	upTo := p.end.Load()
	if err := p.file.Datasync(); err != nil {
		return err
	}
	p.synced = upTo
	return nil
}

// packs are the pack files of one directory.
type packs struct {
	dir  string
	fsys FS
	max  int64

	mu       sync.Mutex
	sizes    map[uint32]int64 // sealed packs
	idle     []*pack          // open for appending, nobody does
	open     map[uint32]*pack // idle ones, those in use, and those sealed but not synced yet
	next     uint32
	newFiles bool // the directory itself is to be synced
	slots    chan struct{}
	readers  *readers
}

const (
	maxAppenders = 8
	packSuffix   = ".pack"
)

func openPacks(dir string, fsys FS, limit int64) (*packs, error) {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	ps := &packs{dir: dir, fsys: fsys, max: limit, sizes: make(map[uint32]int64), open: make(map[uint32]*pack), next: 1,
		slots: make(chan struct{}, maxAppenders)}
	ps.readers = newReaders(ps)
	last := uint32(0)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), packSuffix)
		id, err := strconv.ParseUint(name, 16, 32)
		if !ok || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		ps.sizes[uint32(id)] = info.Size()
		last = max(last, uint32(id))
		if err := ps.syncFile(uint32(id)); err != nil {
			return nil, err
		}
	}
	ps.next = last + 1
	// The last one goes on being filled: a node that restarts daily would otherwise have a pack a day.
	if size := ps.sizes[last]; last > 0 && size < limit/2 {
		f, err := fsys.OpenAppend(ps.path(last))
		if err != nil {
			return nil, err
		}
		p := &pack{id: last, path: ps.path(last), file: f, nudged: size, synced: 0}
		p.end.Store(size)
		ps.idle, ps.open[last] = append(ps.idle, p), p
		delete(ps.sizes, last)
	}
	return ps, nil
}

// syncFile makes durable what a process that was killed had only written: blocks that are there are not written again, so a durable
// change may rest on them.
func (ps *packs) syncFile(id uint32) error {
	f, err := ps.fsys.OpenAppend(ps.path(id))
	if err != nil {
		return err
	}
	err = f.Datasync()
	return errors.Join(err, f.Close())
}

func (ps *packs) path(id uint32) string {
	return filepath.Join(ps.dir, fmt.Sprintf("%08x%s", id, packSuffix))
}

// take gives the caller a pack to append to, alone, until give. Until settle it is not taken for a sealed one.
func (ps *packs) take() (*pack, error) {
	ps.slots <- struct{}{}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if n := len(ps.idle); n > 0 {
		p := ps.idle[n-1]
		ps.idle = ps.idle[:n-1]
		p.pending++
		return p, nil
	}
	id := ps.next
	f, err := ps.fsys.Create(ps.path(id))
	if err != nil {
		<-ps.slots
		return nil, err
	}
	ps.next++
	ps.newFiles = true
	p := &pack{id: id, path: ps.path(id), file: f, pending: 1}
	ps.open[id] = p
	return p, nil
}

func (ps *packs) give(p *pack) {
	ps.mu.Lock()
	if p.end.Load() >= ps.max {
		ps.sizes[p.id] = p.end.Load() // sealed; it stays open until it has been synced
	} else {
		ps.idle = append(ps.idle, p)
	}
	ps.mu.Unlock()
	<-ps.slots
}

// settle says that the index knows what was appended, or never will.
func (ps *packs) settle(p *pack) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.pending--
}

// append writes the blocks and returns their places. After an error the pack is as it was.
func (ps *packs) append(p *pack, blocks []namedBlock) ([]place, error) {
	start := p.end.Load()
	at, places := start, make([]place, 0, len(blocks))
	scratch := buffers.Get().(*[]byte)
	defer buffers.Put(scratch)
	buf := (*scratch)[:0]
	defer func() {
		if cap(buf) <= 2*flushAt {
			*scratch = buf
		}
	}()
	write := func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		n, err := p.file.WriteAt(b, at)
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		at += int64(n)
		return err
	}
	for _, b := range blocks {
		if need := len(buf) + headerSize + len(b.key) + min(len(b.data), smallData); need > cap(buf) {
			buf = append(make([]byte, 0, max(need, min(2*cap(buf), 2*flushAt), 4<<10)), buf...)
		}
		buf = appendHeader(buf, b.key, len(b.data))
		places = append(places, place{pack: p.id, off: uint32(at + int64(len(buf))), size: uint32(len(b.data))})
		if len(b.data) <= smallData {
			buf = append(buf, b.data...)
			if len(buf) < flushAt {
				continue
			}
		}
		err := write(buf)
		if buf = buf[:0]; err == nil && len(b.data) > smallData {
			err = write(b.data)
		}
		if err != nil {
			_ = p.file.Truncate(start) // space may be what is lacking
			return nil, fmt.Errorf("write %s: %w", p.path, err)
		}
	}
	if err := write(buf); err != nil {
		_ = p.file.Truncate(start)
		return nil, fmt.Errorf("write %s: %w", p.path, err)
	}
	p.end.Store(at)
	if at-p.nudged >= nudgeEvery {
		p.file.StartWriteback(p.nudged, at-p.nudged)
		p.nudged = at
	}
	return places, nil
}

type namedBlock struct {
	key  string
	data []byte
}

// sync makes durable what was appended to any pack before.
func (ps *packs) sync() error {
	ps.mu.Lock()
	dirty := make([]*pack, 0, len(ps.open))
	for _, p := range ps.open {
		dirty = append(dirty, p)
	}
	newFiles := ps.newFiles
	ps.newFiles = false
	ps.mu.Unlock()
	for _, p := range dirty {
		if err := p.sync(); err != nil {
			if errors.Is(err, fs.ErrClosed) && !ps.isOpen(p) {
				continue // a collection has removed it: nothing in it lives
			}
			return fmt.Errorf("sync %s: %w", p.path, err)
		}
		ps.closeSealed(p)
	}
	if newFiles {
		if err := ps.fsys.SyncDir(ps.dir); err != nil {
			ps.mu.Lock()
			ps.newFiles = true
			ps.mu.Unlock()
			return fmt.Errorf("sync %s: %w", ps.dir, err)
		}
	}
	return nil
}

func (ps *packs) isOpen(p *pack) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.open[p.id] == p
}

func (ps *packs) closeSealed(p *pack) {
	ps.mu.Lock()
	_, sealed := ps.sizes[p.id]
	if _, open := ps.open[p.id]; !sealed || !open || p.pending > 0 {
		ps.mu.Unlock()
		return
	}
	delete(ps.open, p.id)
	ps.mu.Unlock()
	_ = p.file.Close() // synced: nothing can be lost
}

// sealed returns the packs that nothing is appended to any more, and their sizes.
func (ps *packs) sealed() map[uint32]int64 {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	all := make(map[uint32]int64, len(ps.sizes))
	for id, size := range ps.sizes {
		if p, ok := ps.open[id]; ok && p.pending > 0 {
			continue
		}
		all[id] = size
	}
	return all
}

// seal stops appending to idle packs that reached a size worth giving back.
func (ps *packs) seal(least int64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	rest := ps.idle[:0]
	for _, p := range ps.idle {
		if p.end.Load() >= least {
			ps.sizes[p.id] = p.end.Load()
			continue
		}
		rest = append(rest, p)
	}
	ps.idle = rest
}

func (ps *packs) remove(id uint32) error {
	ps.mu.Lock()
	delete(ps.sizes, id)
	p := ps.open[id]
	delete(ps.open, id)
	ps.mu.Unlock()
	if p != nil {
		_ = p.file.Close()
	}
	ps.readers.drop(id)
	return ps.fsys.Remove(ps.path(id))
}

// used is the bytes of all packs.
func (ps *packs) used() (n int64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, size := range ps.sizes {
		n += size
	}
	for id, p := range ps.open {
		if _, sealed := ps.sizes[id]; !sealed {
			n += p.end.Load()
		}
	}
	return n
}

func (ps *packs) close() error {
	err := ps.sync()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.open {
		err = errors.Join(err, p.file.Close())
	}
	ps.open, ps.idle = nil, nil
	ps.readers.close()
	return err
}

// read returns the data at the place, unchecked. content.ErrNotFound when the pack is gone.
func (ps *packs) read(at place, b []byte) error {
	err := ps.readers.readAt(at.pack, b, int64(at.off))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errShort) {
		return content.ErrNotFound
	}
	return err
}

// holds says whether the place is that of a record of this key: false when the bytes never reached the disk.
func (ps *packs) holds(key string, at place) bool {
	n := headerSize + len(key)
	if int(at.off) < n {
		return false
	}
	b := make([]byte, n)
	if err := ps.readers.readAt(at.pack, b, int64(at.off)-int64(n)); err != nil {
		return false
	}
	return string(b) == string(appendHeader(nil, key, int(at.size)))
}

var errShort = errors.New("the pack ends before the block")
