// Package rest answers HTTP: JSON through the generated routes, bodies of bytes through handlers of its own, metrics, health
// and the API's own description.
package rest

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shallot-net/shallot/gateway/internal/access"
	"github.com/shallot-net/shallot/gateway/internal/dashboard"
	"github.com/shallot-net/shallot/gateway/internal/openapi"
	restgen "github.com/shallot-net/shallot/gateway/internal/restgen/shallot/node/v1"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/tracing"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// Config says what the handler stands on. All fields but Trace are required.
type Config struct {
	Node     grpc.ClientConnInterface
	Log      *slog.Logger
	Registry interface {
		prometheus.Registerer
		prometheus.Gatherer
	}
	Guard access.Guard
	// Siblings are the nodes that a dashboard can switch to.
	Siblings Siblings
	// TLSDir is where this process has its certificate from, and the list of clients; "" where services speak by Unix sockets.
	TLSDir string
	// MaxBody bounds a JSON body, MaxUpload a body of bytes; in bytes.
	MaxBody, MaxUpload int64
	// Timeout bounds calls that are no streams.
	Timeout time.Duration
	Trace   *tracing.Tracer // nil: no spans
	// Settings are what this process was configured with; nil: they are not told.
	Settings *telemetryv1.ProcessSettings
}

type server struct {
	Config
	node      nodev1.NodeServiceClient
	jobs      nodev1.JobServiceClient
	telemetry telemetryv1.TelemetryServiceClient
	problems  problems
	requests  *prometheus.CounterVec
	sessions  *prometheus.CounterVec
	archives  chan struct{} // a place for each that is being made
}

// MetricRequests counts answered requests by method and status class.
const MetricRequests = "shallot_gateway_requests_total"

// New returns the gateway's handler.
func New(c Config) (http.Handler, error) {
	s := &server{
		Config: c, node: nodev1.NewNodeServiceClient(c.Node), jobs: nodev1.NewJobServiceClient(c.Node), telemetry: telemetryv1.NewTelemetryServiceClient(c.Node),
		problems: problems{c.Log},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: MetricRequests, Help: "HTTP requests answered."}, []string{"method", "status"}),
		sessions: newSessions(),
		archives: make(chan struct{}, maxArchives),
	}
	for _, m := range []prometheus.Collector{s.requests, s.sessions} {
		if err := c.Registry.Register(m); err != nil {
			return nil, err
		}
	}
	api := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true},
			UnmarshalOptions: protojson.UnmarshalOptions{},
		}),
		runtime.WithErrorHandler(s.problems.handle),
		runtime.WithRoutingErrorHandler(s.routing),
		// No header of a request crosses into the node, and none of the node's into an answer.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithMiddlewares(s.traced),
	)
	// The routes with a verb (":stat") must be registered after those without: the last one is tried first.
	for _, h := range []struct {
		method, path string
		handle       runtime.HandlerFunc
	}{
		{http.MethodGet, "/v1/tasks/{task_id}/result", s.result},
		{http.MethodGet, "/v1/tasks/{task_id}/logs", s.logs},
		{http.MethodGet, "/v1/content/{cid}", s.getContent},
		{http.MethodPost, "/v1/content", s.putContent},
		{http.MethodPost, "/v1/uploads", s.upload},
		{http.MethodGet, "/v1/jobs/{job_id}/results", s.results},
		{http.MethodGet, "/v1/clients", s.clients},
		{http.MethodGet, "/v1/tokens", s.tokens},
		{http.MethodPost, "/v1/tokens", s.addToken},
		{http.MethodPost, "/v1/tokens/{name}:revoke", s.revokeToken},
	} {
		if err := api.HandlePath(h.method, h.path, h.handle); err != nil {
			return nil, err
		}
	}
	if err := restgen.RegisterNodeServiceHandlerClient(context.Background(), api, s.node); err != nil {
		return nil, err
	}
	if err := restgen.RegisterJobServiceHandlerClient(context.Background(), api, s.jobs); err != nil {
		return nil, err
	}
	if err := api.HandlePath(http.MethodGet, "/v1/settings", s.settings); err != nil { // in place of the generated one, which does not know of this process
		return nil, err
	}
	if err := api.HandlePath(http.MethodGet, "/v1/node/history", s.history); err != nil { // in place of the generated one, which asks one replica
		return nil, err
	}

	mux := http.NewServeMux()
	for _, h := range []struct {
		pattern string
		need    access.Need
		handle  http.Handler
	}{
		{"/v1/", access.Login, s.bounded(api)},
		{"POST /v1/session:code", access.Bearer, http.HandlerFunc(s.sessionCode)},
		{"POST /v1/session", access.Enter, http.HandlerFunc(s.beginSession)},
		{"GET /v1/session", access.Login, http.HandlerFunc(s.getSession)},
		{"DELETE /v1/session", access.Login, http.HandlerFunc(s.endSession)},
		{"GET /metrics", access.Login, http.HandlerFunc(s.metrics)},
		{"GET /healthz", access.Nothing, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })},
		{"GET /readyz", access.Nothing, http.HandlerFunc(s.ready)},
		{"GET /openapi.json", access.Nothing, http.HandlerFunc(openapi.ServeDocument)},
		{"GET /api", access.Nothing, http.HandlerFunc(openapi.ServePage)},
		{"GET /api/style.css", access.Nothing, http.HandlerFunc(openapi.ServeStyle)},
		{"/", access.Nothing, dashboard.Handler(func(w http.ResponseWriter, r *http.Request) { s.problems.write(w, r, noSuchPath(r)) })},
	} {
		mux.Handle(h.pattern, s.guarded(h.need, h.handle))
	}
	return s.counted(mux), nil
}

