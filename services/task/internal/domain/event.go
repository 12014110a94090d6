package domain

import "time"

// EventType says what an event is; the numbers are the contract's.
type EventType uint32

// Types of events about tasks.
const (
	TypeAnnouncement EventType = 1

	TypeSubmission      EventType = 30
	TypeCancel          EventType = 31
	TypeQuery           EventType = 32
	TypeCollected       EventType = 33
	TypeForceSubmission EventType = 40
	TypeReplicaRequest  EventType = 41
	TypeReplicaAnswer   EventType = 42
	TypeAccepted        EventType = 50
	TypeRedirected      EventType = 51
	TypeRefused         EventType = 52
	TypeProgress        EventType = 53
	TypeLog             EventType = 54
	TypeResult          EventType = 55
	TypeFailure         EventType = 56
	TypeStatus          EventType = 57
	TypeReplicas        EventType = 58
	TypeReplicaResult   EventType = 59
)

// Event is the envelope of what nodes say to each other. Payload is the encoded Body.
type Event struct {
	ID         string
	Type       EventType
	Payload    []byte
	Attachment []byte
	Author     string // the signer, checked by the broker; empty where nothing is signed
	Signature  []byte
}

// Body is what an event says.
type Body interface{ EventType() EventType }

// Submission offers a task to a provider.
type Submission struct {
	TaskID      string        `json:"task_id"`
	Attempt     uint32        `json:"attempt"`
	Type        string        `json:"type"`
	Limits      Limits        `json:"limits"`
	Recipient   string        `json:"recipient,omitempty"` // the result is encrypted to it
	PayloadHash Hash          `json:"payload_hash"`
	PayloadSize int64         `json:"payload_size"`
	PayloadCID  string        `json:"payload_cid,omitempty"`
	Redirect    bool          `json:"redirect,omitempty"`
	Keep        time.Duration `json:"keep"`
	RefSize     int64         `json:"ref_size,omitempty"` // of what the payload refers to, in bytes of ciphertext
	Copies      uint32        `json:"copies,omitempty"`   // providers that are to keep the result beside the one that runs it
	Named       []string      `json:"named,omitempty"`    // whom to ask for that, in this order
	Paid        []byte        `json:"-"`                  // an encoded Payment, or nothing; not kept
}

// ForceSubmission hands a task on: Submission is the consumer's signed event.
type ForceSubmission struct {
	Submission Event
	Path       []string
}

// AcceptedEvent says that a provider has the task in its queue.
type AcceptedEvent struct {
	TaskID        string
	Attempt       uint32
	QueuePosition uint32
	Replicas      []string
}

// RedirectedEvent says who has the task now.
type RedirectedEvent struct {
	TaskID       string
	Attempt      uint32
	Announcement Event
	Reason       string
}

// Announcement is the part of a provider's announcement that a redirect needs.
type Announcement struct {
	PeerID     string
	SealingKey string
	Addresses  []string
}

// RefusedEvent says that a provider does not take the task.
type RefusedEvent struct {
	TaskID     string
	Attempt    uint32
	Reason     string
	Message    string
	RetryAfter time.Duration
	Puzzle     *Puzzle // what a submission costs, where that is the reason
}

// ProgressEvent renews leases.
type ProgressEvent struct{ Tasks []ProgressEntry }

// ProgressEntry is one task that the provider holds.
type ProgressEntry struct {
	TaskID        string
	Attempt       uint32
	State         State // Accepted or Running; 0 for a name not known
	QueuePosition uint32
	Progress      *Progress // without a time; nil: its executor says nothing of it
}

// LogEvent is a piece of stderr.
type LogEvent struct {
	TaskID  string
	Attempt uint32
	Offset  int64
	Data    []byte
}

// ResultEvent is a provider's receipt.
type ResultEvent struct {
	TaskID      string
	Attempt     uint32
	Type        string
	ProgramHash Hash
	PayloadHash Hash
	ResultHash  Hash
	ResultSize  int64
	ResultCID   string
	ExitCode    int32
	Limits      Limits
	Usage       Usage
}

// Cause says whose fault a failure is.
type Cause uint8

// Causes, with the contract's numbers.
const (
	CauseProgram   Cause = 1
	CauseLimit     Cause = 2
	CauseProvider  Cause = 3
	CauseCancelled Cause = 4
)

