package component_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// candidate is this provider as consumers know it.
func (nd *node) candidate() *taskv1.Candidate {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	ann := &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT,
		Payload: wire.Codec{}.Encode(&domain.Announcement{PeerID: nd.peer, SealingKey: nd.sealing, Addresses: []string{"/memory/1"}})}
	nd.sign(ann)
	return &taskv1.Candidate{PeerId: nd.peer, SealingKey: nd.sealing, Addresses: []string{"/memory/1"}, Announcement: ann}
}

// useProviders makes the consumer choose the first of these that is not excluded.
func (nd *node) useProviders(ps ...*node) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	nd.candidates = func(p *taskv1.PlacementNeeded) *taskv1.Candidate {
		for _, c := range ps {
			if p.GetExcluded()[c.peer] == "" {
				return c.candidate()
			}
		}
		return nil
	}
}

func (nd *node) replicaCandidates() []*taskv1.Candidate {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	var out []*taskv1.Candidate
	for _, k := range nd.keepers {
		out = append(out, &taskv1.Candidate{PeerId: k.peer, Addresses: []string{"/memory/1"}})
	}
	return out
}

func sumSpec(addends ...string) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: addends}}}
}

// create submits a task to p, or to nobody.
func (nd *node) create(requestID string, spec *taskv1.TaskSpec, p *node) *taskv1.SessionResponse {
	nd.t.Helper()
	c := &taskv1.CreateTask{RequestId: requestID, Spec: spec}
	if p != nil {
		c.Candidate = p.candidate()
	}
	return nd.call(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Create{Create: c}})
}

func (nd *node) submit(spec *taskv1.TaskSpec, p *node) string {
	nd.t.Helper()
	r := nd.create(app.NewID(), spec, p)
	if f := r.GetFault(); f != nil {
		nd.t.Fatalf("create: %s: %s", f.GetReason(), f.GetMessage())
	}
	return r.GetTask().GetId()
}

// await waits until a task is in one of the states; without any, until it is terminal. It returns the task with its history.
func (nd *node) await(id string, states ...string) *taskv1.Task {
	nd.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := nd.client.WatchTask(ctx, &taskv1.WatchTaskRequest{TaskId: id})
	if err != nil {
		nd.t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			nd.t.Fatalf("wait for %v: %v; the task is %v", states, err, nd.get(id))
		}
		for _, s := range states {
			if m.GetTask().GetState() == s {
				return nd.get(id)
			}
		}
	}
	t := nd.get(id)
	if len(states) > 0 {
		for _, s := range states {
			if s == t.GetState() {
				return t
			}
		}
		nd.t.Fatalf("the task is %s (%v), want one of %v", t.GetState(), t, states)
	}
	return t
}

func (nd *node) get(id string) *taskv1.Task {
	nd.t.Helper()
	r, err := nd.client.GetTask(context.Background(), &taskv1.GetTaskRequest{TaskId: id})
	if err != nil {
		nd.t.Fatal(err)
	}
	return r.GetTask()
}

func (nd *node) result(id, body string) string {
	nd.t.Helper()
	b, err := nd.tryResult(id, body)
	if err != nil {
		nd.t.Fatal(err)
	}
	return string(b)
}

func (nd *node) tryResult(id, body string) ([]byte, error) {
	stream, err := nd.client.GetResult(context.Background(), &taskv1.GetResultRequest{TaskId: id, Body: body})
	if err != nil {
		return nil, err
	}
	var out []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m.GetData()...)
	}
}

// happened lists what a task's history says.
func happened(t *taskv1.Task) []string {
	var out []string
	for _, h := range t.GetHistory() {
		out = append(out, h.GetWhat())
	}
	return out
}

// until waits for a condition that no stream tells.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		pause(2 * time.Millisecond)
	}
}
