package component_test

import (
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// TestSealsNameWhatIsKnown: the second task of a persona at a provider names what the first was sealed under, in a twentieth of the room. A provider that was restarted does not know it:
// the task is sealed anew and sent to it again, and nobody notices. Another persona names nothing.
func TestSealsNameWhatIsKnown(t *testing.T) {
	t.Parallel()
	n, s := anonymousNetwork(t), newScript()
	p, c := n.addProvider(anonymously(withScript(s, 2))), n.addConsumer(anonymousConsumer)
	var mu sync.Mutex
	var sealed []int
	n.setRoute(func(_, _ string, ev *eventv1.Event) action {
		var m eventv1.SealedPayload
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION && proto.Unmarshal(ev.GetAttachment(), &m) == nil {
			mu.Lock()
			defer mu.Unlock()
			sealed = append(sealed, len(m.GetSealedKey()))
		}
		return pass
	})
	c.mu.Lock()
	c.candidates = func(need *taskv1.PlacementNeeded) *taskv1.Candidate {
		if need.GetExcluded()[p.peer] != "" {
			return nil
		}
		to := p.candidate()
		to.Persona = "one"
		return to
	}
	c.mu.Unlock()
	run := func(persona string) *taskv1.Task {
		return c.await(c.submitAs(persona, scriptSpec(step{Name: "a", Stdout: 1}), p), "COMPLETED")
	}
	run("one")
	run("one")
	run("two")
	p.restart()
	task := run("one")
	if !slices.Contains(happened(task), "REFUSED") || task.GetAttempts() != 2 {
		t.Errorf("the provider has forgotten, and the task says %v", details(task))
	}
	run("one")
	mu.Lock()
	defer mu.Unlock()
	const whole, named = 1201, 65
	if want := []int{whole, named, whole, named, whole, whole}; !slices.Equal(sealed, want) {
		t.Errorf("sealed keys have %v bytes, want %v", sealed, want)
	}
}
