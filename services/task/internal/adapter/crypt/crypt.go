// Package crypt encrypts with age: payloads under a random payload key, that key to a provider's sealing key, results
// to a task's key. Keys are hybrid (ML-KEM-768 and X25519).
package crypt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"filippo.io/age"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

const (
	payloadKeySize = 16
	taskIDSize     = 16 // bytes: 32 hex digits
	maxParsed      = 1024
)

// Cipher implements app.Cipher.
type Cipher struct {
	mu     sync.Mutex
	parsed map[string]*age.HybridRecipient // sealing keys of providers: reading one costs as much as a third of a seal
}

var _ app.Cipher = (*Cipher)(nil)

// NewCipher makes a Cipher.
func NewCipher() *Cipher { return &Cipher{parsed: make(map[string]*age.HybridRecipient)} }

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

// SealKey seals a payload key and the id of its task.
func (c *Cipher) SealKey(taskID string, key []byte, sealingKey string) ([]byte, error) {
	r, err := c.parse(sealingKey)
	if err != nil {
		return nil, fault.InvalidArgument("SEALING_KEY_INVALID", "the provider's sealing key is not a hybrid age recipient").Because(err)
	}
	plain, err := hex.AppendDecode(make([]byte, 0, taskIDSize+payloadKeySize), []byte(taskID))
	if err != nil || len(plain) != taskIDSize {
		return nil, errors.New("a task id has 32 hex digits")
	}
	var out bytes.Buffer
	out.Grow(2048)
	w, err := age.Encrypt(&out, r)
	if err != nil {
		return nil, fmt.Errorf("seal a payload key: %w", err)
	}
	if _, err := w.Write(append(plain, key...)); err != nil {
		return nil, fmt.Errorf("seal a payload key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal a payload key: %w", err)
	}
	return out.Bytes(), nil
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
func (*Cipher) EncryptResult(recipient string, dst io.Writer) (io.WriteCloser, error) {
	r, err := age.ParseHybridRecipient(recipient)
	if err != nil {
		return nil, fault.InvalidArgument("RECIPIENT_INVALID", "the result recipient is not a hybrid age recipient").Because(err)
	}
	return age.Encrypt(dst, r)
}

// SealingKey is a provider's own key pair.
type SealingKey struct {
	id        *age.HybridIdentity
	recipient string
}

var _ app.SealingKey = (*SealingKey)(nil)

// NewSecret makes the secret of a new key pair, to be stored.
func NewSecret() (string, error) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	return id.String(), nil
}

// ParseSealingKey reads a secret.
func ParseSealingKey(secret string) (*SealingKey, error) {
	id, err := age.ParseHybridIdentity(secret)
	if err != nil {
		return nil, errors.New("the stored sealing key cannot be read") // never quote a secret
	}
	return &SealingKey{id: id, recipient: id.Recipient().String()}, nil
}

// Recipient is what others seal to.
func (k *SealingKey) Recipient() string { return k.recipient }

// OpenKey opens what SealKey made for this task.
func (k *SealingKey) OpenKey(taskID string, sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), k.id)
	if err != nil {
		return nil, fmt.Errorf("the payload key is not sealed to this provider: %w", err)
	}
	var plain [taskIDSize + payloadKeySize + 1]byte
	n, err := io.ReadFull(r, plain[:])
	if !errors.Is(err, io.ErrUnexpectedEOF) || n != len(plain)-1 {
		return nil, errors.New("what is sealed is not a payload key")
	}
	if hex.EncodeToString(plain[:taskIDSize]) != taskID {
		return nil, errors.New("the payload key was sealed for another task")
	}
	return plain[taskIDSize:n:n], nil
}
