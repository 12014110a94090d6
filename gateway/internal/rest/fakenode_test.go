package rest

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// fakeNode is a node in memory: it keeps tasks and content, and adds up sums at once.
type fakeNode struct {
	nodev1.UnimplementedNodeServiceServer
	ready   bool
	tasks   map[string]*taskv1.Task
	content map[string][]byte
	fail    error
	results map[string][]byte
	watch   chan *taskv1.Task
}

func (f *fakeNode) GetNode(context.Context, *nodev1.GetNodeRequest) (*nodev1.GetNodeResponse, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	return &nodev1.GetNodeResponse{Node: &nodev1.Node{PeerId: "peer", Role: "consumer", Mode: "open", Ready: f.ready}}, nil
}

func (f *fakeNode) SubmitTask(_ context.Context, r *nodev1.SubmitTaskRequest) (*nodev1.SubmitTaskResponse, error) {
	if len(r.GetSpec().GetSum().GetAddends()) == 0 {
		return nil, fault.InvalidArgument("ADDENDS_MISSING", "a sum needs at least one addend").With("type", r.GetSpec().GetType())
	}
	t := &taskv1.Task{Id: strings.Repeat("a", 32), Type: r.GetSpec().GetType(), State: "PENDING", RequestId: r.GetRequestId()}
	f.tasks[t.Id] = t
	return &nodev1.SubmitTaskResponse{Task: t}, nil
}

func (f *fakeNode) GetTask(_ context.Context, r *nodev1.GetTaskRequest) (*nodev1.GetTaskResponse, error) {
	t, ok := f.tasks[r.GetTaskId()]
	if !ok {
		return nil, fault.NotFound("TASK_NOT_FOUND", "there is no task %s", r.GetTaskId())
	}
	return &nodev1.GetTaskResponse{Task: t}, nil
}

func (f *fakeNode) ListTasks(_ context.Context, r *nodev1.ListTasksRequest) (*nodev1.ListTasksResponse, error) {
	out := &nodev1.ListTasksResponse{}
	for _, t := range f.tasks {
		if len(r.GetStates()) == 0 || r.GetStates()[0] == t.GetState() {
			out.Tasks = append(out.Tasks, t)
		}
	}
	return out, nil
}

func (f *fakeNode) CancelTask(_ context.Context, r *nodev1.CancelTaskRequest) (*nodev1.CancelTaskResponse, error) {
	f.tasks[r.GetTaskId()].State = "CANCELLED"
	return &nodev1.CancelTaskResponse{Task: f.tasks[r.GetTaskId()]}, nil
}

func (f *fakeNode) WatchTask(_ *nodev1.WatchTaskRequest, s grpc.ServerStreamingServer[nodev1.WatchTaskResponse]) error {
	for t := range f.watch {
		if err := s.Send(&nodev1.WatchTaskResponse{Task: t}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeNode) PutContent(s grpc.ClientStreamingServer[nodev1.PutContentRequest, nodev1.PutContentResponse]) error {
	var b []byte
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		b = append(b, r.GetData()...)
	}
	f.content["cid"] = b
	return s.SendAndClose(&nodev1.PutContentResponse{Cid: "cid", Size: uint64(len(b))})
}

func (f *fakeNode) ListContent(r *nodev1.ListContentRequest, s grpc.ServerStreamingServer[nodev1.ListContentResponse]) error {
	for name, b := range f.content {
		if p, ok := strings.CutPrefix(name, r.GetCid()+"/"); ok {
			e := &brokerv1.DirectoryEntry{Path: p, Kind: "raw", Size: uint64(len(b))}
			if err := s.Send(&nodev1.ListContentResponse{Entries: []*brokerv1.DirectoryEntry{e}}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fakeNode) GetContent(r *nodev1.GetContentRequest, s grpc.ServerStreamingServer[nodev1.GetContentResponse]) error {
	b, ok := f.content[strings.TrimSuffix(r.GetCid()+"/"+r.GetPath(), "/")]
	if from := strings.Join(r.GetFromPeers(), " "); from != "" {
		b, ok = []byte("from "+from), true
	}
	if !ok {
		return fault.NotFound("CONTENT_NOT_FOUND", "nobody has %s", r.GetCid())
	}
	if err := s.Send(&nodev1.GetContentResponse{Response: &nodev1.GetContentResponse_Size{Size: uint64(len(b))}}); err != nil {
		return err
	}
	b = b[r.GetOffset():]
	for len(b) > 0 {
		n := min(len(b), 1000)
		if err := s.Send(&nodev1.GetContentResponse{Response: &nodev1.GetContentResponse_Data{Data: b[:n]}}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (f *fakeNode) CollectContent(context.Context, *nodev1.CollectContentRequest) (*nodev1.CollectContentResponse, error) {
	n := uint64(len(f.content))
	clear(f.content)
	return &nodev1.CollectContentResponse{Blocks: n}, nil
}

func (f *fakeNode) VerifyContent(r *nodev1.VerifyContentRequest, s grpc.ServerStreamingServer[nodev1.VerifyContentResponse]) error {
	found := &brokerv1.VerifyFinding{Cid: "cid", Problem: "damaged", Repaired: !r.GetNoRepair()}
	if err := s.Send(&nodev1.VerifyContentResponse{Response: &nodev1.VerifyContentResponse_Finding{Finding: found}}); err != nil {
		return err
	}
	return s.Send(&nodev1.VerifyContentResponse{Response: &nodev1.VerifyContentResponse_Progress{Progress: &brokerv1.VerifyProgress{Done: true}}})
}

func (f *fakeNode) Gather(context.Context, *telemetryv1.GatherRequest) (*telemetryv1.GatherResponse, error) {
	text := func(v string) []byte {
		return []byte("# HELP shallot_things Things.\n# TYPE shallot_things counter\nshallot_things " + v + "\n")
	}
	return &telemetryv1.GatherResponse{Processes: []*telemetryv1.ProcessMetrics{
		{Process: "broker", Text: text("1")}, {Process: "task", Text: text("2")}, {Process: "metric", Error: "unreachable"},
	}}, nil
}
