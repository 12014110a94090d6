package rest

import (
	"cmp"
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// history: GET /v1/node/history. Each replica of node remembers for itself, so one after the other would give a picture that jumps: all are asked, and one picture is made of it.
func (s *server) history(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	ctx, cancel := context.WithTimeout(r.Context(), gatherTimeout)
	defer cancel()
	in := &nodev1.GetHistoryRequest{}
	if err := runtime.PopulateQueryParameters(in, r.URL.Query(), utilities.NewDoubleArray(nil)); err != nil {
		s.problems.write(w, r, status.Error(codes.InvalidArgument, err.Error()))
		return
	}
	var all []*nodev1.GetHistoryResponse
	err := rpc.Every(ctx, replicaTimeout, func(ctx context.Context) error {
		m, err := s.node.GetHistory(ctx, in)
		if err == nil {
			all = append(all, m)
		}
		return err
	})
	if len(all) == 0 {
		s.problems.write(w, r, err)
		return
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(joined(all))
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b)
}

// joined is the history of the replica that remembers the longest, the same one each time, with what the others saw while that one did not run.
func joined(all []*nodev1.GetHistoryResponse) *nodev1.GetHistoryResponse {
	if len(all) == 1 {
		return all[0]
	}
	slices.SortStableFunc(all, func(a, b *nodev1.GetHistoryResponse) int {
		return cmp.Or(since(a).Compare(since(b)), cmp.Compare(a.GetReplica(), b.GetReplica()))
	})
	var step time.Duration
	for _, m := range all {
		step = max(step, m.GetStep().AsDuration())
	}
	type slot struct {
		of    int // of all
		point *nodev1.HistoryPoint
	}
	slots := map[time.Time]slot{}
	for i, m := range all {
		for _, p := range m.GetPoints() {
			at := p.GetTime().AsTime().Truncate(step)
			switch s, taken := slots[at]; {
			case !taken:
				slots[at] = slot{i, p}
			case s.of == i:
				slots[at] = slot{i, together(s.point, p)}
			}
		}
	}
	out := &nodev1.GetHistoryResponse{Step: durationpb.New(step), Replica: all[0].GetReplica(), Since: all[0].GetSince()}
	for _, at := range slices.SortedFunc(maps.Keys(slots), time.Time.Compare) {
		out.Points = append(out.Points, slots[at].point)
	}
	return out
}

// since is when a history begins; one that has not begun comes last.
func since(m *nodev1.GetHistoryResponse) time.Time {
	if m.GetSince() == nil {
		return time.Unix(math.MaxInt32, 0)
	}
	return m.GetSince().AsTime()
}

// together puts a later point to one, as the contract says of several steps.
func together(a, b *nodev1.HistoryPoint) *nodev1.HistoryPoint {
	b.Finished += a.GetFinished()
	b.Failed += a.GetFailed()
	b.Cpu = max(a.GetCpu(), b.GetCpu())
	if a.GetLatencyP50().AsDuration() > b.GetLatencyP50().AsDuration() {
		b.LatencyP50 = a.GetLatencyP50()
	}
	if a.GetLatencyP99().AsDuration() > b.GetLatencyP99().AsDuration() {
		b.LatencyP99 = a.GetLatencyP99()
	}
	return b
}
