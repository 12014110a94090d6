package replicas

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// saysTheSame asks each replica of node what it knows of a task that one of them took, of the settings, the health and the past of all: whichever answers is right.
func (w *world) saysTheSame(u *user) {
	ctx, cancel := context.WithTimeout(u.ctx, 2*patience)
	defer cancel()
	id := w.heardByAll(ctx)
	w.placedTheSame(ctx, id)
	w.settingsOfAll(ctx)
	for _, nodes := range [][]nodev1.NodeServiceClient{w.consumers, w.providers} {
		w.pastOfEach(ctx, nodes)
		for i, n := range nodes {
			w.isWell(ctx, i, n)
		}
	}
}

// heardByAll watches all tasks at every replica of both nodes, while one of them takes a task, which all hear of to its end.
func (w *world) heardByAll(ctx context.Context) (id string) {
	t := w.t
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	all := append(slices.Clone(w.consumers), w.providers...)
	heard := make([]chan string, len(all)) // of tasks that have ended; empty: some may have been missed
	for i, n := range all {
		heard[i] = make(chan string, 64)
		stream, err := n.WatchTasks(ctx, &nodev1.WatchTasksRequest{Type: "sum"})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || !r.GetMissed() { // the watch stands: what changes from now on is told
			t.Fatalf("the watch of all tasks at node %d of %d begins with %v, %v", i+1, len(all), r, err)
		}
		wg.Go(func() {
			defer close(heard[i])
			for {
				r, err := stream.Recv()
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("the watch of all tasks at node %d of %d ended: %v", i+1, len(all), err)
					}
					return
				}
				if r.GetMissed() || r.GetTask().GetState() == "COMPLETED" {
					select {
					case heard[i] <- r.GetTask().GetId():
					case <-ctx.Done():
					}
				}
			}
		})
	}
	r, err := w.consumers[0].SubmitTask(ctx, &nodev1.SubmitTaskRequest{RequestId: "watched", Spec: sum(1)})
	if err != nil {
		t.Fatal(err)
	}
	id = r.GetTask().GetId()
	for i, n := range all {
		if !w.heardOf(ctx, n, id, heard[i]) {
			t.Errorf("the watch of all tasks at node %d of %d did not say that task %s is completed", i+1, len(all), id)
		}
	}
	return id
}

// heardOf waits until a watch has told of a task's end, or that the task is among those that it may have missed.
func (w *world) heardOf(ctx context.Context, n nodev1.NodeServiceClient, id string, heard <-chan string) bool {
	for got := range heard {
		if got == id {
			return true
		}
		if got == "" {
			if r, err := n.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: id}); err == nil && r.GetTask().GetState() == "COMPLETED" {
				return true
			}
		}
	}
	return false
}

func (w *world) placedTheSame(ctx context.Context, id string) {
	t := w.t
	t.Helper()
	var first *nodev1.GetPlacementResponse
	for i, n := range w.consumers {
		r, err := n.GetPlacement(ctx, &nodev1.GetPlacementRequest{TaskId: id})
		if err != nil || len(r.GetAttempts()) == 0 {
			t.Fatalf("the consumer's node %d says of a placement %v, %v", i+1, r, err)
		}
		if a := r.GetAttempts()[0]; a.GetChosenBecause() != "ONLY_ONE" || a.GetEnded() != "RESULT" || a.GetKnown() != 1 {
			t.Errorf("the consumer's node %d says %v", i+1, a)
		}
		if first == nil {
			first = r
		} else if !proto.Equal(first, r) {
			t.Errorf("one replica says %v, another one %v", first, r)
		}
	}
}

// until asks again until what a node says is right: a replica that did not answer while the store was away is left alone for a while.
func (w *world) until(ctx context.Context, ask func() error) {
	w.t.Helper()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			w.t.Error(err)
			return
		}
	}
}

// settingsOfAll: node knows the settings of every replica of what it calls.
func (w *world) settingsOfAll(ctx context.Context) {
	w.t.Helper()
	for i, n := range w.providers {
		w.until(ctx, func() error {
			r, err := n.GetSettings(ctx, &nodev1.GetSettingsRequest{})
			if err != nil {
				return err
			}
			replicas := map[string]map[string]bool{}
			for _, p := range r.GetProcesses() {
				if p.GetError() != "" || len(p.GetSettings()) == 0 {
					return fmt.Errorf("the provider's node %d says of %s: %q", i+1, p.GetName(), p.GetError())
				}
				if replicas[p.GetName()] == nil {
					replicas[p.GetName()] = map[string]bool{}
				}
				replicas[p.GetName()][p.GetReplica()] = true
			}
			for name, want := range map[string]int{"broker": 1, "task": 2, "discovery": 2, "metric": 2, "node": 1} {
				if len(replicas[name]) != want {
					return fmt.Errorf("the provider's node %d says the settings of %d processes of %s, want %d", i+1, len(replicas[name]), name, want)
				}
			}
			return nil
		})
	}
}

// isWell: after all that was done to it, a node sees nothing wrong with its processes and the network.
func (w *world) isWell(ctx context.Context, i int, n nodev1.NodeServiceClient) {
	w.t.Helper()
	w.until(ctx, func() error {
		r, err := n.Diagnose(ctx, &nodev1.DiagnoseRequest{})
		if err != nil || len(r.GetFindings()) < 4 {
			return fmt.Errorf("node %d finds %v, %w", i+1, r, err)
		}
		for _, f := range r.GetFindings() {
			if (f.GetCheck() == "network" || strings.HasPrefix(f.GetCheck(), "process ")) && f.GetVerdict() == "problem" {
				return fmt.Errorf("node %d finds of %s: %s", i+1, f.GetCheck(), f.GetDetail())
			}
		}
		return nil
	})
}

// pastOfEach: every replica says whose memory it is, since when it remembers, and tasks that it cannot have counted twice.
func (w *world) pastOfEach(ctx context.Context, nodes []nodev1.NodeServiceClient) {
	t := w.t
	t.Helper()
	names := map[string]bool{}
	for i, n := range nodes {
		w.until(ctx, func() error { // a process that was started again remembers what it wrote down, and has its first point after ten seconds
			r, err := n.GetHistory(ctx, &nodev1.GetHistoryRequest{Span: durationpb.New(time.Hour)})
			if err != nil {
				return err
			}
			names[r.GetReplica()] = true
			if r.GetSince() == nil || len(r.GetPoints()) == 0 || r.GetSince().AsTime().After(r.GetPoints()[0].GetTime().AsTime()) {
				return fmt.Errorf("node %d remembers since %v, %d points", i+1, r.GetSince(), len(r.GetPoints()))
			}
			finished := 0
			for _, p := range r.GetPoints() {
				finished += int(p.GetFinished())
			}
			if all := w.listed(ctx, n); finished > all {
				t.Errorf("node %d counts %d tasks that have ended, and there are %d", i+1, finished, all)
			}
			return nil
		})
	}
	if len(names) != len(nodes) {
		t.Errorf("%d replicas have the names %v", len(nodes), names)
	}
}

// listed is how many tasks a node lists.
func (w *world) listed(ctx context.Context, n nodev1.NodeServiceClient) (all int) {
	w.t.Helper()
	for token := ""; ; {
		r, err := n.ListTasks(ctx, &nodev1.ListTasksRequest{PageSize: 100, PageToken: token})
		if err != nil {
			w.t.Fatal(fmt.Errorf("list tasks: %w", err))
		}
		all += len(r.GetTasks())
		if token = r.GetNextPageToken(); token == "" {
			return all
		}
	}
}
