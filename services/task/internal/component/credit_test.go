package component_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

// unopened is a submission of this consumer's whose payload nobody can open.
func (nd *node) unopened(number int, memory uint64, redirect bool) *eventv1.Event {
	nd.t.Helper()
	ciphertext := []byte(fmt.Sprint("nonsense ", number))
	hash := sha256.Sum256(ciphertext)
	payload, err := proto.Marshal(&eventv1.TaskSubmission{TaskId: fmt.Sprintf("%032x", number), Attempt: 1, Type: "sum", ResultRecipient: "age1pq1nobody",
		Limits: &eventv1.Limits{Memory: memory}, PayloadHash: hash[:], PayloadSize: uint64(len(ciphertext)), Keep: durationpb.New(time.Hour), Redirect: redirect})
	if err != nil {
		nd.t.Fatal(err)
	}
	ev := &eventv1.Event{Id: fmt.Sprintf("%032x", 1<<20+number), Type: eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, Payload: payload}
	nd.sign(ev)
	ev.Attachment = nd.sealedBadly(ciphertext)
	return ev
}

func (nd *node) sealedBadly(ciphertext []byte) []byte {
	nd.t.Helper()
	b, err := proto.Marshal(&eventv1.SealedPayload{SealedKey: make([]byte, 1201), Ciphertext: ciphertext})
	if err != nil {
		nd.t.Fatal(err)
	}
	return b
}

// A peer whose payloads cannot be opened is told so for each, until it is clear that it goes on: then its submissions are rejected without another word, which
// its broker is told and this node's broker counts. What comes too fast is refused with a time after which to try again.
func TestSubmissionsThatCostTooMuch(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p := n.addProvider(nil)
	c := n.addConsumer(nil)
	for attempt := range 200 {
		out, err := p.deliver(c.peer, c.unopened(attempt, 0, false))
		if err != nil {
			t.Fatal(err)
		}
		if out.GetReason() == "TOO_MANY_FAULTS" {
			if attempt < 50 {
				t.Errorf("after %d it is enough", attempt)
			}
			return
		}
	}
	t.Error("200 payloads that cannot be opened are not too many")
}

// Who hands tasks on chooses the provider and seals the payload's key to it. What is wrong with that is not held against the consumer, or a hostile provider
// could have others shut out whoever gives it work.
func TestWhatIsHandedOnCostsItsConsumerNothing(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, liar, c := n.addProvider(nil), n.addProvider(nil), n.addConsumer(nil)
	for number := range 200 {
		memory := uint64(0)
		if number%2 == 0 {
			memory = 1 << 50 // more than p grants, of which the consumer knew nothing
		}
		signed := c.unopened(number, memory, true)
		attachment := signed.GetAttachment()
		signed.Attachment = nil
		payload, err := proto.Marshal(&eventv1.TaskForceSubmission{Submission: signed, Path: []string{liar.peer}})
		if err != nil {
			t.Fatal(err)
		}
		force := &eventv1.Event{Id: fmt.Sprintf("%032x", 1<<21+number), Type: eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION, Payload: payload, Attachment: attachment}
		if out, err := p.deliver(liar.peer, force); err != nil || out.GetVerdict() == 2 {
			t.Fatalf("what was handed on is not looked at: %v, %v", out, err)
		}
	}
	if task := c.await(c.submit(sumSpec("1", "2"), p)); task.GetState() != "COMPLETED" || task.GetAttempts() != 1 {
		t.Errorf("the consumer's own task is %s: %v", task.GetState(), details(task))
	}
}

// One consumer may have so many unfinished tasks at a provider; what is more is refused, and costs another consumer nothing.
func TestUnfinishedTasksOfOnePeer(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p := n.addProvider(func(c *provider.Config) {
		withScript(s, 1)(c)
		c.Policy.PerPeer = 2
	})
	much, little := n.addConsumer(nil), n.addConsumer(nil)
	var ids []string
	for range 2 {
		ids = append(ids, much.submit(scriptSpec(step{Name: "a", Wait: true}), p))
	}
	much.await(ids[0], "RUNNING")
	much.await(ids[1], "ACCEPTED")
	third := much.submit(scriptSpec(step{Name: "a", Wait: true}), p)
	until(t, "the third is refused for that reason", func() bool {
		for _, h := range much.get(third).GetHistory() {
			if strings.Contains(h.GetDetail(), "PEER_QUOTA") {
				return true
			}
		}
		return false
	})
	other := little.submit(scriptSpec(step{Name: "a", Wait: true}), p)
	little.await(other, "ACCEPTED")
	close(s.gate("a"))
	for _, id := range ids {
		much.await(id, "COMPLETED")
	}
	little.await(other, "COMPLETED")
}
