package component_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// repository is the content of all nodes of a test, in memory. of gives a node its own view, with its own pins.
type repository struct {
	mu      sync.Mutex
	content map[string][]byte
	pins    map[pinned]bool
	fail    error           // of the next Get
	hold    chan struct{}   // where set, every Get waits until it is closed
	from    []string        // whom the last Get named
	disk    *diskRepository // for what Put gets, where set
	gets    int
	instead func(cid string) []byte // what Get gives in place of content; nil, or it gives nil: the content
	grants  map[pinned]granted      // set: who may have what is what the pins say, as in anonymous mode
}

// granted is a pin's persona and readers.
type granted struct {
	persona string
	readers []string
}

type pinned struct {
	peer string
	app.Pinned
}

func newRepository() *repository {
	return &repository{content: make(map[string][]byte), pins: make(map[pinned]bool)}
}

func (r *repository) of(peer string) app.Repository { return &nodeRepository{r, peer} }

// nodeRepository is the repository as one node has it.
type nodeRepository struct {
	*repository
	peer string
}

func (r *nodeRepository) PutSmall(_ context.Context, persona string, data []byte, pin app.Pin) (string, error) {
	cid := app.SmallCID(sha256.Sum256(data))
	r.mu.Lock()
	r.content[cid] = data
	r.mu.Unlock()
	r.pin(r.peer, app.Pinned{CID: cid, Owner: pin.Owner})
	r.grant(persona, cid, pin)
	return cid, nil
}

func (r *nodeRepository) grant(persona, cid string, pin app.Pin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.grants != nil {
		r.grants[pinned{r.peer, app.Pinned{CID: cid, Owner: pin.Owner}}] = granted{persona, pin.Readers}
	}
}

// mayHave tells whether this node has the content, or one of those that are named gives it.
func (r *nodeRepository) mayHave(cid string, from []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, g := range r.grants {
		if p.CID == cid && (p.peer == r.peer || slices.Contains(from, p.peer) && slices.Contains(g.readers, r.peer)) {
			return true
		}
	}
	return r.grants == nil
}

func (r *nodeRepository) Get(ctx context.Context, persona, cid string, from []string, maxSize int64) (io.ReadCloser, error) {
	if !r.mayHave(cid, from) {
		return nil, fault.Unavailable("CONTENT_UNREACHABLE", "nobody who is named gives it")
	}
	return r.repository.Get(ctx, persona, cid, from, maxSize)
}

func (r *nodeRepository) Put(_ context.Context, persona string, src io.Reader, pin app.Pin) (string, error) {
	if r.disk != nil {
		return r.disk.put(src)
	}
	b, err := io.ReadAll(src)
	if err != nil {
		return "", err
	}
	return r.PutSmall(context.Background(), persona, b, pin)
}

func (r *repository) Get(ctx context.Context, _, cid string, from []string, maxSize int64) (io.ReadCloser, error) {
	r.mu.Lock()
	hold := r.hold
	r.from = from
	r.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if r.disk != nil {
		return r.disk.get(cid)
	}
	if r.instead != nil {
		if b := r.instead(cid); b != nil {
			return io.NopCloser(&slowReader{b: b}), nil
		}
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

func (r *nodeRepository) Renew(_ context.Context, persona, cid string, pin app.Pin) error {
	r.mu.Lock()
	_, ok := r.content[cid]
	r.mu.Unlock()
	if !ok && r.disk == nil {
		return app.ErrNotFound
	}
	r.pin(r.peer, app.Pinned{CID: cid, Owner: pin.Owner})
	r.grant(persona, cid, pin)
	return nil
}

func (r *nodeRepository) Unpin(_ context.Context, pins ...app.Pinned) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range pins {
		delete(r.pins, pinned{r.peer, p})
		delete(r.grants, pinned{r.peer, p})
	}
	return nil
}

func (r *nodeRepository) Pinned(_ context.Context, kind string, most int) ([]app.Pinned, error) {
	out := r.ofKind(r.peer, kind)
	return out[:min(len(out), most)], nil
}

// ofKind lists a node's pins whose owners begin like that.
func (r *repository) ofKind(peer, kind string) (out []app.Pinned) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pins {
		if p.peer == peer && strings.HasPrefix(p.Owner, kind) {
			out = append(out, p.Pinned)
		}
	}
	return out
}

func (r *repository) pin(peer string, p app.Pinned) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pins[pinned{peer, p}] = true
}

// pinned is how many pins there are.
func (r *repository) pinned() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pins)
}

// has tells whether a node has a pin.
func (r *repository) has(peer string, p app.Pinned) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pins[pinned{peer, p}]
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

// pinnedFor counts all nodes' pins of one kind: task, replica, payload.
func (r *repository) pinnedFor(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for p := range r.pins {
		if strings.HasPrefix(p.Owner, kind+":") {
			n++
		}
	}
	return n
}
