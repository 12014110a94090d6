package rpc

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/policy"
)

// MetricServerRefused counts who was refused: by reason (mtls.Refused…) and, where a certificate of this node said it, by the caller's service.
const MetricServerRefused = "shallot_rpc_server_refused_total"

// Reasons of refusals. They say no more: what is wrong stands in this process's log.
const (
	ReasonUnauthenticated = "UNAUTHENTICATED"
	ReasonForbidden       = "PERMISSION_DENIED"
)

var (
	errUnauthenticated = fault.Unauthenticated(ReasonUnauthenticated, "the caller is not known")
	errForbidden       = fault.PermissionDenied(ReasonForbidden, "the caller may not make this call")
	// errAged is why a stream ends that has stood for long; it has the reason of a server that stops, since it is the same to who called.
	errAged = fault.Unavailable(fault.ReasonShuttingDown, "the stream has stood for as long as one may: open it again")
)

// Refusals that are logged: so many at once, and so many a second after that. All are counted.
const (
	loggedAtOnce    = 20
	loggedPerSecond = 1
)

// gate asks who a caller is and what it may. A nil one lets everybody through.
type gate struct {
	process string
	creds   *mtls.Credentials
	maxAge  time.Duration
	log     *slog.Logger
	refused *prometheus.CounterVec
	lines   *rate.Limiter
}

// newRefused counts refusals. It is there also where callers are not known, so that a process exports the same metrics wherever it listens.
func newRefused(r prometheus.Registerer) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: MetricServerRefused, Help: "Connections and calls that were refused, by reason and by the caller's service where it is known."}, []string{"reason", "caller"})
	if r == nil {
		return c
	}
	return register(r, c)
}

func newGate(cfg ServerConfig, refused *prometheus.CounterVec) (*gate, credentials.TransportCredentials, error) {
	g := &gate{process: cfg.Process, creds: cfg.TLS, maxAge: cfg.MaxAge, log: cfg.Log, lines: rate.NewLimiter(loggedPerSecond, loggedAtOnce), refused: refused}
	if g.maxAge <= 0 {
		g.maxAge = MaxAge
	}
	creds, err := g.creds.Server(func(reason string) { g.refuse("connection refused", reason, mtls.Identity{}, "") })
	return g, creds, err
}

func (g *gate) refuse(what, reason string, who mtls.Identity, method string) {
	g.refused.WithLabelValues(reason, who.Service).Inc()
	if !g.lines.Allow() {
		return
	}
	attrs := []slog.Attr{slog.String("reason", reason)}
	if who.Service != "" {
		attrs = append(attrs, slog.String("caller", who.String()), slog.String(logging.KeyMethod, method))
	}
	g.log.LogAttrs(context.Background(), slog.LevelWarn, what, attrs...)
}

// admit decides on one call.
func (g *gate) admit(ctx context.Context, method string) error {
	if g == nil {
		return nil
	}
	who, reason, ok := g.creds.Caller(ctx)
	if !ok {
		reason = mtls.RefusedNone
	}
	if reason != "" {
		g.refuse("call refused", reason, who, method)
		return errUnauthenticated
	}
	if !policy.Allowed(g.process, who.Service, method) {
		g.refuse("call refused", mtls.RefusedForbidden, who, method)
		return errForbidden
	}
	return nil
}

// age ends a stream that its caller opens again after a while, so that streams find the replicas that have come since. The connection's own age would cut it
// off in the middle; this way it ends as it does when the server stops, with what is under way answered.
func (g *gate) age(method string, cancel context.CancelCauseFunc) (stop func()) {
	if g == nil || !policy.Long(method) {
		return func() {}
	}
	// Drawn, so that not all streams move at one time.
	t := time.AfterFunc(g.maxAge+rand.N(g.maxAge/4+1), func() { cancel(errAged) })
	return func() { t.Stop() }
}
