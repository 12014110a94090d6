// Package external runs tasks in gRPC servers that the provider's operator runs beside the node: whatever implements
// shallot.executor.v1, in any language, is a task type. Such a server comes and goes, and is not trusted: what it says is bounded
// and checked, and what it does wrong ends its own runs only.
package external

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/shallot-net/shallot/kit/rpc"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// Config says which executor; Address is required.
type Config struct {
	Address
	Log      *slog.Logger
	Registry prometheus.Registerer

	Probe    time.Duration // between two looks at an executor that is here; 5 s
	Answer   time.Duration // how long an answer to a look may take; 3 s
	Blink    time.Duration // how long a lost connection may be away before anybody is told; 1 s
	Validate time.Duration // how long checking a payload may take; 10 s
	Patience time.Duration // how long a run waits for an executor that has gone; 10 s
	Stall    time.Duration // how long the executor may take none of the parts; 30 s
	Grace    time.Duration // what a run gets beyond its time limit to end by itself; 2 s
	// Dialer replaces dialling the address, for tests.
	Dialer func(ctx context.Context) (net.Conn, error)
}

func (c Config) withDefaults() Config {
	set := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&c.Probe, 5*time.Second)
	set(&c.Answer, 3*time.Second)
	set(&c.Blink, time.Second)
	set(&c.Validate, 10*time.Second)
	set(&c.Patience, 10*time.Second)
	set(&c.Stall, 30*time.Second)
	set(&c.Grace, 2*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// maxMessage bounds one message in either direction, in bytes: what gRPC servers take when nobody tells them otherwise.
const maxMessage = 4 << 20

// Executor is one external executor, whether it is here or not.
type Executor struct {
	cfg    Config
	log    *slog.Logger
	conn   *grpc.ClientConn
	client executorv1.ExecutorServiceClient
	health healthpb.HealthClient
	change func()

	mu      sync.Mutex
	about   *about        // nil while it is away
	since   time.Time     // of about, or of its being away
	turned  chan struct{} // closed and made anew when it comes
	running int
}

var _ app.Guest = (*Executor)(nil)

// New makes one; it does not connect yet: Run does. An address that may not be called is an error.
func New(cfg Config) (*Executor, error) {
	cfg = cfg.withDefaults()
	conn, err := rpc.Dial(cfg.Endpoint, rpc.ClientConfig{Service: "the executor of " + cfg.Type, Registry: cfg.Registry, MaxMessage: maxMessage, Plain: true, Dialer: cfg.Dialer,
		// Its looks show whether it lives. Servers end a connection that is pinged more often than they expect.
		Options: []grpc.DialOption{grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: math.MaxInt64})}})
	if err != nil {
		return nil, err
	}
	return &Executor{cfg: cfg, log: cfg.Log.With("type", cfg.Type), conn: conn, client: executorv1.NewExecutorServiceClient(conn), health: healthpb.NewHealthClient(conn),
		change: func() {}, since: time.Now(), turned: make(chan struct{})}, nil
}

// Close ends the connection, and every run with it.
func (e *Executor) Close() { _ = e.conn.Close() }

// OnChange implements app.Guest.
func (e *Executor) OnChange(f func()) { e.change = f }

// Present implements app.Guest.
func (e *Executor) Present() (width int, here bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.about == nil {
		return 1, false
	}
	return e.about.width, true
}

// Describe implements app.Executor. Of one that is away only the type is known.
func (e *Executor) Describe() app.Capability {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.about == nil {
		return app.Capability{Type: e.cfg.Type}
	}
	return e.about.capability
}

var errAway = errors.New("the executor is away")

// await waits for an executor that is away: it may be starting again, as this process may be.
func (e *Executor) await(ctx context.Context) error {
	e.mu.Lock()
	here, turned := e.about != nil, e.turned
	patience := time.NewTimer(time.Until(e.since.Add(e.cfg.Patience)))
	e.mu.Unlock()
	defer patience.Stop()
	if here {
		return nil
	}
	select {
	case <-turned:
		return nil
	case <-patience.C:
		return errAway
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// busy counts a run; the returned function ends it.
func (e *Executor) busy() func() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.running--
	}
}
