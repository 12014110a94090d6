package disk

import (
	"container/list"
	"errors"
	"io"
	"os"
	"sync"
)

// readers keeps a bounded number of packs open for reading.
type readers struct {
	packs *packs
	mu    sync.Mutex
	order *list.List // of *reader, the latest used first
	byID  map[uint32]*list.Element
}

type reader struct {
	id   uint32
	file File
}

const maxReaders = 32

func newReaders(ps *packs) *readers {
	return &readers{packs: ps, order: list.New(), byID: make(map[uint32]*list.Element)}
}

func (r *readers) get(id uint32) (File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.byID[id]; ok {
		r.order.MoveToFront(e)
		return e.Value.(*reader).file, nil
	}
	f, err := r.packs.fsys.Open(r.packs.path(id))
	if err != nil {
		return nil, err
	}
	r.byID[id] = r.order.PushFront(&reader{id, f})
	if r.order.Len() > maxReaders {
		r.evict(r.order.Back())
	}
	return f, nil
}

func (r *readers) evict(e *list.Element) {
	rd := r.order.Remove(e).(*reader)
	delete(r.byID, rd.id)
	_ = rd.file.Close() // a read in progress ends first: that is how os.File works
}

func (r *readers) drop(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.byID[id]; ok {
		r.evict(e)
	}
}

func (r *readers) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.order.Len() > 0 {
		r.evict(r.order.Back())
	}
}

// readAt fills b. A file that was evicted between get and ReadAt is opened again.
func (r *readers) readAt(id uint32, b []byte, off int64) error {
	for {
		f, err := r.get(id)
		if err != nil {
			return err
		}
		_, err = f.ReadAt(b, off)
		switch {
		case errors.Is(err, os.ErrClosed):
			continue
		case errors.Is(err, io.EOF):
			return errShort
		}
		return err
	}
}
