package app

import (
	"context"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Verdict is what the broker is told about an event, with the contract's numbers.
type Verdict uint32

// Verdicts.
const (
	Applied  Verdict = 0
	Ignored  Verdict = 1 // late, repeated, of no interest
	Rejected Verdict = 2 // malformed or forged: held against the sender
	Again    Verdict = 3 // not now
	// Misconduct is what no well-behaved node can send: the sender loses its connections.
	Misconduct Verdict = 4
)

// Reply is what a command, or something that happened by itself, has to say to node.
type Reply struct {
	Task      *TaskView
	Stdout    []byte // set with HasStdout
	HasStdout bool
	Outbox    []Outgoing
	Placement *Placement
	Delivered *Delivered
	Existed   bool
}

// Delivered is the verdict on an event.
type Delivered struct {
	Verdict Verdict
	Reason  string // UPPER_SNAKE, for the sender
}

// Outgoing is an event for node to send.
type Outgoing struct {
	ID        uint64
	TaskID    string
	Persona   string
	Peer      string
	Addresses []string
	Event     domain.Event
	Sign      bool
	Timeout   time.Duration
	Withdrawn bool
}

// PersonaUse is a persona that is still needed, and a provider with an unfinished task that left from it, or none where something has only to be sent.
type PersonaUse struct {
	Persona, Peer string
	Addresses     []string
	Job           string // whose shards leave from it, while one of them is not over
}

// Placement asks node for a provider.
type Placement struct {
	TaskID   string
	Type     string
	Attempt  uint32
	Excluded map[string]string
	Only     []string
	Limits   domain.Limits
	Copies   uint32 // wanted of the result, beside the provider's own
	Job      string // that the task is a shard of
	Personas uint32 // that the job's shards leave from at one time, at most; 0: as many as node is set to
	// Efforts are what peers have asked for lately when they refused the task; MaxEffort is the most that is paid.
	Efforts   map[string]uint32
	MaxEffort uint32
}

// Candidate is a provider, as node knows it.
type Candidate struct {
	Peer       string
	SealingKey string
	Persona    string
	Addresses  []string
	Replicas   []domain.Replica // consumer side: whom its submission may name to keep the result
	Puzzle     *domain.Puzzle   // consumer side: what it asks for a submission, as it has told the persona; nil: nothing is known
	Paid       []byte           // consumer side: the encoded payment
	Choice     *domain.Choice   // consumer side: why this one
	// Provider side, for the evaluator.
	Resources    domain.Resources
	Version      uint64 // of the metric
	Announcement domain.Event
}

// Delivery is one event from the network.
type Delivery struct {
	Persona    string
	From       string
	Event      domain.Event
	OwnPeer    string
	Own        domain.Resources
	Candidates []Candidate
}

// PlacementView is how the provider of one attempt was chosen.
type PlacementView struct {
	Attempt uint32
	Chosen  string // empty: nobody was found for it yet
	Peer    string // who has it
	At      time.Time
	Ended   string
	Choice  *domain.Choice // nil where an older release has placed it
}

// TaskView is a task as users see it, of either role.
type TaskView struct {
	ID, Type, Provider, Consumer, RequestID string
	State                                   domain.State
	Attempts                                uint32
	ExitCode                                *int32
	Error                                   *domain.Failure
	CreatedAt, StartedAt, FinishedAt        time.Time
	Limits                                  domain.Limits
	Usage                                   domain.Usage
	Result                                  *domain.Result
	Available                               bool // the decrypted result is here
	Labels                                  map[string]string
	History                                 []domain.HistoryEntry
	QueuePosition                           uint32
	Revision                                uint64
	Replicas                                uint32           // providers that are to keep the result; 0: the one that made it
	ReplicaPeers                            []domain.Replica // those that were named for that, beside it
	Progress                                *domain.Progress // of one that runs, where it is known
}

// Pusher tells node what nobody asked for. Push may block while node is slow, and drops what it is given when there is
// no session: everything durable is told again when there is one.
type Pusher interface {
	Push(ctx context.Context, r Reply)
}

// Role is what a session talks to: the use cases of a consumer or of a provider. Errors are faults, and mean that
// nothing was changed.
type Role interface {
	Create(ctx context.Context, c Create) (Reply, error)
	Place(ctx context.Context, taskID string, c Candidate, detail string) (Reply, error)
	PlacementFailed(ctx context.Context, taskID, detail string, why *domain.Choice) (Reply, error)
	// Deliver never fails: an event that cannot be applied now gets the verdict Again.
	Deliver(ctx context.Context, d Delivery) Reply
	MarkSent(ctx context.Context, ids []uint64)
	SendFailed(ctx context.Context, id uint64, reason, message string) (Reply, error)
	SetOnline(ctx context.Context, online bool)
	// Personas are those that are still needed, in no order; none on a provider.
	Personas() []PersonaUse
	// Sync tells everything that a new session must know, in order. tell blocks while node is slow.
	Sync(ctx context.Context, tell func(Reply) error) error
	// Lost says that the last session has ended.
	Lost()
}

// Create is what a user wants done.
type Create struct {
	RequestID string
	Spec      Spec
	Candidate *Candidate
	Detail    string // why this candidate
}

// Spec is a task to be made, translated from the contract.
type Spec struct {
	Type     string
	Options  []byte
	Parts    []PartSource
	Limits   domain.Limits
	Redirect *bool
	Policy   domain.Policy
	Clocks   domain.Clocks
	Labels   map[string]string
}

// PartSource is a body of bytes: inline, or an upload.
type PartSource struct {
	Name   string
	Inline []byte
	Upload string // an upload's id
}
