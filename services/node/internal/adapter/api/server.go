// Package api serves shallot.node.v1.
package api

import (
	"context"
	"time"

	"google.golang.org/grpc"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
)

// Submitter takes users' tasks.
type Submitter interface {
	Submit(ctx context.Context, requestID string, spec *taskv1.TaskSpec) (*taskv1.Task, error)
	Run(ctx context.Context, requestID string, spec *taskv1.TaskSpec, emit func(*taskv1.Task) error, stdout func([]byte) error) error
}

// Watcher follows tasks.
type Watcher interface {
	Watch(ctx context.Context, id string, emit func(*taskv1.Task) error) error
}

// Feed follows all tasks; see package tasks.
type Feed interface {
	WatchTasks(ctx context.Context, in *taskv1.WatchTasksRequest, emit func(*taskv1.WatchTasksResponse) error) error
}

// Tasks is the part of the task service that is handed on as it is.
type Tasks interface {
	Upload(ctx context.Context, opts ...grpc.CallOption) (grpc.ClientStreamingClient[taskv1.UploadRequest, taskv1.UploadResponse], error)
	GetTask(ctx context.Context, in *taskv1.GetTaskRequest, opts ...grpc.CallOption) (*taskv1.GetTaskResponse, error)
	GetPlacement(ctx context.Context, in *taskv1.GetPlacementRequest, opts ...grpc.CallOption) (*taskv1.GetPlacementResponse, error)
	ListTasks(ctx context.Context, in *taskv1.ListTasksRequest, opts ...grpc.CallOption) (*taskv1.ListTasksResponse, error)
	CancelTask(ctx context.Context, in *taskv1.CancelTaskRequest, opts ...grpc.CallOption) (*taskv1.CancelTaskResponse, error)
	GetLogs(ctx context.Context, in *taskv1.GetLogsRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[taskv1.GetLogsResponse], error)
}

// Bodies reads results; see app.BodyReader.
type Bodies interface {
	ReadResult(ctx context.Context, task, body string, offset uint64, size func(uint64) error, data func([]byte) error) error
}

// Content is the part of the broker's repository that users have.
type Content interface {
	Get(ctx context.Context, in *brokerv1.GetRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[brokerv1.GetResponse], error)
	List(ctx context.Context, in *brokerv1.ListRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[brokerv1.ListResponse], error)
	Stat(ctx context.Context, in *brokerv1.StatRequest, opts ...grpc.CallOption) (*brokerv1.StatResponse, error)
	Pin(ctx context.Context, in *brokerv1.PinRequest, opts ...grpc.CallOption) (*brokerv1.PinResponse, error)
	Unpin(ctx context.Context, in *brokerv1.UnpinRequest, opts ...grpc.CallOption) (*brokerv1.UnpinResponse, error)
	ListPins(ctx context.Context, in *brokerv1.ListPinsRequest, opts ...grpc.CallOption) (*brokerv1.ListPinsResponse, error)
	Collect(ctx context.Context, in *brokerv1.CollectRequest, opts ...grpc.CallOption) (*brokerv1.CollectResponse, error)
	Verify(ctx context.Context, in *brokerv1.VerifyRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[brokerv1.VerifyResponse], error)
}

// Putter stores a file or a directory; see package sidecar.
type Putter interface {
	Put(ctx context.Context, options *brokerv1.PutOptions, next func() (*brokerv1.PutRequest, error)) (*brokerv1.PutResponse, error)
}

// View is who is out there and what they have to do: discovery and metric on a provider, node's own directory on a
// consumer.
type View interface {
	ListPeers(ctx context.Context, q PeerQuery) (peers []*discoveryv1.Peer, next string, err error)
	// GetPeer is NOT_FOUND when the peer is not known.
	GetPeer(ctx context.Context, id string) (*discoveryv1.Peer, error)
	ListMetrics(ctx context.Context, pageSize uint32, pageToken string) (metrics []*metricv1.KnownMetric, next string, err error)
	// GetMetric is NOT_FOUND when nothing fresh is known.
	GetMetric(ctx context.Context, id string) (*metricv1.KnownMetric, error)
	// Join dials one more address and returns whose it is.
	Join(ctx context.Context, address string) (string, error)
	// Available counts the providers that are.
	Available() int
	// Capabilities are this node's own.
	Capabilities() []*eventv1.Capability
}

// PeerQuery says which peers are wanted.
type PeerQuery struct {
	Capability, State string
	PageSize          uint32
	PageToken         string
}

// Identity says who this node is; where the broker does not answer, the last answer comes with the error.
type Identity interface {
	Now(ctx context.Context) (*brokerv1.SelfResponse, error)
}

// Processes knows the health of the node's processes.
type Processes interface {
	List() (processes []app.Process, ready bool)
}

// Config is what a Service needs; nothing in it but Usage may be nil.
type Config struct {
	Role       string
	Anonymous  bool
	Home       string // of this process; empty: its disk is not looked at
	Version    string
	StartedAt  time.Time
	Submitter  Submitter
	Watcher    Watcher
	Feed       Feed
	Tasks      Tasks
	Bodies     Bodies
	Content    Content
	Putter     Putter
	View       View
	Identity   Identity
	Processes  Processes
	Usage      func(ctx context.Context) map[string]app.Usage // what the processes use, by name
	History    History
	Trails     Trails
	NetworkKey NetworkKey
	Settings   func(ctx context.Context) []*telemetryv1.ProcessSettings
}

// Service serves shallot.node.v1.
type Service struct {
	nodev1.UnimplementedNodeServiceServer
	cfg Config
}

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// Register adds the service to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) { nodev1.RegisterNodeServiceServer(r, s) }
