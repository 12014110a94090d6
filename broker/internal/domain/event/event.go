// Package event is the envelope of everything that nodes say to each other, and the rules that it must keep before it is
// relayed or delivered. What a payload means is nobody's business here.
package event

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Limits of an envelope, in bytes as encoded.
const (
	MaxSize       = 256 << 10 // directed, attachment included
	MaxGossipSize = 64 << 10  // every relay pays for it
	maxAuthor     = 64        // an Ed25519 peer id has 52 characters
)

// Type says which message a payload is. The numbers are those of shallot.event.v1.EventType.
type Type int32

// The types that have rules of their own.
const (
	Announcement    Type = 1
	MetricAvailable Type = 2
	Discover        Type = 10
	Ping            Type = 12
	MetricQuery     Type = 13
	TaskSubmission  Type = 30
	TaskQuery       Type = 32
	TaskResult      Type = 55
	TaskFailure     Type = 56
)

// Topics that events are gossiped on.
const (
	TopicAnnouncements = "announcements"
	TopicMetrics       = "metrics"
)

// topics has the one type that each topic carries.
var topics = map[string]Type{TopicAnnouncements: Announcement, TopicMetrics: MetricAvailable}

// mustSign are the types that a third party must be able to check again, however they travel.
var mustSign = map[Type]bool{Announcement: true, MetricAvailable: true, TaskSubmission: true, TaskResult: true, TaskFailure: true}

// Question tells the types that make the receiver answer and change nothing: what a peer may ask for has a rate of its own.
func (t Type) Question() bool {
	return t == Discover || t == Ping || t == MetricQuery || t == TaskQuery
}

// Topics lists the topics, in a fixed order.
func Topics() []string { return []string{TopicAnnouncements, TopicMetrics} }

// KnownTopic tells whether events are gossiped under this name.
func KnownTopic(name string) bool { _, ok := topics[name]; return ok }

// Gossiped tells the types that a topic carries.
func (t Type) Gossiped() bool {
	for _, carried := range topics {
		if t == carried {
			return true
		}
	}
	return false
}

// ID is an event's id as bytes; on the envelope it is 32 lowercase hex digits.
type ID [16]byte

// ParseID reads the envelope's form.
func ParseID(s string) (ID, bool) {
	var id ID
	if len(s) != 2*len(id) {
		return id, false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return id, false
		}
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}

// Event is an envelope. Its byte slices are shared, and never changed by those who have them.
type Event struct {
	ID         string
	Type       Type
	Payload    []byte
	Attachment []byte
	Author     string
	Signature  []byte
}

const signingPrefix = "shallot-event-v1\x00"

// SigningBytes are what a signature of the event is over: prefix | type, 4 bytes big endian | SHA-256 of the payload.
func (e *Event) SigningBytes() []byte {
	b := make([]byte, 0, len(signingPrefix)+4+sha256.Size)
	b = append(b, signingPrefix...)
	b = binary.BigEndian.AppendUint32(b, uint32(e.Type))
	sum := sha256.Sum256(e.Payload)
	return append(b, sum[:]...)
}

// GossipID is the id of a gossiped event with a signature. Nothing signs the id: were it free, one signed payload would make any number of messages, and
// every relay would carry them all.
func GossipID(signature []byte) string {
	sum := sha256.Sum256(signature)
	return hex.EncodeToString(sum[:len(ID{})])
}

// Problem is why an envelope is refused: UPPER_SNAKE, for counting and for answers.
type Problem string

// Problems.
const (
	OK           Problem = ""
	Oversized    Problem = "OVERSIZED"
	Undecodable  Problem = "UNDECODABLE"
	BadID        Problem = "BAD_ID"
	UnknownType  Problem = "UNKNOWN_TYPE"
	BadPayload   Problem = "BAD_PAYLOAD"
	Unsigned     Problem = "UNSIGNED"
	BadAuthor    Problem = "BAD_AUTHOR"
	BadSignature Problem = "BAD_SIGNATURE"
	WrongTopic   Problem = "WRONG_TOPIC"
	NotCanonical Problem = "NOT_CANONICAL" // gossip that is another form of what was signed
)

