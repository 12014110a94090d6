package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

var dawn = time.Unix(1_800_000_000, 0)

func (f *fakeNode) GetHistory(_ context.Context, r *nodev1.GetHistoryRequest) (*nodev1.GetHistoryResponse, error) {
	if r.GetSpan().AsDuration() > 24*time.Hour {
		return nil, fault.InvalidArgument("SPAN_INVALID", "span is %s", r.GetSpan().AsDuration())
	}
	return &nodev1.GetHistoryResponse{Step: durationpb.New(10 * time.Second), Replica: "ab", Since: timestamppb.New(dawn),
		Points: []*nodev1.HistoryPoint{{Time: timestamppb.New(dawn), Running: 3}}}, nil
}

func TestHistoryOverREST(t *testing.T) {
	g := start(t)
	status, body, _ := g.do(t, http.MethodGet, "/v1/node/history?span=3600s", "")
	var got struct {
		Step, Replica, Since string
		Points               []struct{ Running, Waiting *uint32 }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || got.Step != "10s" || got.Replica != "ab" || got.Since == "" || len(got.Points) != 1 ||
		*got.Points[0].Running != 3 || got.Points[0].Waiting == nil {
		t.Errorf("%d %s", status, body)
	}
	for query, want := range map[string]int{"?span=90000s": http.StatusBadRequest, "?span=long": http.StatusBadRequest} {
		if status, body, _ := g.do(t, http.MethodGet, "/v1/node/history"+query, ""); status != want {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
}

func remembers(replica string, from, to, step int, each uint32) *nodev1.GetHistoryResponse {
	m := &nodev1.GetHistoryResponse{Replica: replica, Step: durationpb.New(time.Duration(step) * time.Second)}
	for s := from; s < to; s += step {
		m.Points = append(m.Points, &nodev1.HistoryPoint{Time: timestamppb.New(dawn.Add(time.Duration(s)*time.Second + 3*time.Millisecond)), Finished: each, Cpu: float64(each)})
	}
	if len(m.Points) > 0 {
		m.Since = m.GetPoints()[0].GetTime()
	}
	return m
}

// Of several replicas one is the picture, and the others fill what it has not seen: whichever is asked first.
func TestHistoriesOfReplicasAreJoined(t *testing.T) {
	type picture struct {
		at       int
		finished uint32
	}
	for name, c := range map[string]struct {
		all  func() []*nodev1.GetHistoryResponse
		of   string
		want []picture
	}{
		"the longest memory": {func() []*nodev1.GetHistoryResponse {
			return []*nodev1.GetHistoryResponse{remembers("b", 20, 50, 10, 7), remembers("a", 0, 30, 10, 1), remembers("c", 0, 0, 10, 0)}
		}, "a", []picture{{0, 1}, {10, 1}, {20, 1}, {30, 7}, {40, 7}}},
		"as long": {func() []*nodev1.GetHistoryResponse {
			return []*nodev1.GetHistoryResponse{remembers("b", 0, 20, 10, 7), remembers("a", 0, 20, 10, 1)}
		}, "a", []picture{{0, 1}, {10, 1}}},
		"steps of two sizes": {func() []*nodev1.GetHistoryResponse {
			return []*nodev1.GetHistoryResponse{remembers("b", 0, 60, 20, 5), remembers("a", 60, 100, 10, 1)}
		}, "b", []picture{{0, 5}, {20, 5}, {40, 5}, {60, 2}, {80, 2}}},
	} {
		for range 2 {
			all := c.all()
			got := joined(all)
			var seen []picture
			for _, p := range got.GetPoints() {
				seen = append(seen, picture{int(p.GetTime().AsTime().Sub(dawn)/time.Second) / int(got.GetStep().GetSeconds()) * int(got.GetStep().GetSeconds()), p.GetFinished()})
			}
			if !slices.Equal(seen, c.want) || got.GetReplica() != c.of || !got.GetSince().AsTime().Equal(all[0].GetSince().AsTime()) {
				t.Errorf("%s: %v of %s", name, seen, got.GetReplica())
			}
			old := c.all
			c.all = func() []*nodev1.GetHistoryResponse { a := old(); slices.Reverse(a); return a }
		}
	}
}
