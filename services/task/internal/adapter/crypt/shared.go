package crypt

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

const (
	sharedPrefix = "shallot-result:"
	sharedStanza = "shallot-answer"
	sharedInfo   = "shallot result key"
	sharedSalt   = 16
)

// sharedKey is a task key that both sides have. It wraps an age file's key as age's own kinds of keys do, so that what follows is an age file like any other.
type sharedKey []byte

var (
	_ app.TaskKey   = sharedKey{}
	_ age.Recipient = sharedKey{}
	_ age.Identity  = sharedKey{}
)

// Shared implements app.TaskKeys.
func (*Keys) Shared() app.TaskKey {
	k := make(sharedKey, app.ResultKeySize)
	_, _ = rand.Read(k) // never fails
	return k
}

// Recipient implements app.TaskKey.
func (sharedKey) Recipient() string { return "" }

// ResultKey implements app.TaskKey.
func (k sharedKey) ResultKey() []byte { return k }

// Secret implements app.TaskKey.
func (k sharedKey) Secret() string { return sharedPrefix + keyBase64.EncodeToString(k) }

// Decrypt implements app.TaskKey.
func (k sharedKey) Decrypt(src io.Reader) (io.Reader, error) { return age.Decrypt(src, k) }

// Open implements app.TaskKey.
func (k sharedKey) Open(ciphertext []byte) ([]byte, error) { return open(ciphertext, k) }

// wrapping has a salt for each result, and so is used once: its nonce can be zero.
func (k sharedKey) wrapping(salt []byte) (key []byte, err error) {
	return hkdf.Key(sha256.New, k, salt, sharedInfo, chacha20poly1305.KeySize)
}

// Wrap implements age.Recipient.
func (k sharedKey) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	salt := make([]byte, sharedSalt)
	_, _ = rand.Read(salt) // never fails
	key, err := k.wrapping(salt)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: sharedStanza, Args: []string{stanzaBase64.EncodeToString(salt)}, Body: aead.Seal(nil, make([]byte, aead.NonceSize()), fileKey, nil)}}, nil
}

// Unwrap implements age.Identity.
func (k sharedKey) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != sharedStanza || len(s.Args) != 1 {
			continue
		}
		salt, err := stanzaBase64.Strict().DecodeString(s.Args[0])
		if err != nil || len(salt) != sharedSalt || len(s.Body) != payloadKeySize+tagSize {
			return nil, errors.New("the stanza does not have its form")
		}
		key, err := k.wrapping(salt)
		if err != nil {
			return nil, err
		}
		aead, err := chacha20poly1305.New(key)
		if err != nil {
			return nil, err
		}
		if fileKey, err := aead.Open(nil, make([]byte, aead.NonceSize()), s.Body, nil); err == nil {
			return fileKey, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}
