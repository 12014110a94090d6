package crypt

import (
	"bytes"
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

	// The short form has, in place of the stanza, the beginning of its hash: of one that the provider has opened before.
	namedVersion = 3
	nameSize     = 16
	namedSize    = 1 + nameSize + nonceSize + payloadKeySize + tagSize

	// An agreed key is used for so many payload keys, or so long.
	agreeUses = 256
	agreeTime = time.Minute
	maxAgreed = 1024
	// lostTime is how long nothing is named to a provider that did not know it: it may be several processes, each of which has opened something else.
	lostTime = 10 * time.Minute
)

var stanzaBase64 = base64.RawStdEncoding

// agreedWith: an agreement is never shared by two scopes, because it can be recognised.
type agreedWith struct{ scope, sealingKey string }

type agreement struct {
	stanza []byte
	name   [nameSize]byte
	key    []byte
	since  time.Time

	// Guarded by Cipher.mu.
	uses  int
	heard bool // the provider has it
}

// seal is an app.Seal.
type seal struct {
	cipher *Cipher
	with   agreedWith
	made   *agreement
	named  bool
}

// Heard implements app.Seal.
func (s *seal) Heard() {
	s.cipher.mu.Lock()
	defer s.cipher.mu.Unlock()
	s.made.heard = true
}

// Lost implements app.Seal.
func (s *seal) Lost() bool {
	s.cipher.mu.Lock()
	defer s.cipher.mu.Unlock()
	c := s.cipher
	if c.agreed[s.with] == s.made {
		delete(c.agreed, s.with)
	}
	if s.named {
		if len(c.lost) >= maxAgreed {
			clear(c.lost)
		}
		c.lost[s.with.sealingKey] = time.Now().Add(lostTime)
	}
	return s.named
}

// SealKey implements app.Cipher.
func (c *Cipher) SealKey(key []byte, sealingKey, scope string) ([]byte, app.Seal, error) {
	if len(key) != payloadKeySize {
		return nil, nil, errors.New("a payload key has 16 bytes")
	}
	with := agreedWith{scope, sealingKey}
	a, known, err := c.agree(with)
	if err != nil {
		return nil, nil, err
	}
	out := make([]byte, 0, sealSize)
	if known {
		out = append(append(out, namedVersion), a.name[:]...)
	} else {
		out = append(append(out, sealVersion), a.stanza...)
	}
	nonce := out[len(out) : len(out)+nonceSize]
	_, _ = rand.Read(nonce) // never fails
	aead, err := inner(a.key, nonce)
	if err != nil {
		return nil, nil, err
	}
	return aead.Seal(out[:len(out)+nonceSize], make([]byte, aead.NonceSize()), key, nil), &seal{c, with, a, known}, nil
}

// agree gives what is agreed on with a provider, and tells whether the provider has it.
func (c *Cipher) agree(with agreedWith) (a *agreement, known bool, err error) {
	now := time.Now()
	c.mu.Lock()
	a = c.agreed[with]
	if a != nil && a.uses < agreeUses && now.Sub(a.since) < agreeTime {
		a.uses++
		known = a.heard && with.scope != "" && now.After(c.lost[with.sealingKey]) // without personas nobody counts bytes
		c.mu.Unlock()
		return a, known, nil
	}
	c.mu.Unlock()
	r, err := c.parse(with.sealingKey)
	if err != nil {
		return nil, false, fault.InvalidArgument("SEALING_KEY_INVALID", "the provider's sealing key is not a hybrid age recipient").Because(err)
	}
	a = &agreement{key: make([]byte, payloadKeySize), uses: 1, since: now}
	_, _ = rand.Read(a.key) // never fails
	if a.stanza, err = wrap(r, a.key); err != nil {
		return nil, false, fmt.Errorf("seal a payload key: %w", err)
	}
	sum := sha256.Sum256(a.stanza)
	a.name = [nameSize]byte(sum[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.agreed) >= maxAgreed {
		clear(c.agreed)
	}
	c.agreed[with] = a
	return a, false, nil
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
	agreed map[[nameSize]byte]opened // by the stanza's name
}

// opened is an agreement of a sender's.
type opened struct{ stanza, key []byte }

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
	return &SealingKey{id: id, recipient: id.Recipient().String(), agreed: make(map[[nameSize]byte]opened)}, nil
}

// Recipient is what others seal to.
func (k *SealingKey) Recipient() string { return k.recipient }

// Whole implements app.SealingKey.
func (k *SealingKey) Whole(sealed []byte) ([]byte, error) {
	if len(sealed) != namedSize || sealed[0] != namedVersion {
		return sealed, nil
	}
	k.mu.Lock()
	o, ok := k.agreed[[nameSize]byte(sealed[1:])]
	k.mu.Unlock()
	if !ok {
		return nil, app.ErrSealUnknown
	}
	out := append(make([]byte, 0, sealSize), sealVersion)
	return append(append(out, o.stanza...), sealed[1+nameSize:]...), nil
}

// OpenKey opens what SealKey made, when whole.
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
	name := [nameSize]byte(sum[:])
	k.mu.Lock()
	o := k.agreed[name]
	k.mu.Unlock()
	if bytes.Equal(o.stanza, stanza) {
		return o.key, nil
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
	k.agreed[name] = opened{bytes.Clone(stanza), agreed}
	return agreed, nil
}
