// Package grpcserver serves shallot.task.v1 for either role.
package grpcserver

import (
	"context"
	"io"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Reader is what both roles answer about their tasks.
type Reader interface {
	Get(ctx context.Context, id string) (app.TaskView, error)
	List(ctx context.Context, f app.TaskFilter) ([]app.TaskView, error)
	Watch(id string) (<-chan struct{}, func())
	// Feed collects all tasks that change, so many at most; nil: there are too many feeds.
	Feed(most int) *app.Feed
}

// Consumer is what only a consumer does.
type Consumer interface {
	Cancel(ctx context.Context, taskID string) (app.Reply, error)
	Placement(ctx context.Context, id string) ([]app.PlacementView, error)
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
	PageKey  []byte // 32 bytes that replicas share, so that each takes the others' page tokens; nil: none do
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
	sessions.mu.Lock() // a role that has loaded what it left may push already
	sessions.all = cfg.Consumer != nil
	sessions.mu.Unlock()
	return &Service{cfg: cfg, sessions: sessions, tokens: newTokens(cfg.PageKey)}
}

// Register serves it.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	taskv1.RegisterTaskServiceServer(r, s)
	NewJobs(s.cfg.Jobs, s.cfg.PageKey).Register(r)
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
