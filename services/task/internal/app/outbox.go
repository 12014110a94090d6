package app

import (
	"context"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Outbox makes outgoing events and remembers those that are on their way. Durable ones are in the store as well;
// the others (logs, progress, queries) are worth telling only now.
type Outbox struct {
	ids   *OutboxIDs
	codec Codec

	mu   sync.Mutex
	open map[uint64]Sending
}

// Sending is an event on its way.
type Sending struct {
	Row     OutboxRow // without Payload, Sealed and Addresses
	Durable bool
	Refs    []ReleaseRow // for a TaskCollected
	Out     Outgoing     // of one that is not durable
}

// maxOpen bounds the events on their way that nothing would tell again.
const maxOpen = 1 << 16

// NewOutbox makes an empty one.
func NewOutbox(codec Codec) *Outbox {
	return &Outbox{ids: NewOutboxIDs(), codec: codec, open: make(map[uint64]Sending)}
}

// Row makes an event for one peer, to be written in the transaction that it tells of.
func (o *Outbox) Row(to Address, ref domain.Ref, body domain.Body) OutboxRow {
	return OutboxRow{ID: o.ids.Next(), TaskID: ref.TaskID, Attempt: ref.Attempt, Persona: to.Persona, Peer: to.Peer, Addresses: to.Addresses,
		EventID: NewID(), Type: body.EventType(), Payload: o.codec.Encode(body)}
}

// Address is where an event goes, and as whom it leaves.
type Address struct {
	Persona   string
	Peer      string
	Addresses []string
}

// Outgoing is a row as node gets it.
func (r *OutboxRow) Outgoing(attachment []byte) Outgoing {
	return Outgoing{ID: r.ID, TaskID: r.TaskID, Persona: r.Persona, Peer: r.Peer, Addresses: r.Addresses, Sign: r.Sign, Timeout: r.Timeout,
		Event: domain.Event{ID: r.EventID, Type: r.Type, Payload: r.Payload, Attachment: attachment}}
}

// Track remembers a durable row once it is committed.
func (o *Outbox) Track(rows ...OutboxRow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range rows {
		r.Payload, r.Sealed, r.Addresses = nil, nil, nil
		o.open[r.ID] = Sending{Row: r, Durable: true}
	}
}

// Once makes an event that is not stored.
func (o *Outbox) Once(to Address, ref domain.Ref, body domain.Body, attachment []byte, sign bool, timeout time.Duration) Outgoing {
	r := o.Row(to, ref, body)
	r.Sign, r.Timeout = sign, timeout
	out := r.Outgoing(attachment)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.open) < maxOpen {
		r.Payload, r.Addresses = nil, nil
		o.open[r.ID] = Sending{Row: r}
	}
	return out
}

// OnceRefs is Once for a TaskCollected, whose refs are wanted back when it has arrived.
func (o *Outbox) OnceRefs(to Address, refs []ReleaseRow, timeout time.Duration) Outgoing {
	body := &domain.CollectedEvent{Tasks: make([]domain.Ref, len(refs))}
	for i, r := range refs {
		body.Tasks[i] = domain.Ref{TaskID: r.TaskID, Attempt: r.Attempt}
	}
	out := o.Once(to, domain.Ref{}, body, nil, false, timeout)
	o.mu.Lock()
	defer o.mu.Unlock()
	if s, ok := o.open[out.ID]; ok {
		s.Refs = refs
		o.open[out.ID] = s
	}
	return out
}

// Take forgets an event that has arrived, failed or was withdrawn, and says what it was.
func (o *Outbox) Take(id uint64) (Sending, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.open[id]
	delete(o.open, id)
	return s, ok
}

// Get looks at an event on its way.
func (o *Outbox) Get(id uint64) (Sending, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.open[id]
	return s, ok
}

// Of lists the durable events on their way that tell of an attempt.
func (o *Outbox) Of(peer string, ref domain.Ref) []uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var ids []uint64
	for id, s := range o.open {
		if s.Durable && s.Row.TaskID == ref.TaskID && s.Row.Attempt == ref.Attempt && s.Row.Peer == peer {
			ids = append(ids, id)
		}
	}
	return ids
}

// Full tells whether so much is on its way that a stranger's question is not worth an answer.
func (o *Outbox) Full() bool { return o.Len() >= maxOpen }

// Personas adds those that something is still to be sent by.
func (o *Outbox) Personas(to map[string]struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.open {
		to[s.Row.Persona] = struct{}{}
	}
}

// DropOnce forgets the events that are not durable: with the last session gone nobody says what became of them.
// It returns the refs of those that had some.
func (o *Outbox) DropOnce() []ReleaseRow {
	o.mu.Lock()
	defer o.mu.Unlock()
	var refs []ReleaseRow
	for id, s := range o.open {
		if !s.Durable {
			refs = append(refs, s.Refs...)
			delete(o.open, id)
		}
	}
	return refs
}

// Len is how many events are on their way.
func (o *Outbox) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open)
}

// Replay tells every stored row, in order and in pages. attach gives a row's attachment; a row for which it says
// false has lost its sense and is deleted.
func (o *Outbox) Replay(ctx context.Context, store interface {
	OutboxReader
	Committer
}, attach func(OutboxRow) ([]byte, bool, error), tell func(Reply) error) error {
	const page = 32
	after := uint64(0)
	for {
		rows, err := store.Outbox(ctx, after, page)
		if err != nil {
			return err
		}
		var r Reply
		for i := range rows {
			after = rows[i].ID
			attachment, ok, err := attach(rows[i])
			if err != nil {
				return err
			}
			if !ok {
				o.Take(rows[i].ID)
				store.Later(&Writes{Sent: []uint64{rows[i].ID}})
				continue
			}
			r.Outbox = append(r.Outbox, rows[i].Outgoing(attachment))
			o.Track(rows[i])
		}
		if len(r.Outbox) > 0 {
			if err := tell(r); err != nil {
				return err
			}
		}
		if len(rows) < page {
			o.ids.Above(after)
			return nil
		}
	}
}
