// Package record is how tasks, journal entries and jobs are encoded in stores, and by what stores find them.
package record

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Records of tasks and entries, the same in every store. The first version wrote JSON, which begins with a brace: the tag of a group numbered 15, and so neither a group
// nor that number is used here.

// AppendTask is a task's record.
func AppendTask(t *domain.Task) []byte { return taskFields.append(make([]byte, 0, 1024), t) }

// AppendEntry is a journal entry's record.
func AppendEntry(e *domain.Entry) []byte { return entryFields.append(make([]byte, 0, 512), e) }

// ReadTask reads what AppendTask made.
func ReadTask(b []byte) (*domain.Task, error) { return read(b, taskFields, "task") }

// ReadEntry reads what AppendEntry made.
func ReadEntry(b []byte) (*domain.Entry, error) { return read(b, entryFields, "journal entry") }

func read[T any](b []byte, m message[T], what string) (*T, error) {
	v := new(T)
	var err error
	if len(b) > 0 && b[0] == '{' {
		err = json.Unmarshal(b, v)
	} else {
		err = m.read(b, v)
	}
	if err != nil {
		return nil, fmt.Errorf("a stored %s cannot be read: %w", what, err)
	}
	return v, nil
}

// AppendJob is a job's record. Jobs are few, and written seldom: JSON is good enough for them.
func AppendJob(j *domain.Job) []byte {
	b, err := json.Marshal(j)
	if err != nil { // it has nothing that JSON does not know
		panic(fmt.Sprintf("encode a job: %v", err))
	}
	return b
}

// ReadJob reads what AppendJob made.
func ReadJob(b []byte) (*domain.Job, error) {
	j := &domain.Job{}
	if err := json.Unmarshal(b, j); err != nil {
		return nil, fmt.Errorf("a stored job cannot be read: %w", err)
	}
	return j, nil
}

var limitsFields = message[domain.Limits]{
	number(1, func(v *domain.Limits) *time.Duration { return &v.Time }),
	number(2, func(v *domain.Limits) *int64 { return &v.Memory }),
	number(3, func(v *domain.Limits) *int64 { return &v.Output }),
}

var usageFields = message[domain.Usage]{
	number(1, func(v *domain.Usage) *time.Duration { return &v.Wall }),
	number(2, func(v *domain.Usage) *time.Duration { return &v.CPU }),
	number(3, func(v *domain.Usage) *int64 { return &v.PeakMemory }),
	number(4, func(v *domain.Usage) *int64 { return &v.Output }),
}

var partFields = message[domain.Part]{
	text(1, func(v *domain.Part) *string { return &v.Name }),
	number(2, func(v *domain.Part) *int64 { return &v.Size }),
	hash(3, func(v *domain.Part) *domain.Hash { return &v.SHA256 }),
}

var failureFields = message[domain.Failure]{
	text(1, func(v *domain.Failure) *string { return &v.Reason }),
	text(2, func(v *domain.Failure) *string { return &v.Message }),
}

var policyFields = message[domain.Policy]{
	flagged(1, func(v *domain.Policy) *bool { return &v.Redirect }),
	texts(2, func(v *domain.Policy) *[]string { return &v.Only }),
	texts(3, func(v *domain.Policy) *[]string { return &v.Exclude }),
	number(4, func(v *domain.Policy) *uint32 { return &v.MaxAttempts }),
	number(5, func(v *domain.Policy) *uint32 { return &v.Replicas }),
}

var clocksFields = message[domain.Clocks]{
	number(1, func(v *domain.Clocks) *time.Duration { return &v.Placement }),
	number(2, func(v *domain.Clocks) *time.Duration { return &v.Queue }),
	number(3, func(v *domain.Clocks) *time.Duration { return &v.Run }),
	number(4, func(v *domain.Clocks) *time.Duration { return &v.Collection }),
	number(5, func(v *domain.Clocks) *time.Duration { return &v.Total }),
}

var exclusionFields = message[domain.Exclusion]{
	text(1, func(v *domain.Exclusion) *string { return &v.Reason }),
	moment(2, func(v *domain.Exclusion) *time.Time { return &v.Until }),
}

