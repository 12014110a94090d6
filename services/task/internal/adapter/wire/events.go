package wire

import (
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/signature"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func submission(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskSubmission
	c.unmarshal(payload, &m)
	s := &domain.Submission{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), Type: c.text("type", m.Type, maxType),
		Limits: c.limits(m.Limits), Recipient: c.text("result_recipient", m.ResultRecipient, maxKey), PayloadHash: c.hash("payload_hash", m.PayloadHash),
		PayloadSize: c.size("payload_size", m.PayloadSize), PayloadCID: c.text("payload_cid", m.PayloadCid, maxCID),
		Redirect: m.Redirect, Keep: c.duration("keep", m.Keep), RefSize: c.size("reference_size", m.ReferenceSize),
		Copies: m.Copies, Named: c.peers("replica_peers", m.ReplicaPeers, domain.MaxNamed), Paid: m.Puzzle}
	if _, ok := domain.ParsePayment(m.Puzzle); !ok {
		c.fail("puzzle has %d bytes: it has none, or %d that begin with the bits of an effort", len(m.Puzzle), domain.PaymentSize)
	}
	if s.Copies >= domain.MaxReplicas {
		c.fail("copies is %d: it may be %d", s.Copies, domain.MaxReplicas-1)
	}
	if s.Type == "" {
		c.fail("type must be set")
	}
	if s.Recipient == "" && s.Redirect {
		c.fail("result_recipient must be set where the task may be handed on")
	}
	return s
}

func forceSubmission(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskForceSubmission
	c.unmarshal(payload, &m)
	if m.Submission == nil || m.Submission.Type != eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION || m.Submission.Author == "" {
		c.fail("submission is not a signed TaskSubmission event")
	}
	if len(m.Path) == 0 {
		c.fail("path is empty: it names the peers that had the task before")
	}
	return &domain.ForceSubmission{Submission: c.event("submission", m.Submission), Path: c.peers("path", m.Path, domain.MaxHops)}
}

func (c *checker) event(name string, e *eventv1.Event) domain.Event {
	if e.GetAuthor() != "" {
		c.peer(name+".author", e.GetAuthor())
	}
	if len(e.GetSignature()) > signature.MaxSize {
		c.fail("%s.signature has %d bytes", name, len(e.GetSignature()))
	}
	return FromEvent(e)
}

// FromEvent translates an envelope; its bytes are shared.
func FromEvent(e *eventv1.Event) domain.Event {
	return domain.Event{ID: e.GetId(), Type: domain.EventType(e.GetType()), Payload: e.GetPayload(), Attachment: e.GetAttachment(),
		Author: e.GetAuthor(), Signature: e.GetSignature()}
}

func accepted(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskAccepted
	c.unmarshal(payload, &m)
	return &domain.AcceptedEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt),
		QueuePosition: c.count(uint64(m.QueuePosition)), Replicas: c.peers("replicas", m.Replicas, maxPeers)}
}

func redirected(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskRedirected
	c.unmarshal(payload, &m)
	if m.Announcement == nil || m.Announcement.Type != eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT || m.Announcement.Author == "" {
		c.fail("announcement is not a signed Announcement event")
	}
	return &domain.RedirectedEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt),
		Announcement: c.event("announcement", m.Announcement), Reason: c.text("reason", m.Reason, maxMessage)}
}

func announcement(c *checker, payload []byte) domain.Body {
	var m eventv1.Announcement
	c.unmarshal(payload, &m)
	if len(m.Addresses) > 16 {
		c.fail("addresses has %d entries: it may have 16", len(m.Addresses))
	}
	for _, a := range m.Addresses {
		c.text("addresses", a, maxAddress)
	}
	return &domain.Announcement{PeerID: c.peer("peer_id", m.PeerId), SealingKey: c.text("sealing_key", m.SealingKey, maxKey), Addresses: m.Addresses}
}

func refused(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskRefused
	c.unmarshal(payload, &m)
	return &domain.RefusedEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), Reason: c.upper("reason", m.Reason),
		Message: c.text("message", m.Message, maxMessage), RetryAfter: c.duration("retry_after", m.RetryAfter), Puzzle: c.puzzle(m.Puzzle)}
}

