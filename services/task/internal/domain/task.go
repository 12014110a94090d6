package domain

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Task is one unit of work, as its consumer keeps it. Its methods are the only writers of its fields; they change
// nothing when they return an error. Whoever shares a Task works on a Clone.
type Task struct {
	ID        string            `json:"id"`
	RequestID string            `json:"request_id"`
	Type      string            `json:"type"`
	Limits    Limits            `json:"limits"`
	Policy    Policy            `json:"policy"`
	Clocks    Clocks            `json:"clocks"`
	Labels    map[string]string `json:"labels,omitempty"`
	Shard     *ShardRef         `json:"shard,omitempty"` // set where a job made it

	PayloadHash Hash          `json:"payload_hash"`
	PayloadSize int64         `json:"payload_size"`
	PayloadCID  string        `json:"payload_cid,omitempty"`
	RefSize     int64         `json:"ref_size,omitempty"` // of what the payload refers to, in bytes of ciphertext
	Refs        []string      `json:"refs,omitempty"`     // CIDs of that; in anonymous mode alone, where they have to be granted
	ProgramHash Hash          `json:"program_hash"`
	Keep        time.Duration `json:"keep"`

	State           State                `json:"state"`
	Attempts        []Attempt            `json:"attempts,omitempty"`
	Excluded        map[string]Exclusion `json:"excluded,omitempty"`
	CreatedAt       time.Time            `json:"created_at"`
	WaitingSince    time.Time            `json:"waiting_since"` // when the placement clock began
	AcceptedAt      time.Time            `json:"accepted_at,omitzero"`
	StartedAt       time.Time            `json:"started_at,omitzero"`
	CancelAt        time.Time            `json:"cancel_at,omitzero"` // a cancelled task waits for its provider until then
	FinishedAt      time.Time            `json:"finished_at,omitzero"`
	CancelRequested bool                 `json:"cancel_requested,omitempty"`
	Unplaced        *Choice              `json:"unplaced,omitempty"` // why there is no provider, the last time that one was looked for
	UnplacedAt      time.Time            `json:"unplaced_at,omitzero"`

	Receipt  *Receipt `json:"receipt,omitempty"` // set while the result is collected, and after
	ExitCode *int32   `json:"exit_code,omitempty"`
	Error    *Failure `json:"error,omitempty"`
	Usage    Usage    `json:"usage"`
	Result   *Result  `json:"result,omitempty"`

	History  []HistoryEntry `json:"history,omitempty"`
	Revision uint64         `json:"revision"`
}

// Attempt is one placement at one provider.
type Attempt struct {
	Number      uint32    `json:"number"`
	Peer        string    `json:"peer"`
	Persona     string    `json:"persona,omitempty"` // the one that the task left from
	Addresses   []string  `json:"addresses,omitempty"`
	Trail       []string  `json:"trail,omitempty"` // peers that had it before Peer, by redirection
	State       State     `json:"state"`
	SubmittedAt time.Time `json:"submitted_at"`
	Ended       string    `json:"ended,omitempty"` // UPPER_SNAKE; empty while it may still bring a result
	EndedAt     time.Time `json:"ended_at,omitzero"`
	Replicas    []Replica `json:"replicas,omitempty"` // who was named to keep its result; replaced, never changed
	Reported    bool      `json:"reported,omitempty"` // its provider has said which of them do
	Choice      *Choice   `json:"choice,omitempty"`   // why Peer, or who handed it on to Peer, was chosen
}

// Exclusion keeps a peer from being chosen again.
type Exclusion struct {
	Reason string    `json:"reason"`
	Until  time.Time `json:"until,omitzero"` // zero: for as long as the task lives
}

