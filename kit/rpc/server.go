package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/tracing"
)

// Defaults of both sides.
const (
	MaxMessage    = 8 << 20          // bytes of one message
	ServerTimeout = 10 * time.Second // of a unary call that came without a deadline
	ClientTimeout = 3 * time.Second  // of a unary call made without a deadline
	Grace         = 3 * time.Second  // how long calls in flight may take to end when the server stops
	window        = 1 << 20          // bytes a stream may be ahead of its reader
	streamWorkers = 16               // goroutines that stay for the next call, with the stacks that they have grown
)

// Defaults of servers that replicas of other services call, off the Unix socket.
const (
	MaxAge           = time.Minute      // after which a connection takes no new calls, and a stream that its caller opens again ends
	ageGrace         = time.Hour        // how long calls may go on after that: an upload of many GiB
	handshakeTimeout = 10 * time.Second // of a connection until it is one
	serverKeepalive  = 10 * time.Second // after which a silent caller is asked whether it is there
	serverPatience   = 5 * time.Second  // for its answer
)

// HealthReplica is the name under which grpc.health.v1 tells whether this replica takes calls: from the first time that it was ready until it stops. Callers choose
// among replicas by it. The empty name tells whether all is well, which may be so at no replica, and then each of them can still say more than none.
const HealthReplica = "shallot.replica"

// ErrDraining is the cause with which stream contexts end when the server is about to stop.
var ErrDraining = fault.Unavailable(fault.ReasonShuttingDown, "the service is shutting down: try again")

// ServerConfig says what a server is. Only Process and one of Listen and Listener are required.
type ServerConfig struct {
	Process    string
	Listen     string       // "unix:/path"; with TLS also "host:port" or "tcp:host:port"
	Listener   net.Listener // instead of Listen, for an inherited or in-memory one; it is trusted without TLS
	Log        *slog.Logger // default: none
	Registry   prometheus.Registerer
	MaxMessage int               // bytes; default MaxMessage
	TLS        *mtls.Credentials // required off the Unix socket, where callers are known by it and package policy says what they may
	MaxAge     time.Duration     // of connections with TLS; default MaxAge
	Grace      time.Duration     // default Grace
	Trace      *tracing.Tracer   // default: no spans
	Options    []grpc.ServerOption
}

// Server is a *grpc.Server to register services with, and what surrounds it. It says NOT_SERVING until
// SetServing(true).
type Server struct {
	*grpc.Server
	cfg      ServerConfig
	endpoint endpoint
	health   *health.Server
	once     sync.Once // the first time that it was ready
	drain    context.CancelCauseFunc
	unproven *handshakes // nil without TLS
	mu       sync.Mutex
	listener net.Listener
}

// NewServer checks the configuration; nothing is listened on yet.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.MaxMessage <= 0 {
		cfg.MaxMessage = MaxMessage
	}
	if cfg.Grace <= 0 {
		cfg.Grace = Grace
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, listener: cfg.Listener, health: health.NewServer()}
	if cfg.Listener == nil {
		var err error
		if s.endpoint, err = parseEndpoint(cfg.Listen, cfg.TLS != nil); err != nil {
			return nil, err
		}
	}
	if s.endpoint.network != "tcp" {
		s.cfg.TLS = nil
	}
	drain, cancel := context.WithCancelCause(context.Background())
	s.drain = cancel
	i := &interceptor{log: cfg.Log, metrics: newCallMetrics(cfg.Registry, MetricServerHandled, MetricServerSeconds, "server"), drain: drain}
	if cfg.Registry != nil {
		i.panics = register(cfg.Registry, prometheus.NewCounter(prometheus.CounterOpts{Name: MetricServerPanics, Help: "Handlers that panicked."}))
	}
	keepaliveParams := keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second}
	var secure []grpc.ServerOption
	refused := newRefused(cfg.Registry)
	if s.cfg.TLS != nil {
		g, creds, err := newGate(s.cfg, refused)
		if err != nil {
			cancel(nil)
			return nil, err
		}
		i.gate, s.unproven = g, &handshakes{}
		keepaliveParams = keepalive.ServerParameters{Time: serverKeepalive, Timeout: serverPatience, MaxConnectionAge: g.maxAge, MaxConnectionAgeGrace: ageGrace}
		secure = []grpc.ServerOption{grpc.Creds(proving{creds, s.unproven}), grpc.ConnectionTimeout(handshakeTimeout)}
	}
	opts := []grpc.ServerOption{
		grpc.UnaryInterceptor(i.unary), grpc.StreamInterceptor(i.stream),
		grpc.MaxRecvMsgSize(cfg.MaxMessage), grpc.MaxSendMsgSize(cfg.MaxMessage),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(4 * window),
		grpc.MaxConcurrentStreams(1024), grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepaliveParams),
	}
	s.Server = grpc.NewServer(slices.Concat(opts, secure, cfg.Trace.ServerOptions(), cfg.Options)...)
	healthpb.RegisterHealthServer(s.Server, s.health)
	reflection.Register(s.Server)
	s.SetServing(false)
	s.health.SetServingStatus(HealthReplica, healthpb.HealthCheckResponse_NOT_SERVING)
	return s, nil
}

// SetServing is what grpc.health.v1 answers from now on.
func (s *Server) SetServing(ok bool) {
	st := healthpb.HealthCheckResponse_NOT_SERVING
	if ok {
		st = healthpb.HealthCheckResponse_SERVING
		s.once.Do(func() { s.health.SetServingStatus(HealthReplica, st) })
	}
	s.health.SetServingStatus("", st)
}

// Listen opens the endpoint, so that a process can fail early; Serve does it where it was not done.
func (s *Server) Listen(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	l, err := s.endpoint.listen(ctx)
	s.listener = l
	return err
}

// Addr is where the server listens (the port, when 0 was asked for); nil before Listen.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Serve listens and serves until ctx ends; then stream contexts end with ErrDraining, calls in flight get
// cfg.Grace to finish, and the rest is cut off. It returns nil after such a stop. The socket file is gone then.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(ctx); err != nil {
		return err
	}
	listener := s.listener
	if s.unproven != nil {
		listener = counted{listener, s.unproven}
	}
	served := make(chan error, 1)
	go func() { served <- s.Server.Serve(listener) }()
	select {
	case err := <-served:
		return fault.Wrap(err, codes.Unavailable, "SERVE_FAILED", "serving %s on %s failed", s.cfg.Process, s.listener.Addr())
	case <-ctx.Done():
	}
	s.health.Shutdown()
	s.drain(ErrDraining)
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	force := time.NewTimer(s.cfg.Grace)
	defer force.Stop()
	select {
	case <-stopped:
	case <-force.C:
		s.Stop()
		<-stopped
	}
	// Serve's error is that it was stopped.
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}
