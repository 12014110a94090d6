package component_test

import (
	"crypto/sha256"
	"slices"
	"testing"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// TestPinsOfAnEarlierLife: what a process had pinned when it was killed, and what nobody wants any more, is let go after its next start. What is wanted
// stays.
func TestPinsOfAnEarlierLife(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	n.setRoute(func(_, _ string, ev *eventv1.Event) action {
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_COLLECTED {
			return lose
		}
		return pass
	})
	over := c.await(c.submit(scriptSpec(step{Name: "a"}), p), "COMPLETED")
	open := c.submit(withInput(step{Name: "b"}, "input:small", nil, shared(100_000)), nil) // nobody takes it
	result := app.Pinned{CID: over.GetResult().GetCid(), Owner: "task:" + over.GetId()}
	until(t, "the result to be pinned", func() bool { return n.repo.has(p.peer, result) })
	payload := n.repo.ofKind(c.peer, "payload:"+open)
	if len(payload) != 1 {
		t.Fatalf("the payload is pinned %d times", len(payload))
	}

	stranger, cid := app.NewID(), app.SmallCID(sha256.Sum256([]byte("put, and then came the end")))
	left := map[string][]app.Pinned{
		p.peer: {{CID: cid, Owner: "task:" + stranger}, {CID: cid, Owner: result.Owner}}, // never committed; of a run before the last
		c.peer: {{CID: cid, Owner: "payload:" + stranger}, {CID: cid, Owner: "payload:" + over.GetId()}, {CID: cid, Owner: "payload:" + open}},
	}
	for _, nd := range []*node{p, c} {
		nd.stop()
		for _, pin := range left[nd.peer] {
			n.repo.pin(nd.peer, pin)
		}
		nd.start()
		until(t, "what is left to be let go", func() bool {
			return !slices.ContainsFunc(left[nd.peer], func(pin app.Pinned) bool { return n.repo.has(nd.peer, pin) })
		})
	}
	if !n.repo.has(p.peer, result) || !n.repo.has(c.peer, payload[0]) {
		t.Error("what is wanted was let go, too")
	}
}
