package run

import (
	"context"
	"testing"

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