// Receipt is what a provider said about the end of an attempt.
type Receipt struct {
	Attempt  uint32    `json:"attempt"`
	Peer     string    `json:"peer"`
	Persona  string    `json:"persona,omitempty"`
	At       time.Time `json:"at"`
	Cause    Cause     `json:"cause,omitempty"` // 0 for a result
	ExitCode int32     `json:"exit_code,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	Usage    Usage     `json:"usage"`
	Limits   Limits    `json:"limits"`
	Program  Hash      `json:"program"`
	Hash     Hash      `json:"hash"` // of the result's ciphertext; zero where there is none
	Size     int64     `json:"size"`
	CID      string    `json:"cid,omitempty"`
}

// Result is what of a decrypted result is known without opening it.
type Result struct {
	CID   string `json:"cid,omitempty"`
	Parts []Part `json:"parts,omitempty"`
	// InFile: the bodies are in a file of their own, not in the store.
	InFile bool `json:"in_file,omitempty"`
}

// Part finds a body by its name, and where it begins.
func (r *Result) Part(name string) (p Part, offset int64, ok bool) {
	if r == nil {
		return Part{}, 0, false
	}
	for _, p := range r.Parts {
		if p.Name == name {
			return p, offset, true
		}
		offset += p.Size
	}
	return Part{}, 0, false
}

// ErrNotHolder says that an event about an attempt came from a peer that does not have it.
var ErrNotHolder = errors.New("the sender does not have this attempt")

// Clone is a copy whose methods do not touch t.
func (t *Task) Clone() *Task {
	c := *t
	c.Attempts = slices.Clone(t.Attempts)
	c.History = slices.Clip(t.History) // entries never change: appending makes a new array
	c.Excluded = maps.Clone(t.Excluded)
	return &c
}

// Current is the newest attempt, nil before the first.
func (t *Task) Current() *Attempt {
	if len(t.Attempts) == 0 {
		return nil
	}
	return &t.Attempts[len(t.Attempts)-1]
}

// Live is the attempt that the task waits for: nil while it is PENDING, and after its end.
func (t *Task) Live() *Attempt {
	if a := t.Current(); a != nil && a.Ended == "" && !t.State.Terminal() && t.State != Pending {
		return a
	}
	return nil
}

// Attempt finds an attempt by its number, nil when there was none.
func (t *Task) Attempt(n uint32) *Attempt {
	if n == 0 || n > uint32(len(t.Attempts)) {
		return nil
	}
	return &t.Attempts[n-1]
}

// Had tells whether a peer has the attempt, or had it and handed it on. No attempt was at anybody's.
func (a *Attempt) Had(peer string) bool {
	return a != nil && (a.Peer == peer || slices.Contains(a.Trail, peer))
}

// MayBeAt tells whether an attempt may have been handed on to a peer without this node having heard of that: events of two senders are
// not ordered. An attempt that nobody was known to have taken when it ended stays SUBMITTED.
func (t *Task) MayBeAt(a *Attempt, peer string) bool {
	return a != nil && !a.Had(peer) && a.State == Submitted && t.MayHandOn(a.Number) && len(a.Trail) < MaxHops
}

// Content is what is kept for the task in the repository, by CID.
func (t *Task) Content() []string {
	if t.PayloadCID == "" {
		return t.Refs
	}
	return append([]string{t.PayloadCID}, t.Refs...)
}

// Collecting tells whether the outcome is known and its body is being fetched.
func (t *Task) Collecting() bool { return t.Receipt != nil && !t.State.Terminal() }

// move goes through the table; every change of state passes here.
func (t *Task) move(m Move) error {
	to, err := Next(t.State, m)
	if err != nil {
		return err
	}
	t.State = to
	return nil
}

// NewTask makes a PENDING task.
func NewTask(t Task, now time.Time) *Task {
	t.State, t.CreatedAt, t.WaitingSince = Pending, now, now
	t.note(now, "CREATED", "", "")
	return &t
}

// Place makes the next attempt, at peer.
func (t *Task) Place(now time.Time, a Attempt, detail string) error {
	if t.Receipt != nil {
		return &MoveError{From: t.State, Move: Place, Late: true} // the outcome is known meanwhile
	}
	if err := t.move(Place); err != nil {
		return err
	}
	a.Number, a.State, a.SubmittedAt = uint32(len(t.Attempts))+1, Submitted, now
	t.Attempts = append(t.Attempts, a)
	t.Unplaced, t.UnplacedAt = nil, time.Time{}
	t.note(now, "SUBMITTED", a.Peer, detail)
	return nil
}

// holder finds the live attempt n and checks that from has it.
func (t *Task) holder(n uint32, from string, m Move) (*Attempt, error) {
	a := t.Attempt(n)
	if !a.Had(from) {
		return nil, ErrNotHolder
	}
	if a.Ended != "" || t.State.Terminal() || a.Peer != from {
		return nil, &MoveError{From: t.State, Move: m, Late: true}
	}
	return a, nil
}

// Accept records that the provider has the task in its queue.
func (t *Task) Accept(now time.Time, n uint32, from string, detail string) error {
	a, err := t.holder(n, from, Accept)
	if err != nil {
		return err
	}
	if err := t.move(Accept); err != nil {
		return err
	}
	a.State, t.AcceptedAt = Accepted, now
	t.note(now, "ACCEPTED", from, detail)
	return nil
}

// Start records that the program runs.
func (t *Task) Start(now time.Time, n uint32, from string) error {
	a, err := t.holder(n, from, Start)
	if err != nil {
		return err
	}
	if err := t.move(Start); err != nil {
		return err
	}
	a.State, t.StartedAt = Running, now
	t.note(now, "STARTED", from, "")
	return nil
}

// MaxHops is how many providers may hand a task on. The one that gets it from another runs it or refuses it: in a burst, longer chains
// are heard of in every order, each link from another provider, while the figures that they go by are the same old ones.
const MaxHops = 1

// Redirect records that the attempt is at another provider now.
func (t *Task) Redirect(now time.Time, n uint32, from, to string, addresses []string, reason string) error {
	a, err := t.holder(n, from, Accept)
	if err != nil {
		return err
	}
	if t.State != Submitted {
		return &MoveError{From: t.State, Move: Accept, Late: true}
	}
	if !t.MayHandOn(n) || to == from || len(a.Trail) >= MaxHops || slices.Contains(a.Trail, to) {
		return fmt.Errorf("a redirect that was not allowed: %w", ErrNotHolder)
	}
	a.Trail, a.Peer, a.Addresses = append(slices.Clip(a.Trail), from), to, addresses
	t.note(now, "REDIRECTED", to, reason)
	return nil
}

// MayHandOn tells whether the provider that has attempt n, which may be the next one, may hand it on: where the user lets it, and once a task. Whoever hands a
// task on goes by what others say of themselves, and a liar that was chosen once for its figures, and has not done it, would be chosen by the next
// provider as well.
func (t *Task) MayHandOn(n uint32) bool {
	for i := range t.Attempts {
		if a := &t.Attempts[i]; a.Number < n && len(a.Trail) > 0 {
			return false
		}
	}
	return t.Policy.Redirect
}

// finish is every way to a terminal state.
func (t *Task) finish(now time.Time, m Move, what, peer string, f *Failure) error {
	if err := t.move(m); err != nil {
		return err
	}
	t.FinishedAt, t.Error = now, f
	detail := ""
	if f != nil {
		detail = f.Reason + ": " + f.Message
	}
	if a := t.Current(); a != nil && a.Ended == "" {
		a.Ended, a.EndedAt = what, now
	}
	t.note(now, what, peer, detail)
	return nil
}

// Expire ends the task because a clock ran out.
func (t *Task) Expire(now time.Time, c Clock) error {
	d := ""
	if last := t.lastEnd(); last != "" {
		d = "; before that: " + last
	}
	return t.finish(now, Expire, "EXPIRED", "", &Failure{Reason: c.Reason(),
		Message: fmt.Sprintf("the %s clock ran out: %s took longer than %s%s", c, c.what(), t.Clocks.of(c), d)})
}

func (t *Task) lastEnd() string {
	for i := len(t.History) - 1; i >= 0; i-- {
		switch h := t.History[i]; h.What {
		case "REFUSED", "UNREACHABLE", "LEASE_LOST", "FAILED_AT_PROVIDER", "NO_CANDIDATE", "REJECTED", "TOO_DEAR":
			return h.What + " " + h.Detail
		}
	}
	return ""
}

// RequestCancel asks for the end. When done is false the provider has been given until CancelAt to confirm.
func (t *Task) RequestCancel(now time.Time, grace time.Duration) (done bool, err error) {
	if t.State.Terminal() {
		return true, nil
	}
	if t.CancelRequested {
		return false, nil
	}
	t.CancelRequested = true
	t.note(now, "CANCEL_REQUESTED", "", "")
	if t.State == Pending || t.Receipt != nil {
		return true, t.Cancel(now, "", "")
	}
	t.CancelAt = now.Add(grace)
	return false, nil
}

// Cancel ends a task whose cancellation was asked for.
func (t *Task) Cancel(now time.Time, peer, detail string) error {
	if detail == "" {
		detail = "the task was cancelled by its user"
	}
	return t.finish(now, Cancel, "CANCELLED", peer, &Failure{Reason: "CANCELLED", Message: detail})
}
