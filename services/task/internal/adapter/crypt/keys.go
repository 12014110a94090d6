package crypt

import (
	"context"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

// TaskKey is one task's key pair.
type TaskKey struct {
	id        *age.HybridIdentity
	recipient string
}

// Recipient is the public half.
func (k *TaskKey) Recipient() string { return k.recipient }

// Secret is the private half.
func (k *TaskKey) Secret() string { return k.id.String() }

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
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, fmt.Errorf("make a task key: %w", err)
	}
	return &TaskKey{id: id, recipient: id.Recipient().String()}, nil
}

// Parse reads a Secret.
func (*Keys) Parse(secret string) (app.TaskKey, error) {
	id, err := age.ParseHybridIdentity(secret)
	if err != nil {
		return nil, errors.New("the stored task key cannot be read")
	}
	return &TaskKey{id: id, recipient: id.Recipient().String()}, nil
}
