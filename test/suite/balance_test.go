package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/module"
)

// completed runs a task and returns it when it has completed.
func completed(ctx context.Context, node nodev1.NodeServiceClient, spec *taskv1.TaskSpec) (*taskv1.Task, error) {
	stream, err := node.RunTask(ctx, &nodev1.RunTaskRequest{Spec: spec})
	if err != nil {
		return nil, err
	}
	var task *taskv1.Task
	for {
		r, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && task.GetState() == "COMPLETED":
			return task, nil
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("task %s ended as %s: %v%s", task.GetId(), task.GetState(), task.GetError(), history(task))
		case err != nil:
			return nil, err
		}
		if t := r.GetTask(); t != nil {
			task = t
		}
	}
}

func history(task *taskv1.Task) string {
	var b strings.Builder
	for _, h := range task.GetHistory() {
		peer := h.GetPeerId()
		fmt.Fprintf(&b, "\n%s  %d %s %s %.80s", h.GetAt().AsTime().Format("15:04:05.000"), h.GetAttempt(), h.GetWhat(), peer[max(0, len(peer)-8):], h.GetDetail())
	}
	return b.String()
}

func sleepSpec(d time.Duration, placement *taskv1.PlacementPolicy) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "wasm", Placement: placement, Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{
		Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: module.Sleep(d)}}}}}
}

// TestBurstThroughOneProvider: a burst that comes in through one entry provider is spread over all of them.
func TestBurstThroughOneProvider(t *testing.T) {
	const providers, tasks = 10, 500
	n := ownNetwork(t, providers, 1)
	node, err := n.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	peers, err := node.ListPeers(t.Context(), &nodev1.ListPeersRequest{})
	if err != nil || len(peers.GetPeers()) != providers {
		t.Fatalf("%d peers, %v", len(peers.GetPeers()), err)
	}
	entry := &taskv1.PlacementPolicy{Providers: []string{peers.GetPeers()[0].GetPeerId()}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	ran := make(chan string, tasks)
	begin := time.Now()
	for range tasks {
		group.Go(func() error {
			task, err := completed(ctx, node, sleepSpec(200*time.Millisecond, entry))
			ran <- task.GetProvider()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	close(ran)
	by := map[string]int{}
	for p := range ran {
		by[p]++
	}
	t.Logf("%d tasks in %v: %v", tasks, time.Since(begin).Round(time.Millisecond), by)
	for p, k := range by {
		if fair := tasks / providers; k > 2*fair {
			t.Errorf("provider …%s got %d tasks, its fair share is %d", p[len(p)-8:], k, fair)
		}
	}
}

// TestABusyProviderIsAvoided: what another consumer makes busy is not chosen any more two metric intervals later, though tasks are not handed on.
func TestABusyProviderIsAvoided(t *testing.T) {
	n := ownNetwork(t, 3, 2)
	busy := peerID(t, n, "provider-1")
	first, err := n.Node("consumer-1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := n.Node("consumer-2")
	if err != nil {
		t.Fatal(err)
	}
	stays := false
	for range 60 {
		spec := sleepSpec(time.Minute, &taskv1.PlacementPolicy{Redirect: &stays, Providers: []string{busy}})
		if _, err := other.SubmitTask(t.Context(), &nodev1.SubmitTaskRequest{Spec: spec}); err != nil {
			t.Fatal(err)
		}
	}
	var interval time.Duration
	eventually(t, time.Minute, "the first consumer has the provider's metric", func() bool {
		r, err := first.GetPeerMetrics(t.Context(), &nodev1.GetPeerMetricsRequest{PeerId: busy})
		interval = r.GetMetric().GetMetric().GetInterval().AsDuration()
		return err == nil && interval > 0
	})
	since := time.Now()
	early, late := 0, map[string]int{}
	for time.Since(since) < 2*interval || len(late) == 0 || late["all"] < 20 {
		at := time.Now()
		r, err := first.SubmitTask(t.Context(), &nodev1.SubmitTaskRequest{Spec: sleepSpec(10*time.Millisecond, &taskv1.PlacementPolicy{Redirect: &stays})})
		if err != nil {
			t.Fatal(err)
		}
		chosen := "" // the first: what waits there does not end
		eventually(t, time.Minute, "a provider is chosen", func() bool {
			g, err := first.GetTask(t.Context(), &nodev1.GetTaskRequest{TaskId: r.GetTask().GetId()})
			chosen = g.GetTask().GetProvider()
			return err == nil && chosen != ""
		})
		switch {
		case at.Sub(since) >= 2*interval:
			late[chosen]++
			late["all"]++
		case chosen == busy:
			early++
		}
	}
	t.Logf("the interval is %v; within two of them the busy provider was chosen %d times, after that %d of %d times", interval, early, late[busy], late["all"])
	if late[busy] > 0 || len(late) < 3 {
		t.Errorf("after two intervals tasks went to %v; the busy one is …%s", late, busy[len(busy)-8:])
	}
}
