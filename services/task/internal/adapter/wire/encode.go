package wire

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Codec implements app.Codec.
type Codec struct{}

var _ app.Codec = Codec{}

var marshal = proto.MarshalOptions{Deterministic: true} // a payload is signed and hashed

func encode(m proto.Message) []byte {
	b, err := marshal.Marshal(m)
	if err != nil { // only text that is not UTF-8 does that, and everything that comes in is checked
		panic(fmt.Sprintf("encode %T: %v", m, err))
	}
	return b
}

// Encode is the payload of an event.
func (Codec) Encode(b domain.Body) []byte { return encode(toProto(b)) }

func toProto(b domain.Body) proto.Message {
	switch b := b.(type) {
	case *domain.Submission:
		return &eventv1.TaskSubmission{TaskId: b.TaskID, Attempt: b.Attempt, Type: b.Type, Limits: Limits(b.Limits),
			ResultRecipient: b.Recipient, PayloadHash: b.PayloadHash[:], PayloadSize: uint64(b.PayloadSize),
			PayloadCid: b.PayloadCID, Redirect: b.Redirect, Keep: Duration(b.Keep), ReferenceSize: uint64(b.RefSize), Copies: b.Copies, ReplicaPeers: b.Named, Puzzle: b.Paid}
	case *domain.ForceSubmission:
		return &eventv1.TaskForceSubmission{Submission: Event(&b.Submission), Path: b.Path}
	case *domain.AcceptedEvent:
		return &eventv1.TaskAccepted{TaskId: b.TaskID, Attempt: b.Attempt, QueuePosition: b.QueuePosition, Replicas: b.Replicas}
	case *domain.RedirectedEvent:
		return &eventv1.TaskRedirected{TaskId: b.TaskID, Attempt: b.Attempt, Announcement: Event(&b.Announcement), Reason: b.Reason}
	case *domain.RefusedEvent:
		return &eventv1.TaskRefused{TaskId: b.TaskID, Attempt: b.Attempt, Reason: b.Reason, Message: b.Message, RetryAfter: Duration(b.RetryAfter), Puzzle: Puzzle(b.Puzzle)}
	case *domain.ProgressEvent:
		m := &eventv1.TaskProgress{Tasks: make([]*eventv1.TaskProgressEntry, len(b.Tasks))}
		for i, t := range b.Tasks {
			m.Tasks[i] = &eventv1.TaskProgressEntry{TaskId: t.TaskID, Attempt: t.Attempt, State: t.State.String(), QueuePosition: t.QueuePosition}
			if p := t.Progress; p != nil {
				m.Tasks[i].Fraction, m.Tasks[i].Text = &p.Fraction, p.Text
			}
		}
		return m
	case *domain.LogEvent:
		return &eventv1.TaskLog{TaskId: b.TaskID, Attempt: b.Attempt, Offset: uint64(b.Offset), Data: b.Data}
	case *domain.ResultEvent:
		return toResult(b)
	case *domain.FailureEvent:
		return toFailure(b)
	default:
		return toProtoSmall(b)
	}
}

func toResult(b *domain.ResultEvent) *eventv1.TaskResult {
	return &eventv1.TaskResult{TaskId: b.TaskID, Attempt: b.Attempt, Type: b.Type, ProgramHash: b.ProgramHash[:], PayloadHash: b.PayloadHash[:],
		ResultHash: b.ResultHash[:], ResultSize: uint64(b.ResultSize), ResultCid: b.ResultCID, ExitCode: b.ExitCode,
		Limits: Limits(b.Limits), Usage: Usage(b.Usage)}
}

func toFailure(b *domain.FailureEvent) *eventv1.TaskFailure {
	m := &eventv1.TaskFailure{TaskId: b.TaskID, Attempt: b.Attempt, Type: b.Type, Cause: eventv1.TaskFailureCause(b.Cause),
		Reason: b.Reason, Message: b.Message, Usage: Usage(b.Usage), ResultSize: uint64(b.ResultSize), ResultCid: b.ResultCID, PayloadHash: b.PayloadHash[:]}
	if !b.ResultHash.IsZero() {
		m.ResultHash = b.ResultHash[:]
	}
	return m
}

