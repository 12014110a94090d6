package app

import "github.com/shallot-net/shallot/services/task/internal/domain"

// PayloadHeader begins a payload's plaintext; the parts' bytes follow.
type PayloadHeader struct {
	TaskID  string
	Type    string
	Options []byte
	Parts   []domain.Part
	Padding int64 // zeros that follow the parts
	// ResultKey encrypts the result where the submission names no recipient; else nil.
	ResultKey []byte
}

// ResultHeader begins a result's plaintext; the parts' bytes follow.
type ResultHeader struct {
	TaskID   string
	ExitCode int32
	Reason   string
	Message  string
	Usage    domain.Usage
	Parts    []domain.Part
	Padding  int64 // zeros that follow the parts
}

// Codec is the wire form of what nodes say to each other. Decoding checks form and bounds, and an error says
// what is wrong in words that may go back to the sender; meaning is the use cases' to judge.
type Codec interface {
	Encode(b domain.Body) []byte
	Decode(t domain.EventType, payload []byte) (domain.Body, error)
	EncodeSealed(sealedKey, ciphertext []byte) []byte
	DecodeSealed(attachment []byte) (sealedKey, ciphertext []byte, err error)
	EncodePayloadHeader(h *PayloadHeader) []byte
	DecodePayloadHeader(b []byte) (*PayloadHeader, error)
	EncodeResultHeader(h *ResultHeader) []byte
	DecodeResultHeader(b []byte) (*ResultHeader, error)
}

// Verifier checks signatures inside events; those of envelopes the broker has checked.
type Verifier interface {
	// Verify tells whether Author signed the event.
	Verify(ev *domain.Event) bool
}
