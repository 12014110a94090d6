package clitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func sum(addends []string) (string, error) {
	total := new(big.Rat)
	for _, a := range addends {
		r, ok := new(big.Rat).SetString(a)
		if !ok {
			return "", fault.InvalidArgument("ADDEND_INVALID", "addend %q is not a number", a)
		}
		total.Add(total, r)
	}
	return total.RatString(), nil
}

// GetNode implements NodeService.
func (n *Node) GetNode(_ context.Context, r *nodev1.GetNodeRequest) (*nodev1.GetNodeResponse, error) {
	info := proto.CloneOf(n.Info())
	if info.GetAlias() != "" && !r.GetShowAddresses() {
		info.PeerId, info.Addresses = "", nil
	}
	return &nodev1.GetNodeResponse{Node: info}, nil
}

// GetPlacement implements NodeService.
func (n *Node) GetPlacement(_ context.Context, r *nodev1.GetPlacementRequest) (*nodev1.GetPlacementResponse, error) {
	return &nodev1.GetPlacementResponse{Attempts: n.Placement[r.GetTaskId()]}, nil
}

// GetSettings implements NodeService.
func (n *Node) GetSettings(context.Context, *nodev1.GetSettingsRequest) (*nodev1.GetSettingsResponse, error) {
	return &nodev1.GetSettingsResponse{Version: n.Info().GetVersion(), Processes: n.Settings}, nil
}

// ConnectPeer implements NodeService.
func (n *Node) ConnectPeer(_ context.Context, r *nodev1.ConnectPeerRequest) (*nodev1.ConnectPeerResponse, error) {
	_, id, ok := strings.Cut(r.GetAddress(), "/p2p/")
	if !ok {
		return nil, fault.InvalidArgument("ADDRESS_INVALID", "address %q has no /p2p/ID", r.GetAddress())
	}
	return &nodev1.ConnectPeerResponse{PeerId: id}, nil
}

// ListPeers implements NodeService, a peer a page.
func (n *Node) ListPeers(_ context.Context, r *nodev1.ListPeersRequest) (*nodev1.ListPeersResponse, error) {
	at, _ := strconv.Atoi(r.GetPageToken())
	all := n.Peers()
	if at >= len(all) {
		return &nodev1.ListPeersResponse{}, nil
	}
	p := proto.CloneOf(all[at])
	if p.GetAlias() != "" && !r.GetShowAddresses() {
		p.PeerId, p.Addresses, p.SealingKey, p.Announcement = "", nil, "", nil
	}
	return &nodev1.ListPeersResponse{Peers: []*discoveryv1.Peer{p}, NextPageToken: strconv.Itoa(at + 1)}, nil
}

// ListMetrics implements NodeService.
func (n *Node) ListMetrics(context.Context, *nodev1.ListMetricsRequest) (*nodev1.ListMetricsResponse, error) {
	return &nodev1.ListMetricsResponse{Metrics: n.Metrics}, nil
}

// GetPeerMetrics implements NodeService.
func (n *Node) GetPeerMetrics(_ context.Context, r *nodev1.GetPeerMetricsRequest) (*nodev1.GetPeerMetricsResponse, error) {
	for _, m := range n.Metrics {
		if m.GetMetric().GetPeerId() == r.GetPeerId() {
			return &nodev1.GetPeerMetricsResponse{Metric: m}, nil
		}
	}
	return nil, fault.NotFound("PEER_NOT_FOUND", "no metrics of %q are known", r.GetPeerId())
}

// Upload implements NodeService.
func (n *Node) Upload(s grpc.ClientStreamingServer[nodev1.UploadRequest, nodev1.UploadResponse]) error {
	breaks := n.broken("Upload")
	var data []byte
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if data = append(data, m.GetData()...); breaks {
			return errGone
		}
	}
	sum := sha256.Sum256(data)
	id := hex.EncodeToString(sum[:])
	n.change(func() { n.uploads[id] = data })
	return s.SendAndClose(&nodev1.UploadResponse{UploadId: id, Size: uint64(len(data)), Sha256: id})
}