func noSuchPath(r *http.Request) error {
	return fault.NotFound("PATH_NOT_FOUND", "there is no %s %s: /api lists what there is", r.Method, printable(r.URL.Path))
}

// printable keeps what a stranger sent out of terminals: 100 characters, no control characters.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, s)
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return s
}

func (s *server) routing(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
	switch status {
	case http.StatusMethodNotAllowed:
		writeJSON(w, status, Problem{Code: "UNIMPLEMENTED", Reason: "METHOD_NOT_ALLOWED", Message: printable(r.URL.Path) + " does not take " + r.Method})
	case http.StatusNotFound:
		s.problems.write(w, r, noSuchPath(r))
	default:
		writeJSON(w, status, Problem{Code: "INVALID_ARGUMENT", Reason: "BAD_REQUEST", Message: "the request is malformed"})
	}
}

// guarded lets pass what the guard allows, for as long as it does, and puts on every answer the headers that keep browsers from guessing.
func (s *server) guarded(need access.Need, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		caller, d := s.Guard.Check(r, need)
		if d != nil {
			deny(w, d)
			return
		}
		ctx, release := s.Guard.Keys.Hold(r.Context(), caller)
		defer release()
		held := r.WithContext(context.WithValue(ctx, callerKey{}, caller))
		next.ServeHTTP(w, held)
	})
}

func deny(w http.ResponseWriter, d *access.Denial) {
	code := "PERMISSION_DENIED"
	if d.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="shallot"`)
		code = "UNAUTHENTICATED"
	}
	writeJSON(w, d.Status, Problem{Code: code, Reason: d.Reason, Message: d.Message})
}

// traced makes a span of a request, named by its route. A traceparent of the caller's is not looked at: what is traced is the operator's to say.
func (s *server) traced(next runtime.HandlerFunc) runtime.HandlerFunc {
	if s.Trace == nil {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		ctx, span := s.Trace.StartServer(r.Context(), "request")
		defer span.End()
		c := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next(c, r.WithContext(ctx), params)
		route := ""
		if p, ok := runtime.HTTPPattern(ctx); ok {
			route = p.String()
		}
		span.SetRequest(method(r.Method), route, c.status)
	}
}

// bounded limits bodies and the time of calls that are no streams.
func (s *server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit := s.MaxBody
		if takesBytes(r) {
			limit = s.MaxUpload
		}
		if r.ContentLength > limit {
			writeJSON(w, http.StatusRequestEntityTooLarge, Problem{Code: "RESOURCE_EXHAUSTED", Reason: "BODY_TOO_LARGE",
				Message: "the body is larger than this gateway takes: send large inputs to POST /v1/uploads and name the upload_id"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		if !streams(r) {
			ctx, cancel := context.WithTimeout(r.Context(), s.Timeout)
			defer cancel()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

func takesBytes(r *http.Request) bool {
	return r.Method == http.MethodPost && (r.URL.Path == "/v1/uploads" || r.URL.Path == "/v1/content")
}

func streams(r *http.Request) bool {
	p := r.URL.Path
	return takesBytes(r) || strings.HasSuffix(p, ":watch") || strings.HasSuffix(p, "/result") || strings.HasSuffix(p, "/results") || strings.HasSuffix(p, "/logs") ||
		(strings.HasPrefix(p, "/v1/content/") && !strings.HasSuffix(p, ":stat")) || strings.HasPrefix(p, "/v1/content:")
}

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	n, err := s.node.GetNode(ctx, &nodev1.GetNodeRequest{})
	if err != nil || !n.GetNode().GetReady() {
		plain(w, http.StatusServiceUnavailable, "not ready")
		return
	}
	plain(w, http.StatusOK, "ready")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}