func toProtoSmall(b domain.Body) proto.Message {
	switch b := b.(type) {
	case *domain.CancelEvent:
		return &eventv1.TaskCancel{TaskId: b.TaskID, Attempt: b.Attempt}
	case *domain.QueryEvent:
		return &eventv1.TaskQuery{Tasks: refs(b.Tasks)}
	case *domain.CollectedEvent:
		return &eventv1.TaskCollected{Tasks: refs(b.Tasks)}
	case *domain.StatusEvent:
		state := "UNKNOWN"
		if b.State != 0 {
			state = b.State.String()
		}
		return &eventv1.TaskStatus{TaskId: b.TaskID, Attempt: b.Attempt, State: state}
	case *domain.ReplicaRequestEvent, *domain.ReplicaAnswerEvent, *domain.ReplicasEvent, *domain.ReplicaResultEvent:
		return toReplica(b)
	case *domain.Announcement:
		return &eventv1.Announcement{PeerId: b.PeerID, SealingKey: b.SealingKey, Addresses: b.Addresses}
	}
	panic(fmt.Sprintf("encode %T: not an event", b))
}

func refs(rs []domain.Ref) []*eventv1.TaskRef {
	out := make([]*eventv1.TaskRef, len(rs))
	for i, r := range rs {
		out[i] = &eventv1.TaskRef{TaskId: r.TaskID, Attempt: r.Attempt}
	}
	return out
}

// Event is the envelope; nil for the zero event.
func Event(e *domain.Event) *eventv1.Event {
	if e.Type == 0 && e.ID == "" {
		return nil
	}
	return &eventv1.Event{Id: e.ID, Type: eventv1.EventType(e.Type), Payload: e.Payload, Attachment: e.Attachment, Author: e.Author, Signature: e.Signature}
}

// Limits translates limits; nil when none is set.
func Limits(l domain.Limits) *eventv1.Limits {
	if l == (domain.Limits{}) {
		return nil
	}
	return &eventv1.Limits{Time: Duration(l.Time), Memory: uint64(l.Memory), Output: uint64(l.Output)}
}

// Usage translates usage.
func Usage(u domain.Usage) *eventv1.Usage {
	return &eventv1.Usage{Wall: Duration(u.Wall), Cpu: Duration(u.CPU), PeakMemory: uint64(u.PeakMemory), Output: uint64(u.Output)}
}

// Duration translates a duration; nil for none.
func Duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// EncodeSealed is a submission's attachment.
func (Codec) EncodeSealed(sealedKey, ciphertext []byte) []byte {
	return encode(&eventv1.SealedPayload{SealedKey: sealedKey, Ciphertext: ciphertext})
}

// EncodePayloadHeader is a payload's header, without its length.
func (Codec) EncodePayloadHeader(h *app.PayloadHeader) []byte {
	return encode(&taskv1.PayloadHeader{TaskId: h.TaskID, Type: h.Type, Options: h.Options, Parts: parts(h.Parts), Padding: uint64(h.Padding), ResultKey: h.ResultKey})
}

// EncodeResultHeader is a result's header, without its length.
func (Codec) EncodeResultHeader(h *app.ResultHeader) []byte {
	return encode(&taskv1.ResultHeader{TaskId: h.TaskID, ExitCode: h.ExitCode, Reason: h.Reason, Message: h.Message, Usage: Usage(h.Usage), Parts: parts(h.Parts), Padding: uint64(h.Padding)})
}

func parts(ps []domain.Part) []*taskv1.PartInfo {
	out := make([]*taskv1.PartInfo, len(ps))
	for i := range ps {
		out[i] = &taskv1.PartInfo{Name: ps[i].Name, Size: uint64(ps[i].Size), Sha256: ps[i].SHA256[:]}
		if r := ps[i].Ref; r != nil {
			out[i].Reference = &taskv1.Reference{Cid: r.CID, Key: r.Key, Size: uint64(r.Size), Padding: uint64(r.Padding)}
		}
	}
	return out
}