var historyEntryFields = message[domain.HistoryEntry]{
	moment(1, func(v *domain.HistoryEntry) *time.Time { return &v.At }),
	number(2, func(v *domain.HistoryEntry) *uint32 { return &v.Attempt }),
	number(3, func(v *domain.HistoryEntry) *domain.State { return &v.State }),
	text(4, func(v *domain.HistoryEntry) *string { return &v.What }),
	text(5, func(v *domain.HistoryEntry) *string { return &v.Peer }),
	text(6, func(v *domain.HistoryEntry) *string { return &v.Detail }),
}

var replicaFields = message[domain.Replica]{
	text(1, func(v *domain.Replica) *string { return &v.Peer }),
	texts(2, func(v *domain.Replica) *[]string { return &v.Addresses }),
	number(3, func(v *domain.Replica) *domain.ReplicaState { return &v.State }),
	text(4, func(v *domain.Replica) *string { return &v.Reason }),
	moment(5, func(v *domain.Replica) *time.Time { return &v.AskedAt }),
}

var signedFields = message[domain.Signed]{
	text(1, func(v *domain.Signed) *string { return &v.ID }),
	blob(2, func(v *domain.Signed) *[]byte { return &v.Payload }),
	text(3, func(v *domain.Signed) *string { return &v.Author }),
	blob(4, func(v *domain.Signed) *[]byte { return &v.Signature }),
}

var consideredFields = message[domain.Considered]{
	text(1, func(v *domain.Considered) *string { return &v.Peer }),
	number(2, func(v *domain.Considered) *int64 { return &v.Cost }),
	text(3, func(v *domain.Considered) *string { return &v.Verdict }),
	text(4, func(v *domain.Considered) *string { return &v.Reason }),
}

var choiceFields = message[domain.Choice]{
	text(1, func(v *domain.Choice) *string { return &v.Because }),
	list(2, consideredFields, func(v *domain.Choice) *[]domain.Considered { return &v.Considered }),
	number(3, func(v *domain.Choice) *uint32 { return &v.Known }),
	number(4, func(v *domain.Choice) *uint32 { return &v.Qualified }),
}

var attemptFields = message[domain.Attempt]{
	number(1, func(v *domain.Attempt) *uint32 { return &v.Number }),
	text(2, func(v *domain.Attempt) *string { return &v.Peer }),
	text(3, func(v *domain.Attempt) *string { return &v.Persona }),
	texts(4, func(v *domain.Attempt) *[]string { return &v.Addresses }),
	texts(5, func(v *domain.Attempt) *[]string { return &v.Trail }),
	number(6, func(v *domain.Attempt) *domain.State { return &v.State }),
	moment(7, func(v *domain.Attempt) *time.Time { return &v.SubmittedAt }),
	text(8, func(v *domain.Attempt) *string { return &v.Ended }),
	moment(9, func(v *domain.Attempt) *time.Time { return &v.EndedAt }),
	flagged(11, func(v *domain.Attempt) *bool { return &v.Reported }),
	list(10, replicaFields, func(v *domain.Attempt) *[]domain.Replica { return &v.Replicas }),
	optional(12, choiceFields, func(v *domain.Attempt) **domain.Choice { return &v.Choice }),
}

var receiptFields = message[domain.Receipt]{
	number(1, func(v *domain.Receipt) *uint32 { return &v.Attempt }),
	text(2, func(v *domain.Receipt) *string { return &v.Peer }),
	text(3, func(v *domain.Receipt) *string { return &v.Persona }),
	moment(4, func(v *domain.Receipt) *time.Time { return &v.At }),
	number(5, func(v *domain.Receipt) *domain.Cause { return &v.Cause }),
	number(6, func(v *domain.Receipt) *int32 { return &v.ExitCode }),
	text(7, func(v *domain.Receipt) *string { return &v.Reason }),
	text(8, func(v *domain.Receipt) *string { return &v.Message }),
	nested(9, usageFields, func(v *domain.Receipt) *domain.Usage { return &v.Usage }),
	nested(10, limitsFields, func(v *domain.Receipt) *domain.Limits { return &v.Limits }),
	hash(11, func(v *domain.Receipt) *domain.Hash { return &v.Program }),
	hash(12, func(v *domain.Receipt) *domain.Hash { return &v.Hash }),
	number(13, func(v *domain.Receipt) *int64 { return &v.Size }),
	text(14, func(v *domain.Receipt) *string { return &v.CID }),
}

