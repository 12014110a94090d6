package app

import (
	"errors"
	"io"
)

// Cipher encrypts payloads and results. It is safe for concurrent use. What it returns streams: closing a writer
// ends the ciphertext and must not be forgotten; a reader's error means that what it gave before must not be used.
type Cipher interface {
	// EncryptPayload makes a random payload key and encrypts under it.
	EncryptPayload(dst io.Writer) (w io.WriteCloser, key []byte, err error)
	DecryptPayload(key []byte, src io.Reader) (io.Reader, error)
	// OpenPayload is DecryptPayload for a small one; it costs no buffers but the plaintext.
	OpenPayload(key, ciphertext []byte) ([]byte, error)
	// SealKey seals a payload key to a provider's sealing key. What binds it to its task is the payload's header. Keys that are sealed in
	// one scope can be seen to come from one sender; a scope is what that holds for anyway.
	SealKey(key []byte, sealingKey, scope string) ([]byte, Seal, error)
	// EncryptResult encrypts to a task key's recipient or, where that is empty, under the key that the payload held. It fails with RECIPIENT_INVALID.
	EncryptResult(recipient string, key []byte, dst io.Writer) (io.WriteCloser, error)
}

// Seal is what a sender remembers of a key that it has sealed. What sender and provider agree on to seal one key serves for many; once the provider is known to have it, it is
// named and not sent again, which is half of a small submission.
type Seal interface {
	// Heard says that the provider could open it.
	Heard()
	// Lost says that the provider does not know what was named, and tells whether anything was: the next one says all.
	Lost() bool
}

// ErrSealUnknown is what names something that was agreed on and is not remembered.
var ErrSealUnknown = errors.New("what the payload key is sealed under is not known here any more")

// SealingKey is a provider's own.
type SealingKey interface {
	Recipient() string
	// Whole gives a sealed key in the form that can be opened at any time, also after a restart. ErrSealUnknown.
	Whole(sealed []byte) ([]byte, error)
	// OpenKey opens what SealKey made, when whole.
	OpenKey(sealed []byte) (key []byte, err error)
}

// ResultKeySize is that of a key that a payload holds, in bytes.
const ResultKeySize = 16

// TaskKey is the key of one task, by which its result is read: a key pair, or a secret that its payload tells the provider.
type TaskKey interface {
	// Recipient is what the submission says of a key pair; empty of a secret.
	Recipient() string
	// ResultKey is what the payload says of a secret; nil of a key pair.
	ResultKey() []byte
	Secret() string
	Decrypt(src io.Reader) (io.Reader, error)
	// Open is Decrypt for a small ciphertext.
	Open(ciphertext []byte) ([]byte, error)
}

// TaskKeys makes task keys.
type TaskKeys interface {
	// Take gives a fresh one, made ahead where possible.
	Take() (TaskKey, error)
	// Shared makes a secret. It takes a sixth of the room that a key pair does on the wire, and no agreement; but whoever opens the payload can read the result.
	Shared() TaskKey
	// Parse reads a Secret.
	Parse(secret string) (TaskKey, error)
}
