package component_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// repository is an app.Repository in memory, shared by all nodes of a test.
type repository struct {
	mu      sync.Mutex
	content map[string][]byte
	pins    map[string]string
	fail    error           // of the next Get
	disk    *diskRepository // for what Put gets, where set
	gets    int
}

var _ app.Repository = (*repository)(nil)

func newRepository() *repository {
	return &repository{content: make(map[string][]byte), pins: make(map[string]string)}
}

func (r *repository) PutSmall(_ context.Context, data []byte, pin app.Pin) (string, error) {
	cid := app.SmallCID(sha256.Sum256(data))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.content[cid], r.pins[cid] = data, pin.Owner
	return cid, nil
}

func (r *repository) Put(_ context.Context, _ string, src io.Reader, pin app.Pin) (string, error) {
	if r.disk != nil {
		return r.disk.put(src)
	}
	b, err := io.ReadAll(src)
	if err != nil {
		return "", err
	}
	return r.PutSmall(context.Background(), b, pin)
}

func (r *repository) Get(_ context.Context, _, cid string, _ []string, maxSize int64) (io.ReadCloser, error) {
	if r.disk != nil {
		return r.disk.get(cid)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail; err != nil {
		r.fail = nil
		return nil, err
	}
	r.gets++
	b, ok := r.content[cid]
	if !ok || int64(len(b)) > maxSize {
		return nil, fault.NotFound("CONTENT_NOT_FOUND", "no such content")
	}
	return io.NopCloser(&slowReader{b: b}), nil
}

func (r *repository) Renew(_ context.Context, _, cid string, pin app.Pin) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.content[cid]; !ok && r.disk == nil {
		return app.ErrNotFound
	}
	r.pins[cid] = pin.Owner
	return nil
}

func (r *repository) Unpin(_ context.Context, pins ...app.Pinned) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range pins {
		if r.pins[p.CID] == p.Owner {
			delete(r.pins, p.CID)
		}
	}
	return nil
}

func (r *repository) pinned() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pins)
}

// slowReader gives odd pieces.
type slowReader struct{ b []byte }

func (s *slowReader) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b[:min(len(s.b), 50_000)])
	s.b = s.b[n:]
	return n, nil
}

// diskRepository keeps content out of this process's memory, and calls look in the middle of putting and getting it.
type diskRepository struct {
	dir   string
	every int
	look  func()
}

func newDiskRepository(t testing.TB, every int, look func()) *diskRepository {
	return &diskRepository{t.TempDir(), every, look}
}

func (d *diskRepository) put(src io.Reader) (string, error) {
	cid := "b" + app.NewID()
	f, err := os.Create(filepath.Join(d.dir, cid))
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, &looking{ReadCloser: io.NopCloser(src), of: d})
	return cid, errors.Join(err, f.Close())
}

func (d *diskRepository) get(cid string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(d.dir, cid))
	if err != nil {
		return nil, err
	}
	return &looking{ReadCloser: f, of: d}, nil
}

// looking is content on its way.
type looking struct {
	io.ReadCloser
	of *diskRepository
	n  int
}

func (l *looking) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.n/l.of.every != (l.n+n)/l.of.every {
		l.of.look()
	}
	l.n += n
	return n, err
}
