// Package crypt encrypts with age: payloads under a random payload key, that key to a provider's sealing key, results
// to a task's key. Keys are hybrid (ML-KEM-768 and X25519).
package crypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

const (
	payloadKeySize = 16
	maxParsed      = 1024
)

// Cipher implements app.Cipher.
type Cipher struct {
	mu     sync.Mutex
	parsed map[string]*age.HybridRecipient // sealing keys of providers: reading one costs as much as a third of an agreement
	agreed map[agreedWith]*agreement
	lost   map[string]time.Time // sealing keys of providers that did not know what was named, and until when nothing is named to them
}

var _ app.Cipher = (*Cipher)(nil)

// NewCipher makes a Cipher.
func NewCipher() *Cipher {
	return &Cipher{parsed: make(map[string]*age.HybridRecipient), agreed: make(map[agreedWith]*agreement), lost: make(map[string]time.Time)}
}

// capture is the only recipient of a payload's age file: it writes no key into the header, and keeps it for SealKey.
type capture struct{ key []byte }

// Wrap makes the stanza that the format demands; it is empty.
func (c *capture) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	c.key = bytes.Clone(fileKey)
	return []*age.Stanza{{Type: "shallot-sealed-apart"}}, nil
}

// EncryptPayload makes a payload key and encrypts under it.
func (*Cipher) EncryptPayload(dst io.Writer) (io.WriteCloser, []byte, error) {
	var c capture
	w, err := age.Encrypt(dst, &c)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt a payload: %w", err)
	}
	return w, c.key, nil
}

// DecryptPayload is the other half of EncryptPayload.
func (*Cipher) DecryptPayload(key []byte, src io.Reader) (io.Reader, error) {
	if len(key) != payloadKeySize {
		return nil, errors.New("a payload key has 16 bytes")
	}
	return age.Decrypt(src, age.NewInjectedFileKeyIdentity(key))
}

// OpenPayload is DecryptPayload for a small one.
func (*Cipher) OpenPayload(key, ciphertext []byte) ([]byte, error) {
	if len(key) != payloadKeySize {
		return nil, errors.New("a payload key has 16 bytes")
	}
	return open(ciphertext, age.NewInjectedFileKeyIdentity(key))
}

// open decrypts a small file. age's Reader has two buffers of 64 KiB, whatever the size.
func open(ciphertext []byte, id age.Identity) ([]byte, error) {
	r, size, err := age.DecryptReaderAt(bytes.NewReader(ciphertext), int64(len(ciphertext)), id)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, size)
	if n, err := r.ReadAt(plain, 0); err != nil && !errors.Is(err, io.EOF) || int64(n) != size {
		return nil, errors.New("the ciphertext is damaged")
	}
	return plain, nil
}

func (c *Cipher) parse(recipient string) (*age.HybridRecipient, error) {
	c.mu.Lock()
	r := c.parsed[recipient]
	c.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r, err := age.ParseHybridRecipient(recipient)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.parsed) >= maxParsed {
		clear(c.parsed)
	}
	c.parsed[recipient] = r
	return r, nil
}

// EncryptResult encrypts to a task key.
func (*Cipher) EncryptResult(recipient string, key []byte, dst io.Writer) (io.WriteCloser, error) {
	if recipient == "" {
		if len(key) != app.ResultKeySize {
			return nil, fault.InvalidArgument("RECIPIENT_INVALID", "the submission names no result recipient, and its payload has no key for the result")
		}
		return age.Encrypt(dst, sharedKey(key))
	}
	r, err := parseRecipient(recipient)
	if err != nil {
		return nil, fault.InvalidArgument("RECIPIENT_INVALID", "the result recipient is not a hybrid age recipient").Because(err)
	}
	return age.Encrypt(dst, r)
}
