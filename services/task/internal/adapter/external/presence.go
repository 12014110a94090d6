package external

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
)

// Each time that an executor comes or changes is an announcement to the whole network. One that does it again and again waits
// longer each time; that it goes is told at once.
const (
	calm   = time.Minute // without a change, the next one waits for nothing
	maxGap = time.Minute
)

// Run looks after the executor until ctx ends: it finds out when it comes, changes and goes.
func (e *Executor) Run(ctx context.Context) error {
	w := &watch{e: e}
	for ctx.Err() == nil {
		w.look(ctx)
		w.pause(ctx)
	}
	return nil
}

// watch is what the looks at one executor remember.
type watch struct {
	e     *Executor
	told  time.Time     // when it last came or changed
	gap   time.Duration // how long the next time has to wait after told
	said  string        // the last complaint, so that it is written once
	blink bool          // the connection has just been lost
}

func (w *watch) look(ctx context.Context) {
	timeout := w.e.cfg.Answer
	if w.blink {
		timeout = w.e.cfg.Blink
	}
	w.blink = false
	call, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a, err := w.e.ask(call)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		w.here(a)
	case w.e.mayBeBusy(err):
	default:
		w.away(err)
	}
}

// ask is one look: what it is, and whether it is well. An executor without a health service is as well as it answers.
func (e *Executor) ask(ctx context.Context) (*about, error) {
	d, err := e.client.Describe(ctx, &executorv1.DescribeRequest{}, grpc.MaxCallRecvMsgSize(maxAbout))
	if err != nil {
		return nil, err
	}
	a, err := read(d, e.cfg.Type)
	if err != nil {
		return nil, err
	}
	h, err := e.health.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.MaxCallRecvMsgSize(maxAbout))
	if err != nil {
		if code := fault.From(err).Code; code == codes.Unimplemented || code == codes.NotFound {
			return a, nil
		}
		return nil, err
	}
	if h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return nil, fault.FailedPrecondition("EXECUTOR_UNHEALTHY", "it says %s of its health", h.GetStatus())
	}
	return a, nil
}

// mayBeBusy: one that does a single thing at a time answers no looks while it runs a task. Whether it hangs is for the time limit.
func (e *Executor) mayBeBusy(err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.about != nil && e.running > 0 && fault.From(err).Code == codes.DeadlineExceeded && e.conn.GetState() == connectivity.Ready
}

// here notes that the executor is there, unless it came or changed too often.
func (w *watch) here(a *about) {
	e := w.e
	e.mu.Lock()
	before := e.about
	e.mu.Unlock()
	if before != nil && before.same(a) {
		return
	}
	now := time.Now()
	if !w.told.IsZero() && now.Before(w.told.Add(w.gap)) {
		return
	}
	if w.told.IsZero() || now.Sub(w.told) > calm {
		w.gap = time.Second
	} else {
		w.gap = min(2*w.gap, maxGap)
	}
	w.told, w.said = now, ""
	e.mu.Lock()
	e.about, e.since = a, now
	close(e.turned)
	e.turned = make(chan struct{})
	e.mu.Unlock()
	e.log.Info("an executor is here", "version", a.capability.Version, "side_by_side", a.width)
	e.change()
}

func (w *watch) away(err error) {
	e := w.e
	e.mu.Lock()
	was := e.about != nil
	if was {
		e.about, e.since = nil, time.Now()
	}
	e.mu.Unlock()
	if text := clip(err.Error(), maxShown); was || text != w.said {
		w.said = text
		e.log.Warn("an executor is away: tasks of its type are not taken until it is back", logging.KeyError, text)
	}
	if was {
		e.change()
	}
}

// pause waits until the next look is due: at once when the connection is lost.
func (w *watch) pause(ctx context.Context) {
	e := w.e
	e.mu.Lock()
	here := e.about != nil
	e.mu.Unlock()
	wait := e.cfg.Probe
	if !here {
		wait = min(wait, time.Second)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if !here {
		<-ctx.Done()
		return
	}
	w.blink = e.conn.WaitForStateChange(ctx, connectivity.Ready)
}

// maxShown bounds what of an executor's words a log gets, in bytes.
const maxShown = 300

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
