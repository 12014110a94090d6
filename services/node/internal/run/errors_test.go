package run

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func TestCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer(p)
	c.knows(1)
	ctx := testContext(t)
	o := c.run(ctx, "", sumOf("1"))
	id := o.task.GetId()
	typo := id[:31] + string('0'+('f'-id[31])%10)
	if typo == id {
		typo = id[:31] + "a"
	}
	for name, x := range map[string]struct {
		call func() error
		code codes.Code
		says []string
	}{
		"provider":          {func() error { _, err := p.api.SubmitTask(ctx, &nodev1.SubmitTaskRequest{Spec: sumOf("1")}); return err }, codes.FailedPrecondition, []string{"shallot up --role consumer"}},
		"run at a provider": {func() error { return p.run(ctx, "", sumOf("1")).err }, codes.FailedPrecondition, []string{"shallot up --role consumer"}},
		"nothing to add":    {func() error { return c.run(ctx, "", sumOf()).err }, codes.InvalidArgument, []string{"spec.sum.addends"}},
		"no spec":           {func() error { return c.run(ctx, "", nil).err }, codes.InvalidArgument, []string{"spec.type"}},
		"bad type":          {func() error { return c.run(ctx, "", &taskv1.TaskSpec{Type: "a b"}).err }, codes.InvalidArgument, []string{"a b"}},
		"long request id":   {func() error { return c.run(ctx, strings.Repeat("x", 129), sumOf("1")).err }, codes.InvalidArgument, []string{"129", "128"}},
		"bad provider": {func() error {
			s := sumOf("1")
			s.Placement = &taskv1.PlacementPolicy{Providers: []string{"nobody"}}
			return c.run(ctx, "", s).err
		}, codes.InvalidArgument, []string{"spec.placement.providers[0]", "nobody"}},
		"unknown task":  {func() error { _, err := c.api.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: typo}); return err }, codes.NotFound, []string{typo, "did you mean", id}},
		"short task id": {func() error { _, err := c.api.CancelTask(ctx, &nodev1.CancelTaskRequest{TaskId: id[:8]}); return err }, codes.InvalidArgument, []string{"task_id", id[:8], "did you mean", id}},
		"no task id":    {func() error { _, err := c.api.GetTask(ctx, &nodev1.GetTaskRequest{}); return err }, codes.InvalidArgument, []string{"task_id is empty"}},
		"unknown peer": {func() error {
			_, err := c.api.GetPeer(ctx, &nodev1.GetPeerRequest{PeerId: p.id()[:51] + "z"})
			return err
		}, codes.NotFound, []string{"did you mean", p.id()}},
		"bad peer": {func() error {
			_, err := c.api.GetPeerMetrics(ctx, &nodev1.GetPeerMetricsRequest{PeerId: "x"})
			return err
		}, codes.InvalidArgument, []string{"peer_id", `"x"`}},
		"bad address": {func() error {
			_, err := c.api.ConnectPeer(ctx, &nodev1.ConnectPeerRequest{Address: "/ip4/1.2.3.4/tcp/1"})
			return err
		}, codes.InvalidArgument, []string{"/p2p/ID"}},
		"bad state": {func() error {
			_, err := c.api.ListTasks(ctx, &nodev1.ListTasksRequest{States: []string{"COMPLETE"}})
			return err
		}, codes.InvalidArgument, []string{"COMPLETE", "did you mean"}},
		"page too large": {func() error { _, err := c.api.ListTasks(ctx, &nodev1.ListTasksRequest{PageSize: 1001}); return err }, codes.InvalidArgument, []string{"1001", "1000"}},
		"watch of a stranger": {func() error {
			s, err := c.api.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: strings.Repeat("0", 32)})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}, codes.NotFound, []string{strings.Repeat("0", 32)}},
		"no cid": {func() error { _, err := c.api.StatContent(ctx, &nodev1.StatContentRequest{}); return err }, codes.InvalidArgument, []string{"cid is empty"}},
	} {
		err := x.call()
		f := fault.From(err)
		if f == nil || f.Code != x.code {
			t.Errorf("%s: got %v, want %v", name, err, x.code)
			continue
		}
		for _, s := range x.says {
			if !strings.Contains(f.Message, s) {
				t.Errorf("%s: %q does not say %q", name, f.Message, s)
			}
		}
	}
}