var resultFields = message[domain.Result]{
	text(1, func(v *domain.Result) *string { return &v.CID }),
	list(2, partFields, func(v *domain.Result) *[]domain.Part { return &v.Parts }),
	flagged(3, func(v *domain.Result) *bool { return &v.InFile }),
}

var shardRefFields = message[domain.ShardRef]{
	text(1, func(v *domain.ShardRef) *string { return &v.Job }),
	number(2, func(v *domain.ShardRef) *uint32 { return &v.Index }),
	number(3, func(v *domain.ShardRef) *uint32 { return &v.Try }),
}

var taskFields = message[domain.Task]{
	text(1, func(v *domain.Task) *string { return &v.ID }),
	text(2, func(v *domain.Task) *string { return &v.RequestID }),
	text(3, func(v *domain.Task) *string { return &v.Type }),
	nested(4, limitsFields, func(v *domain.Task) *domain.Limits { return &v.Limits }),
	nested(5, policyFields, func(v *domain.Task) *domain.Policy { return &v.Policy }),
	nested(6, clocksFields, func(v *domain.Task) *domain.Clocks { return &v.Clocks }),
	dictionary(7, text(2, func(p *pair[string]) *string { return &p.value }), func(v *domain.Task) *map[string]string { return &v.Labels }),
	hash(8, func(v *domain.Task) *domain.Hash { return &v.PayloadHash }),
	number(9, func(v *domain.Task) *int64 { return &v.PayloadSize }),
	text(10, func(v *domain.Task) *string { return &v.PayloadCID }),
	hash(11, func(v *domain.Task) *domain.Hash { return &v.ProgramHash }),
	number(12, func(v *domain.Task) *time.Duration { return &v.Keep }),
	number(13, func(v *domain.Task) *domain.State { return &v.State }),
	list(14, attemptFields, func(v *domain.Task) *[]domain.Attempt { return &v.Attempts }),
	dictionary(16, nested(2, exclusionFields, func(p *pair[domain.Exclusion]) *domain.Exclusion { return &p.value }), func(v *domain.Task) *map[string]domain.Exclusion { return &v.Excluded }),
	moment(17, func(v *domain.Task) *time.Time { return &v.CreatedAt }),
	moment(18, func(v *domain.Task) *time.Time { return &v.WaitingSince }),
	moment(19, func(v *domain.Task) *time.Time { return &v.AcceptedAt }),
	moment(20, func(v *domain.Task) *time.Time { return &v.StartedAt }),
	moment(21, func(v *domain.Task) *time.Time { return &v.CancelAt }),
	moment(22, func(v *domain.Task) *time.Time { return &v.FinishedAt }),
	flagged(23, func(v *domain.Task) *bool { return &v.CancelRequested }),
	optional(24, receiptFields, func(v *domain.Task) **domain.Receipt { return &v.Receipt }),
	maybe(25, func(v *domain.Task) **int32 { return &v.ExitCode }),
	optional(26, failureFields, func(v *domain.Task) **domain.Failure { return &v.Error }),
	nested(27, usageFields, func(v *domain.Task) *domain.Usage { return &v.Usage }),
	optional(28, resultFields, func(v *domain.Task) **domain.Result { return &v.Result }),
	list(29, historyEntryFields, func(v *domain.Task) *[]domain.HistoryEntry { return &v.History }),
	number(30, func(v *domain.Task) *uint64 { return &v.Revision }),
	number(31, func(v *domain.Task) *int64 { return &v.RefSize }),
	optional(32, shardRefFields, func(v *domain.Task) **domain.ShardRef { return &v.Shard }),
	texts(33, func(v *domain.Task) *[]string { return &v.Refs }),
	optional(34, choiceFields, func(v *domain.Task) **domain.Choice { return &v.Unplaced }),
	moment(35, func(v *domain.Task) *time.Time { return &v.UnplacedAt }),
}

