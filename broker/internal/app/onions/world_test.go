package onions_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol"
	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol/torcontroltest"
	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
	"github.com/shallot-net/shallot/kit/fault"
)

// world is a keeper and its tor, in virtual time.
type world struct {
	t       *testing.T
	tor     *torcontroltest.Tor
	records *memory
	log     *syncBuffer
	most    int
	*onions.Keeper
	kill func()
}

func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, tor: torcontroltest.New(t), records: &memory{}, log: &syncBuffer{}}
		w.start()
		defer func() { w.kill() }()
		f(w)
	})
}

// start is a new process on what the former one has left.
func (w *world) start() {
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	k := onions.New(onions.Config{Tor: torcontrol.New(torcontrol.Config{Socket: "/run/tor/control", Dial: w.tor.Dial}), Records: w.records, Log: log, MaxServices: w.most})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	w.Keeper = k
	w.kill = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("it ended with %v", err)
		}
		w.kill = func() {}
	}
}

// request is of the n-th service.
func request(n int) onionsvc.Request {
	seed := bytes.Repeat([]byte{1}, 32)
	seed[0], seed[1] = byte(n), byte(n>>8)
	return onionsvc.Request{Seed: seed, Socket: "/run/shallot/a.sock", Port: 4001, MaxStreams: 64, Work: true}
}

func idOf(t *testing.T, r onionsvc.Request) string {
	t.Helper()
	s, err := onionsvc.New(r)
	if err != nil {
		t.Fatal(err)
	}
	return s.ID
}

// publish must succeed within some seconds of virtual time.
func (w *world) publish(r onionsvc.Request) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	id, err := w.Publish(ctx, r)
	if err != nil {
		w.t.Fatalf("publish: %v", err)
	}
	if id != idOf(w.t, r) {
		w.t.Fatalf("the service id is %s", id)
	}
	return id
}

// fails is a call that must fail with a reason.
func (w *world) fails(reason string, call func(ctx context.Context) error) error {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	err := call(ctx)
	if f := fault.From(err); f == nil || f.Reason != reason {
		w.t.Fatalf("got %v, want %s", err, reason)
	}
	return err
}

// until waits for a state, and returns how long that took.
func (w *world) until(what string, within time.Duration, ok func(onions.TorState, map[string]onions.ServiceState) bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	within = max(within, time.Millisecond) // in which no time passes that means anything, and all goroutines run
	for {
		tor, list, changed := w.State()
		services := map[string]onions.ServiceState{}
		for _, s := range list {
			services[s.ID] = s
		}
		if ok(tor, services) {
			return time.Since(start)
		}
		select {
		case <-changed:
		case <-time.After(within - time.Since(start)):
			w.t.Fatalf("not %s within %s: %+v %+v", what, within, tor, services)
		}
	}
}

func (w *world) untilTor(state string, within time.Duration) time.Duration {
	w.t.Helper()
	return w.until(state, within, func(t onions.TorState, _ map[string]onions.ServiceState) bool { return t.State == state })
}

func (w *world) untilService(id, state string, within time.Duration) time.Duration {
	w.t.Helper()
	return w.until(state, within, func(_ onions.TorState, s map[string]onions.ServiceState) bool { return s[id].State == state })
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// memory keeps records as a disk does: what it was given is copied.
type memory struct {
	mu    sync.Mutex
	saved map[string]onions.Record
	torn  bool
	full  bool
}

func (m *memory) Load() (map[string]onions.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.torn {
		return nil, errors.New("services.json is torn")
	}
	return maps.Clone(m.saved), nil
}

func (m *memory) Save(r map[string]onions.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return errors.New("no space left on device")
	}
	m.saved = maps.Clone(r)
	return nil
}

func (m *memory) set(torn, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.torn, m.full = torn, full
}

func (m *memory) get() map[string]onions.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.saved)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
