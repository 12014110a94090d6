package run

import (
	"context"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/config"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// A watch of all tasks says at its beginning that one has to list, tells of what changes after that, and says again that one has to list when the task service was away.
func TestAllTasksAreFollowedAcrossARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer(p)
	c.knows(1)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	stream, err := c.api.WatchTasks(ctx, &nodev1.WatchTasksRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *nodev1.WatchTasksResponse {
		t.Helper()
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	completed := func(id string) {
		t.Helper()
		for {
			m := next()
			if m.GetMissed() {
				t.Fatal("nothing was missed")
			}
			if x := m.GetTask(); x.GetId() == id && x.GetState() == "COMPLETED" {
				return
			}
		}
	}
	if !next().GetMissed() {
		t.Fatal("it does not say that one has to list first")
	}
	o := c.run(ctx, "", sumOf("1", "2"))
	o.want(t, "3")
	completed(o.task.GetId())
	c.task.Stop()
	c.task.Start()
	for !next().GetMissed() {
	}
	o = c.run(ctx, "", sumOf("2", "2"))
	o.want(t, "4")
	completed(o.task.GetId())
	cancel()
	for err == nil {
		_, err = stream.Recv()
	}
}

// Why a task went where it went is told to the task service with the task, and to its user.
func TestWhyATaskWentThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, other := w.provider(), w.provider()
	other.types = []string{"wasm"}
	c := w.consumer(p)
	c.knows(2)
	ctx := testContext(t)
	o := c.run(ctx, "", sumOf("1", "2"))
	o.want(t, "3")
	r, err := c.api.GetPlacement(ctx, &nodev1.GetPlacementRequest{TaskId: o.task.GetId()})
	if err != nil || len(r.GetAttempts()) != 1 {
		t.Fatalf("it says %v, %v", r, err)
	}
	a := r.GetAttempts()[0]
	verdicts := map[string]string{}
	for _, x := range a.GetConsidered() {
		verdicts[x.GetPeerId()] = x.GetVerdict()
	}
	if a.GetPeerId() != p.id() || a.GetChosenBecause() != "ONLY_ONE" || a.GetKnown() != 2 || a.GetQualified() != 1 || verdicts[p.id()] != "CHOSEN" || verdicts[other.id()] != "WRONG_TYPE" {
		t.Errorf("it says %v", a)
	}
	if _, err := c.api.GetPlacement(ctx, &nodev1.GetPlacementRequest{TaskId: "x"}); err == nil {
		t.Error("there is no such task")
	}
}

// Every process is asked what it runs with; one that does not say is there all the same.
func TestSettingsOfAllProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	loaded, err := config.Load(Process, new(Default()), []string{"--home", t.TempDir(), "--neighbours", "3"}, config.WithEnviron(nil))
	if err != nil {
		t.Fatal(err)
	}
	p.node.loaded = loaded
	r, err := p.api.GetSettings(testContext(t), &nodev1.GetSettingsRequest{})
	if err != nil || r.GetVersion() == "" {
		t.Fatalf("it says %v, %v", r, err)
	}
	var names []string
	for _, x := range r.GetProcesses() {
		names = append(names, x.GetName())
		if (x.GetError() == "") != (x.GetName() == Process) {
			t.Errorf("it says %v", x)
		}
		for _, s := range x.GetSettings() {
			if s.GetName() == "neighbours" && (s.GetValue() != "3" || s.GetOrigin() != "flag" || s.GetPlace() != "--neighbours") {
				t.Errorf("it says %v", s)
			}
		}
	}
	if got := strings.Join(names, " "); got != "broker discovery metric task node" {
		t.Errorf("these are there: %s", got)
	}
}
