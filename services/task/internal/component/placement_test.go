package component_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

func (nd *node) placement(id string) []*taskv1.PlacementAttempt {
	nd.t.Helper()
	r, err := nd.client.GetPlacement(nd.ctx, &taskv1.GetPlacementRequest{TaskId: id})
	if err != nil {
		nd.t.Fatal(err)
	}
	return r.GetAttempts()
}

// What node says of a choice is kept with the attempt, across a restart; why there is nobody is, until there is somebody.
func TestWhyATaskIsWhereItIs(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(nil), n.addConsumer(nil)
	id := c.submit(sumSpec("1", "2"), nil)
	if got := c.placement(id); len(got) != 0 {
		t.Errorf("nobody was looked for, and it says %v", got)
	}
	nobody := &taskv1.Choice{Because: "NOBODY_QUALIFIES", Known: 1, Considered: []*taskv1.Considered{{PeerId: p.peer, Verdict: "UNAVAILABLE", Reason: "unavailable"}}}
	c.do(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_PlacementFailed{PlacementFailed: &taskv1.PlacementFailed{TaskId: id, Detail: "none", Choice: nobody}}})
	if got := c.placement(id); len(got) != 1 || got[0].GetAttempt() != 1 || got[0].GetPeerId() != "" || got[0].GetChosenBecause() != "NOBODY_QUALIFIES" || got[0].GetAt() == nil ||
		got[0].GetKnown() != 1 || got[0].GetConsidered()[0].GetVerdict() != "UNAVAILABLE" {
		t.Errorf("without a provider it says %v", got)
	}
	considered := []*taskv1.Considered{{PeerId: p.peer, Score: 0.5, Verdict: "CHOSEN", Reason: "0.5 tasks per slot"}, {PeerId: "no peer", Verdict: "NOT_DRAWN"}}
	for i := range 40 { // more than are kept
		considered = append(considered, &taskv1.Considered{PeerId: fmt.Sprintf("12D3KooWother%d", i), Score: float64(i), Verdict: "NOT_DRAWN", Reason: strings.Repeat("because ", 100)})
	}
	choice := &taskv1.Choice{Because: "LESS_BUSY", Known: 42, Qualified: 41, Considered: considered}
	c.do(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Place{Place: &taskv1.PlaceTask{TaskId: id, Candidate: p.candidate(), Detail: "the best", Choice: choice}}})
	if task := c.await(id); task.GetState() != "COMPLETED" {
		t.Fatalf("the task is %v", task)
	}
	before := c.placement(id)
	if len(before) != 1 {
		t.Fatalf("it says %v", before)
	}
	a := before[0]
	if a.GetAttempt() != 1 || a.GetPeerId() != p.peer || a.GetProvider() != "" || a.GetChosenBecause() != "LESS_BUSY" || a.GetEnded() != "RESULT" || a.GetKnown() != 42 || a.GetQualified() != 41 {
		t.Errorf("it says %v", a)
	}
	if x := a.GetConsidered(); len(x) != 17 || !proto.Equal(x[0], considered[0]) || len(x[16].GetReason()) > 160 || x[16].GetScore() != 15 {
		t.Errorf("%d were considered: %v", len(x), x)
	}
	c.restart()
	if after := c.placement(id); len(after) != 1 || !proto.Equal(after[0], a) {
		t.Errorf("after a restart: %v", after)
	}
	if _, err := p.client.GetPlacement(p.ctx, &taskv1.GetPlacementRequest{TaskId: id}); err == nil || !strings.Contains(err.Error(), "only a consumer") {
		t.Errorf("a provider says %v", err)
	}
	if _, err := c.client.GetPlacement(c.ctx, &taskv1.GetPlacementRequest{TaskId: app.NewID()}); err == nil || !strings.Contains(err.Error(), "there is no task") {
		t.Errorf("of no task it says %v", err)
	}
}

func (nd *node) do(m *taskv1.SessionRequest) {
	nd.t.Helper()
	if f := nd.call(m).GetFault(); f != nil {
		nd.t.Fatalf("%s: %s", f.GetReason(), f.GetMessage())
	}
}