var submissionFields = message[domain.Submission]{
	text(1, func(v *domain.Submission) *string { return &v.TaskID }),
	number(2, func(v *domain.Submission) *uint32 { return &v.Attempt }),
	text(3, func(v *domain.Submission) *string { return &v.Type }),
	nested(4, limitsFields, func(v *domain.Submission) *domain.Limits { return &v.Limits }),
	text(5, func(v *domain.Submission) *string { return &v.Recipient }),
	hash(6, func(v *domain.Submission) *domain.Hash { return &v.PayloadHash }),
	number(7, func(v *domain.Submission) *int64 { return &v.PayloadSize }),
	text(8, func(v *domain.Submission) *string { return &v.PayloadCID }),
	flagged(9, func(v *domain.Submission) *bool { return &v.Redirect }),
	number(10, func(v *domain.Submission) *time.Duration { return &v.Keep }),
	number(11, func(v *domain.Submission) *int64 { return &v.RefSize }),
	number(12, func(v *domain.Submission) *uint32 { return &v.Copies }),
	texts(13, func(v *domain.Submission) *[]string { return &v.Named }),
}

var outcomeFields = message[domain.Outcome]{
	number(1, func(v *domain.Outcome) *domain.Cause { return &v.Cause }),
	number(2, func(v *domain.Outcome) *int32 { return &v.ExitCode }),
	text(3, func(v *domain.Outcome) *string { return &v.Reason }),
	text(4, func(v *domain.Outcome) *string { return &v.Message }),
	nested(5, usageFields, func(v *domain.Outcome) *domain.Usage { return &v.Usage }),
	hash(6, func(v *domain.Outcome) *domain.Hash { return &v.Program }),
	hash(7, func(v *domain.Outcome) *domain.Hash { return &v.ResultHash }),
	number(8, func(v *domain.Outcome) *int64 { return &v.ResultSize }),
	text(9, func(v *domain.Outcome) *string { return &v.ResultCID }),
}

var entryFields = message[domain.Entry]{
	text(1, func(v *domain.Entry) *string { return &v.TaskID }),
	text(2, func(v *domain.Entry) *string { return &v.Consumer }),
	text(3, func(v *domain.Entry) *string { return &v.Persona }),
	nested(4, submissionFields, func(v *domain.Entry) *domain.Submission { return &v.Sub }),
	nested(5, limitsFields, func(v *domain.Entry) *domain.Limits { return &v.Limits }),
	texts(6, func(v *domain.Entry) *[]string { return &v.Path }),
	number(7, func(v *domain.Entry) *domain.State { return &v.State }),
	text(8, func(v *domain.Entry) *string { return &v.What }),
	number(9, func(v *domain.Entry) *uint32 { return &v.Runs }),
	moment(10, func(v *domain.Entry) *time.Time { return &v.CreatedAt }),
	moment(11, func(v *domain.Entry) *time.Time { return &v.StartedAt }),
	moment(12, func(v *domain.Entry) *time.Time { return &v.EndedAt }),
	optional(13, outcomeFields, func(v *domain.Entry) **domain.Outcome { return &v.Outcome }),
	flagged(14, func(v *domain.Entry) *bool { return &v.Collected }),
	moment(16, func(v *domain.Entry) *time.Time { return &v.ForgetAt }),
	number(17, func(v *domain.Entry) *uint64 { return &v.Revision }),
	list(18, replicaFields, func(v *domain.Entry) *[]domain.Replica { return &v.Replicas }),
	flagged(19, func(v *domain.Entry) *bool { return &v.Reported }),
	optional(20, signedFields, func(v *domain.Entry) **domain.Signed { return &v.Signed }),
	text(21, func(v *domain.Entry) *string { return &v.Runner }),
}