func progress(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskProgress
	c.unmarshal(payload, &m)
	if len(m.Tasks) > maxRefs {
		c.fail("%d tasks are named: %d may be", len(m.Tasks), maxRefs)
		return nil
	}
	out := &domain.ProgressEvent{Tasks: make([]domain.ProgressEntry, len(m.Tasks))}
	for i, t := range m.Tasks {
		r := c.ref(t.GetTaskId(), t.GetAttempt(), false)
		state, _ := domain.ParseState(c.upper("state", t.GetState()))
		out.Tasks[i] = domain.ProgressEntry{TaskID: r.TaskID, Attempt: r.Attempt, State: state, QueuePosition: c.count(uint64(t.GetQueuePosition()))}
		if t.Fraction != nil {
			out.Tasks[i].Progress = &domain.Progress{Fraction: c.fraction("fraction", t.GetFraction()), Text: c.text("text", t.GetText(), domain.MaxProgressText)}
		}
	}
	return out
}

func logEvent(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskLog
	c.unmarshal(payload, &m)
	return &domain.LogEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), Offset: c.size("offset", m.Offset), Data: m.Data}
}

func result(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskResult
	c.unmarshal(payload, &m)
	return c.result(&m)
}

func (c *checker) result(m *eventv1.TaskResult) *domain.ResultEvent {
	return &domain.ResultEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), Type: c.text("type", m.Type, maxType),
		ProgramHash: c.hash("program_hash", m.ProgramHash), PayloadHash: c.hash("payload_hash", m.PayloadHash), ResultHash: c.hash("result_hash", m.ResultHash),
		ResultSize: c.size("result_size", m.ResultSize), ResultCID: c.text("result_cid", m.ResultCid, maxCID), ExitCode: m.ExitCode,
		Limits: c.limits(m.Limits), Usage: c.usage(m.Usage)}
}

func failure(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskFailure
	c.unmarshal(payload, &m)
	return c.failure(&m)
}

func (c *checker) failure(m *eventv1.TaskFailure) *domain.FailureEvent {
	if m.Cause < eventv1.TaskFailureCause_TASK_FAILURE_CAUSE_PROGRAM || m.Cause > eventv1.TaskFailureCause_TASK_FAILURE_CAUSE_CANCELLED {
		m.Cause = eventv1.TaskFailureCause_TASK_FAILURE_CAUSE_PROVIDER // one that is not known yet: worth trying elsewhere
	}
	f := &domain.FailureEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), Type: c.text("type", m.Type, maxType),
		Cause: domain.Cause(m.Cause), Reason: c.upper("reason", m.Reason), Message: c.text("message", m.Message, maxMessage), Usage: c.usage(m.Usage),
		ResultHash: c.hashOrNone("result_hash", m.ResultHash), ResultSize: c.size("result_size", m.ResultSize),
		ResultCID: c.text("result_cid", m.ResultCid, maxCID), PayloadHash: c.hash("payload_hash", m.PayloadHash)}
	if f.Reason == "" {
		f.Reason = "FAILED"
	}
	return f
}

func cancel(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskCancel
	c.unmarshal(payload, &m)
	r := domain.CancelEvent(c.ref(m.TaskId, m.Attempt, true)) // 0: every attempt
	return &r
}

func query(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskQuery
	c.unmarshal(payload, &m)
	return &domain.QueryEvent{Tasks: c.refs(m.Tasks, false)}
}

func collected(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskCollected
	c.unmarshal(payload, &m)
	return &domain.CollectedEvent{Tasks: c.refs(m.Tasks, false)}
}

func status(c *checker, payload []byte) domain.Body {
	var m eventv1.TaskStatus
	c.unmarshal(payload, &m)
	state, _ := domain.ParseState(c.upper("state", m.State))
	return &domain.StatusEvent{TaskID: c.id("task_id", m.TaskId), Attempt: c.attempt(m.Attempt), State: state}
}

// DecodeSealed reads a submission's attachment.
func (Codec) DecodeSealed(attachment []byte) (sealedKey, ciphertext []byte, err error) {
	var m eventv1.SealedPayload
	if proto.Unmarshal(attachment, &m) != nil || len(m.SealedKey) == 0 || len(m.SealedKey) > 8<<10 {
		return nil, nil, errNotSealed
	}
	return m.SealedKey, m.Ciphertext, nil
}
