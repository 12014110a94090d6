package crypt

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/hpke"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

// A task key is an age key of the kind mlkem768x25519. It is used once, and so is not written in age's own text form: that is meant for
// people, and making and reading it costs as much as a third of the encryption. These prefixes are followed by the raw key
// in base64.
const (
	recipientPrefix = stanzaType + ":"
	secretPrefix    = stanzaType + "-secret:"
	pqLabel         = "age-encryption.org/" + stanzaType // of the stanza, by age's specification
)

var keyBase64 = base64.RawStdEncoding

// recipient is a task key's public half.
type recipient struct{ pk hpke.PublicKey }

// Wrap implements age.Recipient.
func (r recipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	enc, sender, err := hpke.NewSender(r.pk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(pqLabel))
	if err != nil {
		return nil, err
	}
	body, err := sender.Seal(nil, fileKey)
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: stanzaType, Args: []string{stanzaBase64.EncodeToString(enc)}, Body: body}}, nil
}

// parseRecipient reads a task key's public half, in this form or in age's.
func parseRecipient(text string) (age.Recipient, error) {
	raw, ours := strings.CutPrefix(text, recipientPrefix)
	if !ours {
		return age.ParseHybridRecipient(text)
	}
	b, err := keyBase64.DecodeString(raw)
	if err != nil {
		return nil, err
	}
	pk, err := hpke.MLKEM768X25519().NewPublicKey(b)
	return recipient{pk}, err
}

// identity is its private half.
type identity struct{ k hpke.PrivateKey }

// Unwrap implements age.Identity.
func (i identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != stanzaType || len(s.Args) != 1 {
			continue
		}
		enc, err := stanzaBase64.Strict().DecodeString(s.Args[0])
		if err != nil {
			return nil, err
		}
		if len(s.Body) != payloadKeySize+tagSize { // by age's specification: nothing longer can be a file key
			return nil, errors.New("the stanza does not have a file key's length")
		}
		r, err := hpke.NewRecipient(enc, i.k, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(pqLabel))
		if err != nil {
			return nil, err
		}
		if key, err := r.Open(nil, s.Body); err == nil {
			return key, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// TaskKey is one task's key pair.
type TaskKey struct {
	id        age.Identity
	secret    string
	recipient string
}

// Recipient is the public half.
func (k *TaskKey) Recipient() string { return k.recipient }

// ResultKey implements app.TaskKey: a key pair has none.
func (k *TaskKey) ResultKey() []byte { return nil }

// Secret is the private half.
func (k *TaskKey) Secret() string { return k.secret }

// Decrypt opens what was encrypted to the recipient.
func (k *TaskKey) Decrypt(src io.Reader) (io.Reader, error) { return age.Decrypt(src, k.id) }

// Open is Decrypt for a small ciphertext.
func (k *TaskKey) Open(ciphertext []byte) ([]byte, error) { return open(ciphertext, k.id) }

// Keys makes task keys ahead. Run fills it; without Run, Take makes each when it is asked for.
type Keys struct{ ready chan *TaskKey }

var _ app.TaskKeys = (*Keys)(nil)

// NewKeys keeps up to n keys ready.
func NewKeys(n int) *Keys { return &Keys{ready: make(chan *TaskKey, n)} }

// Run makes keys until ctx ends: one at a time, so that it never takes more than one core.
func (k *Keys) Run(ctx context.Context) error {
	for {
		key, err := newKey()
		if err != nil {
			return err
		}
		select {
		case k.ready <- key:
		case <-ctx.Done():
			return nil
		}
	}
}

// Take gives a key that nobody else gets.
func (k *Keys) Take() (app.TaskKey, error) {
	select {
	case key := <-k.ready:
		return key, nil
	default:
		return newKey()
	}
}

func newKey() (*TaskKey, error) {
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make a task key: %w", err)
	}
	return taskKey(k)
}

func taskKey(k hpke.PrivateKey) (*TaskKey, error) {
	b, err := k.Bytes()
	if err != nil {
		return nil, fmt.Errorf("make a task key: %w", err)
	}
	return &TaskKey{id: identity{k}, secret: secretPrefix + keyBase64.EncodeToString(b), recipient: recipientPrefix + keyBase64.EncodeToString(k.PublicKey().Bytes())}, nil
}

var errSecret = errors.New("the stored task key cannot be read") // it never quotes a secret

// Parse reads a Secret, in this form or in age's.
func (*Keys) Parse(secret string) (app.TaskKey, error) {
	if raw, ok := strings.CutPrefix(secret, sharedPrefix); ok {
		b, err := keyBase64.DecodeString(raw)
		if err != nil || len(b) != app.ResultKeySize {
			return nil, errSecret
		}
		return sharedKey(b), nil
	}
	raw, ours := strings.CutPrefix(secret, secretPrefix)
	if !ours {
		id, err := age.ParseHybridIdentity(secret)
		if err != nil {
			return nil, errSecret
		}
		return &TaskKey{id: id, secret: secret, recipient: id.Recipient().String()}, nil
	}
	b, err := keyBase64.DecodeString(raw)
	if err != nil {
		return nil, errSecret
	}
	k, err := hpke.MLKEM768X25519().NewPrivateKey(b)
	if err != nil {
		return nil, errSecret
	}
	key, err := taskKey(k)
	if err != nil {
		return nil, errSecret
	}
	return key, nil
}
