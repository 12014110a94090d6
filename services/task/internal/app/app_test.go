package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func TestAlarmsRingInOrderAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAlarms()
		ctx, cancel := context.WithCancel(context.Background())
		begin := time.Now()
		var mu sync.Mutex
		var rung []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = a.Run(ctx, 1, func(key string) {
				mu.Lock()
				defer mu.Unlock()
				rung = append(rung, fmt.Sprint(key, "@", time.Since(begin)))
			})
		}()
		for key, d := range map[string]time.Duration{"late": 3 * time.Hour, "soon": time.Second, "never": time.Minute, "moved": time.Second} {
			a.Set(key, begin.Add(d))
		}
		a.Set("never", time.Time{})
		a.Set("moved", begin.Add(2*time.Second))
		<-time.After(4 * time.Hour) // virtual
		synctest.Wait()
		cancel()
		<-done
		if want := "[soon@1s moved@2s late@3h0m0s]"; fmt.Sprint(rung) != want || a.Len() != 0 {
			t.Fatalf("rung %v, want %s; %d are left", rung, want, a.Len())
		}
	})
}

func TestOutboxIDsGrow(t *testing.T) {
	o := NewOutboxIDs()
	last := o.Next()
	for range 10_000 {
		id := o.Next()
		if id <= last || id >= 1<<63 {
			t.Fatalf("%d after %d", id, last)
		}
		last = id
	}
	ahead := last + 1<<40 // a store whose clock was ahead
	o.Above(ahead)
	if id := o.Next(); id <= ahead {
		t.Fatalf("%d after %d", id, ahead)
	}
}

func TestWorkIsBoundedAndNotRepeated(t *testing.T) {
	gate, begun := make(chan struct{}), make(chan string, 16)
	w := NewWork(2, func(key string) { begun <- key; <-gate })
	for _, k := range []string{"a", "b", "c", "c", "c"} {
		w.Add(k)
	}
	<-begun
	<-begun
	select {
	case k := <-begun:
		t.Fatalf("%s is a third at once", k)
	default:
	}
	close(gate)
	<-begun
	w.Stop()
	if len(begun) != 0 {
		t.Fatal("c was done twice")
	}
	w.Add("d")
	if len(begun) != 0 {
		t.Fatal("work after Stop")
	}
}

func TestHeaderLengthCostsNoMemory(t *testing.T) {
	for _, b := range []string{"", "\x00\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x05abc"} {
		if _, err := ReadHeader(strings.NewReader(b), 10); err == nil {
			t.Errorf("%q is a header", b)
		}
	}
	var out bytes.Buffer
	if err := WriteHeader(&out, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	if h, err := ReadHeader(&out, 10); err != nil || string(h) != "abc" {
		t.Fatalf("%q, %v", h, err)
	}
}

func TestCopyPartKnowsWhoseFaultItIs(t *testing.T) {
	p := domain.Part{Name: "x", Size: 3, SHA256: sha256.Sum256([]byte("abc"))}
	if err := CopyPart(io.Discard, strings.NewReader("abc"), p); err != nil {
		t.Fatal(err)
	}
	for want, src := range map[error]string{ErrCutOff: "ab", ErrWrongHash: "abd"} {
		if err := CopyPart(io.Discard, strings.NewReader(src), p); !errors.Is(err, want) || !BadData(err) {
			t.Errorf("%q: %v", src, err)
		}
	}
	full := errors.New("disk full")
	if err := CopyPart(fails{full}, strings.NewReader("abc"), p); !errors.Is(err, full) || BadData(err) {
		t.Errorf("a full disk: %v", err)
	}
	if AtEnd(strings.NewReader(""), 0) != nil || !errors.Is(AtEnd(strings.NewReader("x"), 0), ErrTooLong) {
		t.Error("the end")
	}
}

type fails struct{ err error }

func (f fails) Write([]byte) (int, error) { return 0, f.err }
