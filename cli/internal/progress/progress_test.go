package progress

import (
	"bytes"
	"strings"
	"sync"
	"testing"
)

// syncBuffer can be read while it is written, and tells when it holds a text.
type syncBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	cond *sync.Cond
}

func newBuffer() *syncBuffer {
	s := &syncBuffer{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.cond.Broadcast()
	return s.b.Write(p)
}

func (s *syncBuffer) waitFor(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !strings.Contains(s.b.String(), text) {
		s.cond.Wait()
	}
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestLineShowsWhatIsWaitedForAndGoesAway(t *testing.T) {
	w := newBuffer()
	l := Start(w, true, 0)
	l.Set("waiting in the queue")
	w.waitFor("waiting in the queue")
	l.Set("running")
	w.waitFor("running")
	l.Bytes("sending app.wasm", 1<<20, 4<<20)
	w.waitFor("sending app.wasm")
	w.waitFor("4.0 MiB")
	l.Stop()
	l.Stop()
	rest := w.String()
	if i := strings.LastIndexByte(rest, '\r'); i < 0 || strings.TrimSpace(strings.NewReplacer("\x1b[K", "", "\x1b[2K", "").Replace(rest[i:])) != "" {
		t.Errorf("the line is still there: it ends in %q", rest[max(0, len(rest)-60):])
	}
}

func TestLineThatIsOffWritesNothing(t *testing.T) {
	w := newBuffer()
	l := Start(w, false, 0)
	l.Set("x")
	l.Bytes("x", 1, 2)
	l.Stop()
	if w.String() != "" {
		t.Errorf("wrote %q", w.String())
	}
}
