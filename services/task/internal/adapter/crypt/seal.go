package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// A sealed key has two layers. The outer one is the stanza that age would put into a file's header, without the file around it: a
// key that sender and provider agree on, wrapped to the provider's sealing key. The inner one is the payload key, encrypted
// under what is derived from the agreed key and a nonce. So the hybrid key agreement, which costs as much as all else that is
// done to encrypt a small task, is made once for many tasks of one sender.
const (
	sealVersion = 2
	encSize     = 1088 + 32 // ML-KEM-768 and X25519
	tagSize     = 16
	agreedSize  = encSize + payloadKeySize + tagSize // the stanza
	nonceSize   = 16
	sealSize    = 1 + agreedSize + nonceSize + payloadKeySize + tagSize
	stanzaType  = "mlkem768x25519"

	// An agreed key is used for so many payload keys, or so long.
	agreeUses = 256
	agreeTime = time.Minute
	maxAgreed = 1024
)

var stanzaBase64 = base64.RawStdEncoding

// agreedWith: an agreement is never shared by two scopes, because it can be recognised.
type agreedWith struct{ scope, sealingKey string }

type agreement struct {
	stanza []byte
	key    []byte
	uses   int
	since  time.Time
}

// SealKey implements app.Cipher.
func (c *Cipher) SealKey(key []byte, sealingKey, scope string) ([]byte, error) {
	if len(key) != payloadKeySize {
		return nil, errors.New("a payload key has 16 bytes")
	}
	stanza, agreed, err := c.agree(agreedWith{scope, sealingKey})
	if err != nil {
		return nil, err
	}
	out := append(append(make([]byte, 0, sealSize), sealVersion), stanza...)
	nonce := out[len(out) : len(out)+nonceSize]
	_, _ = rand.Read(nonce) // never fails
	aead, err := inner(agreed, nonce)
	if err != nil {
		return nil, err
	}
	return aead.Seal(out[:len(out)+nonceSize], make([]byte, aead.NonceSize()), key, nil), nil
}

// agree gives the key agreed on with a provider, and what tells the provider of it.
func (c *Cipher) agree(with agreedWith) (stanza, key []byte, err error) {
	now := time.Now()
	c.mu.Lock()
	a := c.agreed[with]
	if a != nil && a.uses < agreeUses && now.Sub(a.since) < agreeTime {
		a.uses++
		c.mu.Unlock()
		return a.stanza, a.key, nil
	}
	c.mu.Unlock()
	r, err := c.parse(with.sealingKey)
	if err != nil {
		return nil, nil, fault.InvalidArgument("SEALING_KEY_INVALID", "the provider's sealing key is not a hybrid age recipient").Because(err)
	}
	a = &agreement{key: make([]byte, payloadKeySize), uses: 1, since: now}
	_, _ = rand.Read(a.key) // never fails
	if a.stanza, err = wrap(r, a.key); err != nil {
		return nil, nil, fmt.Errorf("seal a payload key: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.agreed) >= maxAgreed {
		clear(c.agreed)
	}
	c.agreed[with] = a
	return a.stanza, a.key, nil
}

func wrap(r *age.HybridRecipient, key []byte) ([]byte, error) {
	stanzas, err := r.Wrap(key)
	if err != nil {
		return nil, err
	}
	if len(stanzas) != 1 || stanzas[0].Type != stanzaType || len(stanzas[0].Args) != 1 {
		return nil, errors.New("age has wrapped it in another way than is known here")
	}
	out, err := stanzaBase64.AppendDecode(make([]byte, 0, agreedSize), []byte(stanzas[0].Args[0]))
	return append(out, stanzas[0].Body...), err
}

// inner is the cipher for one payload key. Its key is used once, so that its nonce can be zero.
func inner(agreed, nonce []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, agreed, nonce, "shallot payload key", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// SealingKey is a provider's own key pair.
type SealingKey struct {
	id        *age.HybridIdentity
	recipient string

	mu     sync.Mutex
	agreed map[[sha256.Size]byte][]byte // by the stanza's hash
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
	return &SealingKey{id: id, recipient: id.Recipient().String(), agreed: make(map[[sha256.Size]byte][]byte)}, nil
}

// Recipient is what others seal to.
func (k *SealingKey) Recipient() string { return k.recipient }

// OpenKey opens what SealKey made.
func (k *SealingKey) OpenKey(sealed []byte) ([]byte, error) {
	if len(sealed) != sealSize || sealed[0] != sealVersion {
		return nil, fmt.Errorf("a sealed key of version %d has %d bytes, and here are %d", sealVersion, sealSize, len(sealed))
	}
	sealed = sealed[1:]
	agreed, err := k.open(sealed[:agreedSize])
	if err != nil {
		return nil, err
	}
	sealed = sealed[agreedSize:]
	aead, err := inner(agreed, sealed[:nonceSize])
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed[nonceSize:], nil)
	if err != nil {
		return nil, errors.New("the payload key is not sealed to this provider")
	}
	return key, nil
}

// open gives the agreed key, from memory where this stanza was seen lately. What cannot be opened is not remembered, so that a
// stranger's nonsense pushes nothing out.
func (k *SealingKey) open(stanza []byte) ([]byte, error) {
	sum := sha256.Sum256(stanza)
	k.mu.Lock()
	agreed := k.agreed[sum]
	k.mu.Unlock()
	if agreed != nil {
		return agreed, nil
	}
	agreed, err := k.id.Unwrap([]*age.Stanza{{Type: stanzaType, Args: []string{stanzaBase64.EncodeToString(stanza[:encSize])}, Body: stanza[encSize:]}})
	if err != nil {
		return nil, fmt.Errorf("the payload key is not sealed to this provider: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.agreed) >= maxAgreed {
		clear(k.agreed)
	}
	k.agreed[sum] = agreed
	return agreed, nil
}