// FailureEvent ends an attempt without a result of the program.
type FailureEvent struct {
	TaskID      string
	Attempt     uint32
	Type        string
	Cause       Cause
	Reason      string
	Message     string
	Usage       Usage
	ResultHash  Hash // of what there is of stdout and stderr; zero where there is nothing
	ResultSize  int64
	ResultCID   string
	PayloadHash Hash
}

// Ref names one attempt.
type Ref struct {
	TaskID  string
	Attempt uint32
}

// CancelEvent asks for the end of an attempt.
type CancelEvent Ref

// QueryEvent asks what has become of attempts.
type QueryEvent struct{ Tasks []Ref }

// StatusEvent answers a query. State is 0 for a task that the provider does not know.
type StatusEvent struct {
	TaskID  string
	Attempt uint32
	State   State
}

// CollectedEvent lets results go.
type CollectedEvent struct{ Tasks []Ref }

// ReplicaRequestEvent asks a provider to keep a result. Result or Failure is set, and is of the same attempt.
type ReplicaRequestEvent struct {
	TaskID     string
	Attempt    uint32
	Submission Event // the consumer's, signed
	Result     *ResultEvent
	Failure    *FailureEvent
	Keep       time.Duration
}

// ReplicaAnswerEvent answers it.
type ReplicaAnswerEvent struct {
	TaskID   string
	Attempt  uint32
	Consumer string
	Kept     bool
	Reason   string // where it is not
}

// ReplicasEvent tells a consumer who keeps a result.
type ReplicasEvent struct {
	TaskID   string
	Attempt  uint32
	Replicas []Replica // peer, state and reason
}

// ReplicaResultEvent hands over what another provider made: Request is its signed ReplicaRequestEvent.
type ReplicaResultEvent struct {
	TaskID  string
	Attempt uint32
	Request Event
}

// EventType says which event this is the body of.
func (*Submission) EventType() EventType          { return TypeSubmission }
func (*ForceSubmission) EventType() EventType     { return TypeForceSubmission }
func (*AcceptedEvent) EventType() EventType       { return TypeAccepted }
func (*RedirectedEvent) EventType() EventType     { return TypeRedirected }
func (*Announcement) EventType() EventType        { return TypeAnnouncement }
func (*RefusedEvent) EventType() EventType        { return TypeRefused }
func (*ProgressEvent) EventType() EventType       { return TypeProgress }
func (*LogEvent) EventType() EventType            { return TypeLog }
func (*ResultEvent) EventType() EventType         { return TypeResult }
func (*FailureEvent) EventType() EventType        { return TypeFailure }
func (*CancelEvent) EventType() EventType         { return TypeCancel }
func (*QueryEvent) EventType() EventType          { return TypeQuery }
func (*StatusEvent) EventType() EventType         { return TypeStatus }
func (*CollectedEvent) EventType() EventType      { return TypeCollected }
func (*ReplicaRequestEvent) EventType() EventType { return TypeReplicaRequest }
func (*ReplicaAnswerEvent) EventType() EventType  { return TypeReplicaAnswer }
func (*ReplicasEvent) EventType() EventType       { return TypeReplicas }
func (*ReplicaResultEvent) EventType() EventType  { return TypeReplicaResult }

var typeNames = map[EventType]string{
	TypeAnnouncement: "ANNOUNCEMENT", TypeSubmission: "TASK_SUBMISSION", TypeCancel: "TASK_CANCEL", TypeQuery: "TASK_QUERY",
	TypeCollected: "TASK_COLLECTED", TypeForceSubmission: "TASK_FORCE_SUBMISSION", TypeAccepted: "TASK_ACCEPTED",
	TypeRedirected: "TASK_REDIRECTED", TypeRefused: "TASK_REFUSED", TypeProgress: "TASK_PROGRESS", TypeLog: "TASK_LOG",
	TypeResult: "TASK_RESULT", TypeFailure: "TASK_FAILURE", TypeStatus: "TASK_STATUS",
	TypeReplicaRequest: "TASK_REPLICA_REQUEST", TypeReplicaAnswer: "TASK_REPLICA_ANSWER", TypeReplicas: "TASK_REPLICAS", TypeReplicaResult: "TASK_REPLICA_RESULT",
}

// String is the type's name, or UNKNOWN for one that is not about tasks: never a number that a peer chose.
func (t EventType) String() string {
	if n, ok := typeNames[t]; ok {
		return n
	}
	return "UNKNOWN"
}
