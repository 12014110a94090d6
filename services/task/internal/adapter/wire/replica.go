package wire

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func toReplica(b domain.Body) proto.Message {
	switch b := b.(type) {
	case *domain.ReplicaRequestEvent:
		m := &eventv1.TaskReplicaRequest{TaskId: b.TaskID, Attempt: b.Attempt, Submission: Event(&b.Submission), Keep: Duration(b.Keep)}
		if b.Result != nil {
			m.Outcome = &eventv1.TaskReplicaRequest_Result{Result: toResult(b.Result)}
		} else if b.Failure != nil {
			m.Outcome = &eventv1.TaskReplicaRequest_Failure{Failure: toFailure(b.Failure)}
		}
		return m
	case *domain.ReplicaAnswerEvent:
		return &eventv1.TaskReplicaAnswer{TaskId: b.TaskID, Attempt: b.Attempt, Consumer: b.Consumer, Kept: b.Kept, Reason: b.Reason}
	case *domain.ReplicasEvent:
		m := &eventv1.TaskReplicas{TaskId: b.TaskID, Attempt: b.Attempt}
		for i := range b.Replicas {
			r := &b.Replicas[i]
			m.Replicas = append(m.Replicas, &eventv1.TaskReplica{PeerId: r.Peer, State: r.State.String(), Reason: r.Reason})
		}
		return m
	case *domain.ReplicaResultEvent:
		return &eventv1.TaskReplicaResult{TaskId: b.TaskID, Attempt: b.Attempt, Request: Event(&b.Request)}
	}
	panic(fmt.Sprintf("encode %T: not an event about replicas", b))
}

func replicaRequest(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskReplicaRequest
	c.unmarshal(payload, &m)
	if m.Submission == nil || m.Submission.Type != eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION || m.Submission.Author == "" || len(m.Submission.Attachment) > 0 {
		c.fail("submission is not a signed TaskSubmission event without attachment")
	}
	r := &domain.ReplicaRequestEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), Submission: c.event("submission", m.Submission), Keep: c.duration("keep", m.Keep)}
	switch {
	case m.GetResult() != nil:
		r.Result = c.result(m.GetResult())
		c.same(r.TaskID, r.Attempt, r.Result.TaskID, r.Result.Attempt)
	case m.GetFailure() != nil:
		r.Failure = c.failure(m.GetFailure())
		c.same(r.TaskID, r.Attempt, r.Failure.TaskID, r.Failure.Attempt)
	default:
		c.fail("neither result nor failure is set")
	}
	return r
}

// same makes sure that what is inside an event is of its attempt.
func (c *checker) same(id string, attempt uint32, innerID string, inner uint32) {
	if id != innerID || attempt != inner {
		c.fail("the outcome is another attempt's")
	}
}

func replicaAnswer(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskReplicaAnswer
	c.unmarshal(payload, &m)
	return &domain.ReplicaAnswerEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), Consumer: c.peer("consumer", m.Consumer),
		Kept: m.Kept, Reason: c.upper("reason", m.Reason)}
}

func replicas(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskReplicas
	c.unmarshal(payload, &m)
	r := &domain.ReplicasEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt)}
	if len(m.Replicas) > domain.MaxNamed {
		c.fail("replicas has %d entries: it may have %d", len(m.Replicas), domain.MaxNamed)
		return r
	}
	for _, x := range m.Replicas {
		state, ok := domain.ParseReplicaState(c.upper("state", x.GetState()))
		if !ok || state < domain.ReplicaKept { // one that is not known yet: nothing to count on
			state = domain.ReplicaSilent
		}
		r.Replicas = append(r.Replicas, domain.Replica{Peer: c.peer("peer_id", x.GetPeerId()), State: state, Reason: c.upper("reason", x.GetReason())})
	}
	return r
}

func replicaResult(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskReplicaResult
	c.unmarshal(payload, &m)
	if m.Request == nil || m.Request.Type != eventv1.EventType_EVENT_TYPE_TASK_REPLICA_REQUEST || m.Request.Author == "" || len(m.Request.Attachment) > 0 {
		c.fail("request is not a signed TaskReplicaRequest event without attachment")
	}
	return &domain.ReplicaResultEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), Request: c.event("request", m.Request)}
}
