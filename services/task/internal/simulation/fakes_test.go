package simulation_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// cipher hides nothing and keeps the rest of the contract: what was encrypted to one key opens with no other, and what was changed or cut
// off does not open at all. Real encryption would be most of the time of a seed.
type cipher struct{}

var errOpen = errors.New("it does not open with this key")

const lockSize, sumSize = 16, sha256.Size

func lockOf(key string) []byte {
	h := sha256.Sum256([]byte(key))
	return h[:lockSize]
}

type sealing struct {
	dst io.Writer
	sum interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func seal(dst io.Writer, key string) (io.WriteCloser, error) {
	_, err := dst.Write(lockOf(key))
	return &sealing{dst, sha256.New()}, err
}

func (s *sealing) Write(b []byte) (int, error) {
	_, _ = s.sum.Write(b)
	return s.dst.Write(b)
}

func (s *sealing) Close() error {
	_, err := s.dst.Write(s.sum.Sum(nil))
	return err
}

func open(ciphertext []byte, key string) ([]byte, error) {
	if len(ciphertext) < lockSize+sumSize || !bytes.Equal(ciphertext[:lockSize], lockOf(key)) {
		return nil, errOpen
	}
	plain, sum := ciphertext[lockSize:len(ciphertext)-sumSize], ciphertext[len(ciphertext)-sumSize:]
	if got := sha256.Sum256(plain); !bytes.Equal(got[:], sum) {
		return nil, errOpen
	}
	return plain, nil
}

func openAll(src io.Reader, key string) (io.Reader, error) {
	b, err := io.ReadAll(src)
	if err != nil {
		return nil, err
	}
	plain, err := open(b, key)
	return bytes.NewReader(plain), err
}

func random() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	return b
}

func (cipher) EncryptPayload(dst io.Writer) (io.WriteCloser, []byte, error) {
	key := random()
	w, err := seal(dst, string(key))
	return w, key, err
}

func (cipher) DecryptPayload(key []byte, src io.Reader) (io.Reader, error) {
	return openAll(src, string(key))
}
func (cipher) OpenPayload(key, ciphertext []byte) ([]byte, error) {
	return open(ciphertext, string(key))
}

func (cipher) SealKey(key []byte, sealingKey, _ string) ([]byte, app.Seal, error) {
	var b bytes.Buffer
	w, _ := seal(&b, sealingKey) // a buffer takes everything
	_, _ = w.Write(key)
	_ = w.Close()
	return b.Bytes(), whole{}, nil
}

// whole is a seal that names nothing.
type whole struct{}

func (whole) Heard()     {}
func (whole) Lost() bool { return false }

func (cipher) EncryptResult(recipient string, key []byte, dst io.Writer) (io.WriteCloser, error) {
	return seal(dst, recipient+string(key))
}

// sealingKey is a provider's.
type sealingKey string

func (k sealingKey) Recipient() string                     { return string(k) }
func (k sealingKey) Whole(sealed []byte) ([]byte, error)   { return sealed, nil }
func (k sealingKey) OpenKey(sealed []byte) ([]byte, error) { return open(sealed, string(k)) }

// taskKeys makes task keys, taskKey is one.
type (
	taskKeys struct{}
	taskKey  string
)

func (taskKeys) Take() (app.TaskKey, error)               { return taskKey(hex.EncodeToString(random())), nil }
func (taskKeys) Shared() app.TaskKey                      { panic("of anonymous mode") }
func (taskKeys) Parse(secret string) (app.TaskKey, error) { return taskKey(secret), nil }

func (k taskKey) Recipient() string                        { return "for" + string(k) }
func (k taskKey) ResultKey() []byte                        { return nil }
func (k taskKey) Secret() string                           { return string(k) }
func (k taskKey) Decrypt(src io.Reader) (io.Reader, error) { return openAll(src, k.Recipient()) }
func (k taskKey) Open(ciphertext []byte) ([]byte, error)   { return open(ciphertext, k.Recipient()) }

// signatures are an author's name: nobody lies here.
type signatures struct{}

func sign(ev *domain.Event, peer string) { ev.Author, ev.Signature = peer, []byte("by "+peer) }

func (signatures) Verify(ev *domain.Event) bool { return string(ev.Signature) == "by "+ev.Author }

