package app

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"
)

// NewID is a task id or event id: 128 random bits as 32 lowercase hex digits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// InboxIDOf recognises an event of a sender.
func InboxIDOf(from, eventID string) InboxID {
	h := sha256.Sum256([]byte(from + "\x00" + eventID))
	return InboxID(h[:16])
}

// OutboxIDs makes ids that grow: microseconds since 2020, and 12 random bits of this process so that replicas which
// share a store do not meet. They stay below 2^63, which every SQL store can hold.
type OutboxIDs struct {
	mu   sync.Mutex
	last uint64
	own  uint64
}

var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// NewOutboxIDs starts above every id that a process before this one made.
func NewOutboxIDs() *OutboxIDs {
	var b [2]byte
	_, _ = rand.Read(b[:])
	return &OutboxIDs{own: uint64(binary.BigEndian.Uint16(b[:])) & 0xfff}
}

// Next is larger than every id before, also when the wall clock steps back.
func (o *OutboxIDs) Next() uint64 {
	now := uint64(time.Since(epoch).Microseconds())
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = max(now, o.last+1)
	return o.last<<12 | o.own
}

// Above makes later ids larger than id, which a store holds: its clock was ahead of this one.
func (o *OutboxIDs) Above(id uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = max(o.last, id>>12)
}
