package onion

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire notes what is written at once.
type wire struct {
	net.Conn
	mu     sync.Mutex
	wrote  []int
	broken error
	closed bool
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return 0, w.broken
	}
	w.wrote = append(w.wrote, len(b))
	return len(b), nil
}

func (w *wire) Read(b []byte) (int, error) { return len(b), nil }

func (w *wire) SetWriteDeadline(time.Time) error { return nil }

func (w *wire) Close() error {
	w.closed = true
	return nil
}

func TestSmallWritesGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		c := newCorked(w)
		say := func(sizes ...int) {
			t.Helper()
			for _, n := range sizes {
				if got, err := c.Write(make([]byte, n)); got != n || err != nil {
					t.Fatalf("%d of %d bytes, %v", got, n, err)
				}
			}
		}
		want := func(what string, sizes ...int) {
			t.Helper()
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if !slices.Equal(w.wrote, sizes) {
				t.Errorf("%s: writes of %v bytes, want %v", what, w.wrote, sizes)
			}
			w.wrote = nil
		}
		say(10, 500, 3)
		want("before the time")
		pause(corkDelay)
		want("small ones", 513)
		say(corkSize)
		want("a large one", corkSize)
		say(100, corkSize)
		want("a large one after a small one", 100+corkSize)
		pause(2 * corkDelay)
		want("nothing is left")
		say(headerSize, headerSize)
		pause(holdDelay / 2)
		want("headers wait")
		say(100)
		pause(corkDelay)
		want("for something to go with", 2*headerSize+100)
		say(100, headerSize)
		pause(corkDelay)
		want("and go with what waits", 100+headerSize)
		say(headerSize)
		pause(holdDelay)
		want("or by themselves", headerSize)
		if n, err := c.Read(make([]byte, muchRead)); n != muchRead || err != nil {
			t.Fatal(n, err)
		}
		say(headerSize)
		pause(corkDelay)
		want("who reads much says so", headerSize)
		say(7)
		if err := c.Close(); err != nil || !w.closed {
			t.Errorf("closed: %t, %v", w.closed, err)
		}
		want("what was kept at the end", 7)
		if _, err := c.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestAFailureIsToldByTheNextWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{broken: errors.New("broken")}
		c := newCorked(w)
		if _, err := c.Write([]byte("kept")); err != nil {
			t.Error(err)
		}
		pause(corkDelay)
		synctest.Wait()
		if _, err := c.Write([]byte("more")); !errors.Is(err, w.broken) {
			t.Errorf("got %v", err)
		}
	})
}

// pause lets virtual time pass.
func pause(d time.Duration) { <-time.After(d) }