// Codec knows the messages.
type Codec interface {
	// Known tells whether a type is in the contract that this node was built with.
	Known(t Type) bool
	// CheckPayload fails when the bytes do not decode as the message that the type names.
	CheckPayload(t Type, payload []byte) error
	// Canonical tells whether bytes that decode as an envelope are the only ones that stand for it.
	Canonical(envelope []byte) bool
}

// Keys finds the public key that an author's id holds.
type Keys interface {
	PublicKey(author string) (ed25519.PublicKey, error)
}

// Shared checks signatures that cover more than one event.
type Shared interface {
	Verify(key ed25519.PublicKey, message, signature []byte) bool
}

// Rules check envelopes.
type Rules struct {
	Codec  Codec
	Keys   Keys
	Shared Shared
}

// CheckDirected checks an event whose encoding has size bytes; OK or the first problem found, the cheap ones first.
func (r Rules) CheckDirected(e *Event, size int) Problem {
	if size > MaxSize {
		return Oversized
	}
	return r.check(e, mustSign[e.Type])
}

// CheckGossip is CheckDirected for a topic: smaller, of the topic's type, and always signed, for nobody knows who spoke first. envelope is the event as
// encoded. What a signature is over can be gossiped as one message only, which has the GossipID, no attachment and one encoding.
func (r Rules) CheckGossip(topic string, e *Event, envelope []byte) Problem {
	if p := r.CheckOwnGossip(topic, e, envelope); p != OK {
		return p
	}
	return r.verify(e)
}

// CheckOwnGossip is CheckGossip of what was signed a moment ago: all but the signature.
func (r Rules) CheckOwnGossip(topic string, e *Event, envelope []byte) Problem {
	if len(envelope) > MaxGossipSize {
		return Oversized
	}
	if r.Codec.Known(e.Type) && topics[topic] != e.Type {
		return WrongTopic
	}
	if p := r.complete(e, true); p != OK {
		return p
	}
	if len(e.Signature) != ed25519.SignatureSize {
		return BadSignature // a shared one is longer, and could be written in more than one way: every relay pays for both
	}
	if len(e.Attachment) > 0 || e.ID != GossipID(e.Signature) || !r.Codec.Canonical(envelope) {
		return NotCanonical
	}
	return OK
}

// CheckOutgoing is what must hold before an event is signed: the rules that signing cannot mend.
func (r Rules) CheckOutgoing(e *Event) Problem {
	if _, ok := ParseID(e.ID); !ok {
		return BadID
	}
	if !r.Codec.Known(e.Type) {
		return UnknownType
	}
	if r.Codec.CheckPayload(e.Type, e.Payload) != nil {
		return BadPayload
	}
	return OK
}

func (r Rules) check(e *Event, signed bool) Problem {
	if p := r.complete(e, signed); p != OK || len(e.Signature) == 0 {
		return p
	}
	return r.verify(e)
}

// complete is all of check but the signature itself.
func (r Rules) complete(e *Event, signed bool) Problem {
	if p := r.CheckOutgoing(e); p != OK || len(e.Signature) > 0 {
		return p
	}
	if e.Author != "" {
		return BadSignature // a claim without proof
	}
	if signed {
		return Unsigned
	}
	return OK
}

func (r Rules) verify(e *Event) Problem {
	shared := len(e.Signature) > ed25519.SignatureSize
	if len(e.Signature) < ed25519.SignatureSize || shared && r.Shared == nil {
		return BadSignature
	}
	if e.Author == "" || len(e.Author) > maxAuthor {
		return BadAuthor
	}
	key, err := r.Keys.PublicKey(e.Author)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return BadAuthor
	}
	if shared && !r.Shared.Verify(key, e.SigningBytes(), e.Signature) || !shared && !ed25519.Verify(key, e.SigningBytes(), e.Signature) {
		return BadSignature
	}
	return OK
}