// SubmitTask implements NodeService.
func (n *Node) SubmitTask(_ context.Context, r *nodev1.SubmitTaskRequest) (*nodev1.SubmitTaskResponse, error) {
	t, err := n.submit(r.GetRequestId(), r.GetSpec())
	if err != nil {
		return nil, err
	}
	if n.broken("SubmitTask") {
		return nil, errGone // done, but reported as lost
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return &nodev1.SubmitTaskResponse{Task: clone(t)}, nil
}

// RunTask implements NodeService. It breaks off after the task is stored, before or in the middle of its stdout.
func (n *Node) RunTask(r *nodev1.RunTaskRequest, s grpc.ServerStreamingServer[nodev1.RunTaskResponse]) error {
	t, err := n.submit(r.GetRequestId(), r.GetSpec())
	if err != nil {
		return err
	}
	if n.broken("RunTask") {
		return errGone
	}
	if err := n.watch(s.Context(), t, func(t *taskv1.Task) error {
		return s.Send(&nodev1.RunTaskResponse{Response: &nodev1.RunTaskResponse_Task{Task: t}})
	}); err != nil {
		return err
	}
	breaks := n.broken("RunTask.stdout")
	return chunks(t.stdout, 0, breaks, func(b []byte) error {
		return s.Send(&nodev1.RunTaskResponse{Response: &nodev1.RunTaskResponse_Stdout{Stdout: b}})
	})
}

// chunks sends bytes in pieces; broken, it ends after the first.
func chunks(data []byte, offset uint64, broken bool, send func([]byte) error) error {
	data = data[min(offset, uint64(len(data))):]
	for c := range slices.Chunk(data, 1000) {
		if err := send(c); err != nil {
			return err
		}
		if broken {
			return errGone
		}
	}
	if broken {
		return errGone
	}
	return nil
}

// GetTask implements NodeService.
func (n *Node) GetTask(_ context.Context, r *nodev1.GetTaskRequest) (*nodev1.GetTaskResponse, error) {
	t, err := n.find(r.GetTaskId())
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return &nodev1.GetTaskResponse{Task: clone(t)}, nil
}

// ListTasks implements NodeService.
func (n *Node) ListTasks(_ context.Context, r *nodev1.ListTasksRequest) (*nodev1.ListTasksResponse, error) {
	at, _ := strconv.Atoi(r.GetPageToken())
	resp := &nodev1.ListTasksResponse{}
	all := n.Tasks()
	slices.Reverse(all)
	for i, t := range all {
		if i < at || len(r.GetStates()) > 0 && !slices.Contains(r.GetStates(), t.GetState()) || r.GetType() != "" && r.GetType() != t.GetType() ||
			r.GetCreatedAfter() != nil && t.GetCreatedAt().AsTime().Before(r.GetCreatedAfter().AsTime()) {
			continue
		}
		if len(resp.GetTasks()) == int(r.GetPageSize()) {
			resp.NextPageToken = strconv.Itoa(i)
			break
		}
		t.History = nil
		resp.Tasks = append(resp.Tasks, t)
	}
	return resp, nil
}

// WatchTask implements NodeService.
func (n *Node) WatchTask(r *nodev1.WatchTaskRequest, s grpc.ServerStreamingServer[nodev1.WatchTaskResponse]) error {
	t, err := n.find(r.GetTaskId())
	if err != nil {
		return err
	}
	breaks := n.broken("WatchTask")
	return n.watch(s.Context(), t, func(t *taskv1.Task) error {
		if err := s.Send(&nodev1.WatchTaskResponse{Task: t}); err != nil {
			return err
		}
		if breaks {
			return errGone
		}
		return nil
	})
}

// CancelTask implements NodeService.
func (n *Node) CancelTask(_ context.Context, r *nodev1.CancelTaskRequest) (*nodev1.CancelTaskResponse, error) {
	t, err := n.find(r.GetTaskId())
	if err != nil {
		return nil, err
	}
	t.once.Do(func() { close(t.cancel) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls["CancelTask"]++
	return &nodev1.CancelTaskResponse{Task: clone(t)}, nil
}

// GetResult implements NodeService.
func (n *Node) GetResult(r *nodev1.GetResultRequest, s grpc.ServerStreamingServer[nodev1.GetResultResponse]) error {
	t, err := n.find(r.GetTaskId())
	if err != nil {
		return err
	}
	body := t.stdout
	switch r.GetBody() {
	case "", "stdout":
	case "stderr":
		body = t.stderr
	default:
		i := slices.IndexFunc(t.files, func(f outFile) bool { return "output:"+f.path == r.GetBody() })
		if i < 0 {
			return fault.NotFound("BODY_NOT_FOUND", "the result of task %s has no %q", r.GetTaskId(), r.GetBody())
		}
		body = t.files[i].data
	}
	if err := s.Send(&nodev1.GetResultResponse{Response: &nodev1.GetResultResponse_Size{Size: uint64(len(body))}}); err != nil {
		return err
	}
	return chunks(body, r.GetOffset(), n.broken("GetResult"), func(b []byte) error {
		return s.Send(&nodev1.GetResultResponse{Response: &nodev1.GetResultResponse_Data{Data: b}})
	})
}

// GetLogs implements NodeService.
func (n *Node) GetLogs(r *nodev1.GetLogsRequest, s grpc.ServerStreamingServer[nodev1.GetLogsResponse]) error {
	t, err := n.find(r.GetTaskId())
	if err != nil {
		return err
	}
	breaks := n.broken("GetLogs")
	for sent := r.GetOffset(); ; {
		n.mu.Lock()
		wait, data, done := n.changed, t.stderr, terminal(t.GetState())
		n.mu.Unlock()
		if uint64(len(data)) > sent {
			if err := s.Send(&nodev1.GetLogsResponse{Data: data[sent:]}); err != nil {
				return err
			}
			if sent = uint64(len(data)); breaks {
				return errGone
			}
		}
		if done || !r.GetFollow() {
			return nil
		}
		select {
		case <-wait:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (n *Node) body(cid string) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	data, ok := n.content[cid]
	if !ok {
		return nil, fault.NotFound("CONTENT_NOT_FOUND", "nobody has content %q", cid)
	}
	return data, nil
}

// Asked are the peers that were named by who asked for content last.
func (n *Node) Asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// GetContent implements NodeService.
func (n *Node) GetContent(r *nodev1.GetContentRequest, s grpc.ServerStreamingServer[nodev1.GetContentResponse]) error {
	n.mu.Lock()
	n.asked = r.GetFromPeers()
	n.mu.Unlock()
	cid, err := n.inTree(r.GetCid(), r.GetPath())
	if err != nil {
		return err
	}
	data, err := n.body(cid)
	if err != nil {
		return err
	}
	if err := s.Send(&nodev1.GetContentResponse{Response: &nodev1.GetContentResponse_Size{Size: uint64(len(data))}}); err != nil {
		return err
	}
	return chunks(data, r.GetOffset(), n.broken("GetContent"), func(b []byte) error {
		return s.Send(&nodev1.GetContentResponse{Response: &nodev1.GetContentResponse_Data{Data: b}})
	})
}

// StatContent implements NodeService.
func (n *Node) StatContent(_ context.Context, r *nodev1.StatContentRequest) (*nodev1.StatContentResponse, error) {
	data, err := n.body(r.GetCid())
	if err != nil {
		return nil, err
	}
	return &nodev1.StatContentResponse{Content: &brokerv1.StatResponse{Cid: r.GetCid(), Kind: "raw", Size: uint64(len(data)), Blocks: 1, Local: true}}, nil
}

// PinContent implements NodeService.
func (n *Node) PinContent(_ context.Context, r *nodev1.PinContentRequest) (*nodev1.PinContentResponse, error) {
	data, err := n.body(r.GetCid())
	if err != nil {
		return nil, err
	}
	pin := &brokerv1.Pin{Cid: r.GetCid(), Owner: "user"}
	if r.GetKeep() != nil {
		pin.ExpiresAt = timestamppb.New(n.Now().Add(r.GetKeep().AsDuration()))
	}
	n.change(func() { n.pins = append(n.unpinned(r.GetCid()), pin) })
	return &nodev1.PinContentResponse{Size: uint64(len(data))}, nil
}

func (n *Node) unpinned(cid string) []*brokerv1.Pin {
	return slices.DeleteFunc(slices.Clone(n.pins), func(p *brokerv1.Pin) bool { return p.GetCid() == cid })
}

// UnpinContent implements NodeService.
func (n *Node) UnpinContent(_ context.Context, r *nodev1.UnpinContentRequest) (*nodev1.UnpinContentResponse, error) {
	n.change(func() { n.pins = n.unpinned(r.GetCid()) })
	return &nodev1.UnpinContentResponse{}, nil
}

// ListPins implements NodeService.
func (n *Node) ListPins(_ context.Context, r *nodev1.ListPinsRequest) (*nodev1.ListPinsResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := &nodev1.ListPinsResponse{}
	for _, p := range n.pins {
		kind, wanted := r.GetOwner(), r.GetOwner()
		if wanted == "" {
			wanted = "user"
		}
		if r.GetAllOwners() || p.GetOwner() == wanted || strings.HasSuffix(kind, ":") && strings.HasPrefix(p.GetOwner(), kind) {
			p.Size = uint64(len(n.content[p.GetCid()]))
			out.Pins = append(out.Pins, p)
		}
	}
	return out, nil
}

// Pin has the node keep content for somebody.
func (n *Node) Pin(p *brokerv1.Pin) { n.change(func() { n.pins = append(n.pins, p) }) }

// Damage makes a file's bytes others, for VerifyContent to find.
func (n *Node) Damage(cid string) { n.change(func() { n.damaged = append(n.damaged, cid) }) }

// CollectContent implements NodeService.
func (n *Node) CollectContent(context.Context, *nodev1.CollectContentRequest) (*nodev1.CollectContentResponse, error) {
	out := &nodev1.CollectContentResponse{}
	n.change(func() {
		for cid, data := range n.content {
			if len(n.unpinned(cid)) != len(n.pins) {
				out.Used += uint64(len(data))
				continue
			}
			out.Blocks, out.Bytes = out.Blocks+1, out.Bytes+uint64(len(data))
			delete(n.content, cid)
		}
	})
	return out, nil
}

// VerifyContent implements NodeService. What is damaged stays so.
func (n *Node) VerifyContent(_ *nodev1.VerifyContentRequest, s grpc.ServerStreamingServer[nodev1.VerifyContentResponse]) error {
	n.mu.Lock()
	p := &brokerv1.VerifyProgress{Done: true, Bad: uint64(len(n.damaged))}
	for _, data := range n.content {
		p.Blocks, p.Bytes = p.Blocks+1, p.Bytes+uint64(len(data))
	}
	damaged := slices.Clone(n.damaged)
	n.mu.Unlock()
	for _, cid := range damaged {
		f := &brokerv1.VerifyFinding{Cid: cid, Problem: "damaged"}
		if err := s.Send(&nodev1.VerifyContentResponse{Response: &nodev1.VerifyContentResponse_Finding{Finding: f}}); err != nil {
			return err
		}
	}
	return s.Send(&nodev1.VerifyContentResponse{Response: &nodev1.VerifyContentResponse_Progress{Progress: p}})
}