// disk is the folders of one node: they outlive its processes.
type disk struct {
	mu      sync.Mutex
	results map[string][]byte
	logs    map[string]int64 // how long each is, by its name
	parts   map[string][]byte
}

func newDisk() *disk {
	return &disk{results: make(map[string][]byte), logs: make(map[string]int64), parts: make(map[string][]byte)}
}

// results is the folder as one process has it.
type results struct {
	*disk
	l *life
}

type resultFile struct {
	bytes.Buffer
	r  results
	id string
}

func (r results) Create(id string) (consumer.ResultFile, error) {
	return &resultFile{r: r, id: id}, nil
}

func (f *resultFile) Keep() error {
	if f.r.l.gone() {
		return errCrash
	}
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.r.disk.results[f.id] = f.Bytes()
	return nil
}

func (f *resultFile) Drop() {}

func (r results) Open(id string) (io.ReaderAt, io.Closer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.disk.results[id]
	if !ok {
		return nil, nil, app.ErrNotFound
	}
	return bytes.NewReader(b), io.NopCloser(nil), nil
}

func (r results) Remove(id string) {
	if !r.l.gone() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.disk.results, id)
	}
}

func (r results) Sweep() {}

// logs is the folder as one process has it.
type logs struct {
	*disk
	l *life
}

func (g logs) Append(name string, offset int64, data []byte) error {
	if g.l.gone() {
		return errCrash
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.disk.logs[name] = max(g.disk.logs[name], offset+int64(len(data)))
	return nil
}

func (g logs) Read(_ string, offset int64, _ []byte) (int, int64, error) { return 0, offset, nil }

func (g logs) Remove(id string) {
	if g.l.gone() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for name := range g.disk.logs {
		if strings.HasPrefix(name, id) {
			delete(g.disk.logs, name)
		}
	}
}

// none is the uploads and the job inputs of a consumer that gets none.
type none struct{}

func (none) Find(string) (app.Part, error)        { return app.Part{}, app.ErrNotFound }
func (none) Own(string, string) (app.Part, error) { return app.Part{}, app.ErrNotFound }
func (none) Path(string, domain.Hash) string      { return "" }
func (none) Remove(string)                        {}
func (none) Sweep(func(string) bool)              {}

// parts is a provider's folder of shared parts; users are those of this process.
type parts struct {
	*disk
	l     *life
	users int
}

type partFile struct {
	bytes.Buffer
	p *parts
}

func (p *parts) Find(name string, _ domain.Part) (string, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.disk.parts[name]; !ok {
		return "", nil, app.ErrNotFound
	}
	p.users++
	return name, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.users--
	}, nil
}

func (p *parts) Create() (provider.PartFile, error) { return &partFile{p: p}, nil }

func (f *partFile) Keep(name string, _ domain.Part) (string, func(), error) {
	if f.p.l.gone() {
		return "", nil, errCrash
	}
	f.p.mu.Lock()
	f.p.disk.parts[name] = f.Bytes()
	f.p.mu.Unlock()
	return f.p.Find(name, domain.Part{})
}

func (f *partFile) Drop() {}

// read gives a part's bytes, wherever they are.
func (p *parts) read(part app.Part) ([]byte, error) {
	if part.Path == "" {
		return part.Inline, nil
	}
	p.mu.Lock()
	b, ok := p.disk.parts[part.Path]
	p.mu.Unlock()
	if ok {
		return b, nil
	}
	return os.ReadFile(part.Path)
}

// workspace gives real directories, and counts those that were not removed.
type workspace struct {
	dir  string
	mu   sync.Mutex
	open int
}

func (w *workspace) Make() (string, func(), error) {
	dir, err := os.MkdirTemp(w.dir, "run-*")
	if err != nil {
		return "", nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
	var once sync.Once
	return dir, func() {
		once.Do(func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.open--
			_ = os.RemoveAll(filepath.Clean(dir))
		})
	}, nil
}

// sum is a puzzle's work that costs nothing.
func sum(text []byte, nonce domain.Nonce, found [16]byte) uint64 {
	h := sha256.Sum256(append(append(bytes.Clone(text), nonce[:]...), found[:]...))
	return binary.BigEndian.Uint64(h[:])
}
