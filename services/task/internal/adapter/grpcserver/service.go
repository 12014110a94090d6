// Package grpcserver serves shallot.task.v1 for either role.
package grpcserver

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/tracing"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Reader is what both roles answer about their tasks.
type Reader interface {
	Get(ctx context.Context, id string) (app.TaskView, error)
	List(ctx context.Context, f app.TaskFilter) ([]app.TaskView, error)
	Watch(id string) (<-chan struct{}, func())
}

// Consumer is what only a consumer does.
type Consumer interface {
	Cancel(ctx context.Context, taskID string) (app.Reply, error)
	Result(ctx context.Context, id, name string) (*app.Body, error)
	ReadLog(ctx context.Context, id string, offset int64, b []byte) (n int, next int64, ended bool, err error)
}

// Provider is what only a provider does.
type Provider interface {
	Describe() (caps []app.Capability, sealingKey, evaluator string, wants int)
	Queue() domain.Queue
	// Leading is false at a replica that another one leads: nodes have nothing to say to it.
	Leading() bool
	// Puzzle is what a stranger's submission costs now; nil where nobody is ever asked for anything.
	Puzzle() *domain.Puzzle
	// Description is another number when Describe says something else.
	Description() uint64
	// WatchQueue wakes the caller when Queue or Description say something else.
	WatchQueue() (<-chan struct{}, func())
}

// Uploader keeps bodies of bytes for later tasks.
type Uploader interface {
	// Create begins one.
	Create() (Upload, error)
}

// Upload is one being written: Keep makes it known under its id.
type Upload interface {
	io.Writer
	Keep() (id string, size int64, sha256 [32]byte, err error)
	Drop()
}

// Config is what a Service needs: Role and Reader always, and Consumer with Uploads and Jobs, or Provider.
type Config struct {
	Role     app.Role
	Reader   Reader
	Consumer Consumer
	Uploads  Uploader
	Jobs     Jobs
	Provider Provider
	Log      *slog.Logger
}

// Service implements shallot.task.v1 and app.Pusher.
type Service struct {
	taskv1.UnimplementedTaskServiceServer
	sessions *Sessions
	cfg      Config
	tokens   tokens
}

// New makes a Service whose pushes go through sessions.
func New(cfg Config, sessions *Sessions) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, sessions: sessions, tokens: newTokens()}
}

// Register serves it.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	taskv1.RegisterTaskServiceServer(r, s)
	NewJobs(s.cfg.Jobs).Register(r)
}

// leading refuses what belongs to the replica that leads. The caller's next try goes to another one.
func (s *Service) leading() error {
	if s.cfg.Provider == nil || s.cfg.Provider.Leading() {
		return nil
	}
	return fault.FailedPrecondition("NOT_LEADING", "another replica of the task service leads: try again, at the next one") // not Unavailable: this one is well
}

func onlyAt(role string) error {
	other := "consumer"
	if role == other {
		other = "provider"
	}
	return fault.FailedPrecondition("WRONG_ROLE", "this node is a %s: only a %s does that", other, role)
}

// Sessions are the streams of the node's processes. It implements app.Pusher.
type Sessions struct {
	Trace *tracing.Tracer // nil: no spans
	mu    sync.Mutex
	open  []*session
	next  int
}

// Push gives r to one of the sessions; without any it is dropped.
func (s *Sessions) Push(ctx context.Context, r app.Reply) {
	if r.Task == nil && len(r.Outbox) == 0 && r.Placement == nil {
		return
	}
	m := s.response(&r)
	for {
		one := s.pick()
		if one == nil || one.push(ctx, m) == nil || ctx.Err() != nil {
			return
		}
		s.remove(one)
	}
}

func (s *Sessions) pick() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) == 0 {
		return nil
	}
	s.next++
	return s.open[s.next%len(s.open)]
}

func (s *Sessions) add(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, one)
}

// remove says how many are left, and whether it was there.
func (s *Sessions) remove(one *session) (left int, was bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.open {
		if o == one {
			s.open = append(s.open[:i:i], s.open[i+1:]...)
			was = true
			break
		}
	}
	return len(s.open), was
}

// Len is how many sessions there are.
func (s *Sessions) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}
