package fake

import (
	"math/big"
	"strings"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func (t *Task) deliver(d *taskv1.DeliverEvent) *taskv1.SessionResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	ev := d.GetEvent()
	if t.seen[ev.GetId()] {
		return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 1, Reason: "REPEATED"}}
	}
	t.delivered = append(t.delivered, d)
	var r *taskv1.SessionResponse
	switch ev.GetType() {
	case eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION:
		r = t.submissionLocked(d)
	case eventv1.EventType_EVENT_TYPE_TASK_ACCEPTED:
		var m eventv1.TaskAccepted
		r = t.aboutLocked(ev, &m, func() *taskv1.SessionResponse {
			return &taskv1.SessionResponse{Task: t.changeLocked(m.GetTaskId(), "ACCEPTED", "ACCEPTED", d.GetFromPeer(), "")}
		})
	case eventv1.EventType_EVENT_TYPE_TASK_REDIRECTED:
		r = t.redirectedLocked(d)
	case eventv1.EventType_EVENT_TYPE_TASK_REFUSED:
		var m eventv1.TaskRefused
		r = t.aboutLocked(ev, &m, func() *taskv1.SessionResponse {
			return t.againLocked(m.GetTaskId(), d.GetFromPeer(), m.GetReason(), "REFUSED")
		})
	case eventv1.EventType_EVENT_TYPE_TASK_RESULT:
		r = t.resultLocked(d)
	default:
		r = &taskv1.SessionResponse{}
	}
	if r.Delivered == nil {
		r.Delivered = &taskv1.Delivered{}
	}
	if r.GetDelivered().GetVerdict() == 0 {
		t.seen[ev.GetId()] = true
	}
	return r
}

func (t *Task) aboutLocked(ev *eventv1.Event, m interface {
	proto.Message
	GetTaskId() string
}, f func() *taskv1.SessionResponse) *taskv1.SessionResponse {
	if proto.Unmarshal(ev.GetPayload(), m) != nil || t.tasks[m.GetTaskId()] == nil {
		return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2, Reason: "TASK_UNKNOWN"}}
	}
	if x := t.tasks[m.GetTaskId()]; x.GetState() == "COMPLETED" {
		return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 1, Reason: "LATE"}}
	}
	return f()
}

func (t *Task) redirectedLocked(d *taskv1.DeliverEvent) *taskv1.SessionResponse {
	var m eventv1.TaskRedirected
	return t.aboutLocked(d.GetEvent(), &m, func() *taskv1.SessionResponse {
		var a eventv1.Announcement
		if proto.Unmarshal(m.GetAnnouncement().GetPayload(), &a) != nil {
			return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2}}
		}
		t.tasks[m.GetTaskId()].Provider = a.GetPeerId()
		return &taskv1.SessionResponse{Task: t.changeLocked(m.GetTaskId(), "", "REDIRECTED", a.GetPeerId(), m.GetReason())}
	})
}

func (t *Task) resultLocked(d *taskv1.DeliverEvent) *taskv1.SessionResponse {
	var m eventv1.TaskResult
	return t.aboutLocked(d.GetEvent(), &m, func() *taskv1.SessionResponse {
		id := m.GetTaskId()
		x := t.tasks[id]
		if x.GetProvider() != d.GetEvent().GetAuthor() {
			return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2, Reason: "NOT_THE_PROVIDER"}}
		}
		t.stdout[id] = d.GetEvent().GetAttachment()
		x.ExitCode = proto.Int32(0)
		x.Result = &taskv1.ResultInfo{Available: true, StdoutSize: uint64(len(t.stdout[id]))}
		r := &taskv1.SessionResponse{Task: t.changeLocked(id, "COMPLETED", "RESULT", d.GetFromPeer(), "")}
		t.stdoutLocked(r)
		return r
	})
}

// ---- provider

func (t *Task) submissionLocked(d *taskv1.DeliverEvent) *taskv1.SessionResponse {
	var sub eventv1.TaskSubmission
	consumer := d.GetFromPeer()
	var path []string
	signed := d.GetEvent()
	if d.GetEvent().GetType() == eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION {
		var f eventv1.TaskForceSubmission
		if proto.Unmarshal(d.GetEvent().GetPayload(), &f) != nil {
			return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2}}
		}
		signed, path = f.GetSubmission(), f.GetPath()
		consumer = signed.GetAuthor()
	}
	if proto.Unmarshal(signed.GetPayload(), &sub) != nil {
		return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2}}
	}
	decide := Decision{}
	if t.Evaluate != nil {
		decide = t.Evaluate(&sub, d)
	}
	id, n := sub.GetTaskId(), sub.GetAttempt()
	switch {
	case decide.Refuse != "":
		out := t.sendLocked(id, consumer, nil, eventv1.EventType_EVENT_TYPE_TASK_REFUSED, &eventv1.TaskRefused{TaskId: id, Attempt: n, Reason: decide.Refuse}, nil, false, 0)
		return &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{out}}
	case decide.RedirectTo != nil && len(path) == 0:
		c := decide.RedirectTo
		force := t.sendLocked(id, c.GetPeerId(), c.GetAddresses(), eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION,
			&eventv1.TaskForceSubmission{Submission: withoutAttachment(signed), Path: []string{d.GetOwnPeerId()}}, d.GetEvent().GetAttachment(), false, 0)
		tell := t.sendLocked(id, consumer, nil, eventv1.EventType_EVENT_TYPE_TASK_REDIRECTED,
			&eventv1.TaskRedirected{TaskId: id, Attempt: n, Announcement: c.GetAnnouncement(), Reason: "BUSY"}, nil, false, 0)
		return &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{force, tell}}
	}
	input := d.GetEvent().GetAttachment()
	if decide.Wait == nil {
		return &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{t.runLocked(id, n, consumer, input)}}
	}
	out := t.sendLocked(id, consumer, nil, eventv1.EventType_EVENT_TYPE_TASK_ACCEPTED, &eventv1.TaskAccepted{TaskId: id, Attempt: n}, nil, false, 0)
	go func() {
		<-decide.Wait
		t.mu.Lock()
		r := &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{t.runLocked(id, n, consumer, input)}}
		t.mu.Unlock()
		t.push(r)
	}()
	return &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{out}}
}

func withoutAttachment(ev *eventv1.Event) *eventv1.Event {
	c := proto.CloneOf(ev)
	c.Attachment = nil
	return c
}

func (t *Task) runLocked(id string, attempt uint32, consumer string, input []byte) *taskv1.OutboxEvent {
	t.executed++
	sum := new(big.Rat)
	for _, a := range strings.Fields(string(input)) {
		if r, ok := new(big.Rat).SetString(a); ok {
			sum.Add(sum, r)
		}
	}
	out := sum.FloatString(0)
	if n, ok := strings.CutPrefix(string(input), "0 "); ok && strings.HasPrefix(n, "fill") { // a large result, for tests
		out = strings.Repeat("x", 100_000)
	}
	return t.sendLocked(id, consumer, nil, eventv1.EventType_EVENT_TYPE_TASK_RESULT, &eventv1.TaskResult{TaskId: id, Attempt: attempt}, []byte(out), true, 0)
}
