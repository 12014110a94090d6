package consumer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/padding"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// packed is an encrypted payload.
type packed struct {
	key        []byte
	ciphertext []byte // where it is small
	cid        string // where it is not
	hash       domain.Hash
	size       int64
	referred   int64    // bytes of what it refers to
	refs       []string // its CIDs
}

// of makes it a task's payload. What is granted to one provider cannot be handed on to another.
func (p *packed) of(t *domain.Task, anonymous bool) {
	t.PayloadHash, t.PayloadSize, t.PayloadCID, t.RefSize = p.hash, p.size, p.cid, p.referred
	if !anonymous {
		return
	}
	if t.Refs = p.refs; len(t.Content()) > 0 {
		t.Policy.Redirect = false
	}
}

// overhead is more than encryption adds to a payload of at most 64 KiB: header, nonce, tag.
const overhead = 512

// pack encrypts a payload once, whoever will run it. A large one goes into the repository as it is encrypted, and so do
// parts that other tasks may share, each for itself. In anonymous mode it is made for one provider; where none is known yet, it refers to nothing, and Place gives
// it to whom it is sent.
func (s *Service) pack(ctx context.Context, t *domain.Task, key app.TaskKey, options []byte, parts []app.Part, c *app.Candidate) (packed, error) {
	var to recipient
	if c != nil {
		to.persona = c.Persona
		if s.cfg.Anonymous {
			to.peer = c.Peer
		}
	}
	h := &app.PayloadHeader{TaskID: t.ID, Type: t.Type, Options: options, Parts: make([]domain.Part, len(parts)), ResultKey: key.ResultKey()}
	for i, p := range parts {
		h.Parts[i] = domain.Part{Name: p.Name, Size: p.Size, SHA256: p.SHA256}
	}
	var refs []string
	var referred int64
	if c != nil || !s.cfg.Anonymous {
		var err error
		if refs, referred, err = s.refer(ctx, h.Parts, parts, to, t.CreatedAt.Add(t.Clocks.Total)); err != nil {
			return packed{}, err
		}
	}
	header := s.cfg.Codec.EncodePayloadHeader(h)
	total := 4 + int64(len(header))
	var follow []app.Part
	for i, p := range parts {
		if h.Parts[i].Ref == nil {
			follow, total = append(follow, p), total+p.Size
		}
	}
	if s.cfg.Anonymous {
		h.Padding, total = app.Padding(total)
		header = s.cfg.Codec.EncodePayloadHeader(h)
	}
	var p packed
	var err error
	if total+overhead <= app.SmallLimit {
		var out bytes.Buffer
		out.Grow(int(total) + overhead)
		p.key, err = s.encrypt(&out, header, follow, h.Padding)
		p.ciphertext, p.hash, p.size = out.Bytes(), sha256.Sum256(out.Bytes()), int64(out.Len())
	} else {
		p, err = s.encryptInto(ctx, to.persona, app.Pin{Owner: s.leftovers.Owner(t.ID), Keep: t.Clocks.Total, Readers: to.readers()}, func(dst io.Writer) ([]byte, error) {
			return s.encrypt(dst, header, follow, h.Padding)
		})
	}
	p.referred, p.refs = referred, refs
	return p, err
}

// recipient is for whom content is made.
type recipient struct {
	persona string // whose it is
	peer    string // the provider, in anonymous mode
}

func (r recipient) readers() []string {
	if r.peer == "" {
		return nil
	}
	return []string{r.peer}
}

// grant gives a task's content to the provider that it is placed at: it may have been made for another one, or before there was any.
func (s *Service) grant(ctx context.Context, t *domain.Task, c *app.Candidate) error {
	if !s.cfg.Anonymous {
		return nil
	}
	pin := app.Pin{Owner: s.leftovers.Owner(t.ID), Keep: max(time.Until(t.CreatedAt.Add(t.Clocks.Total)), time.Second), Readers: []string{c.Peer}}
	for _, cid := range t.Content() {
		err := s.cfg.Repository.Renew(ctx, c.Persona, cid, pin)
		if errors.Is(err, app.ErrNotFound) {
			return fault.FailedPrecondition("CONTENT_GONE", "what task %s refers to is not in the repository any more: cancel the task and submit it again", t.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// encryptInto puts into the repository what encrypt writes. encrypt returns the ciphertext's key.
func (s *Service) encryptInto(ctx context.Context, persona string, pin app.Pin, encrypt func(dst io.Writer) ([]byte, error)) (packed, error) {
	r, w := io.Pipe()
	sum := app.NewHashingWriter(w)
	type made struct {
		key []byte
		err error
	}
	done := make(chan made, 1)
	go func() {
		key, err := encrypt(sum)
		w.CloseWithError(err)
		done <- made{key, err}
	}()
	cid, err := s.cfg.Repository.Put(ctx, persona, r, pin)
	r.CloseWithError(io.ErrClosedPipe) // ends the goroutine when Put did not read to the end
	m := <-done
	if m.err != nil && !errors.Is(m.err, io.ErrClosedPipe) { // it is why Put failed
		return packed{}, m.err
	}
	if err != nil {
		return packed{}, err
	}
	return packed{key: m.key, cid: cid, hash: sum.Sum(), size: sum.N}, nil
}

// encrypt writes the ciphertext of header, parts and padding, and returns its key.
func (s *Service) encrypt(dst io.Writer, header []byte, parts []app.Part, pad int64) ([]byte, error) {
	w, key, err := s.cfg.Cipher.EncryptPayload(dst)
	if err != nil {
		return nil, err
	}
	if err := app.WriteHeader(w, header); err != nil {
		return nil, err
	}
	for i := range parts {
		if err := copyPart(w, &parts[i]); err != nil {
			return nil, err
		}
	}
	if err := padding.Write(w, pad); err != nil {
		return nil, err
	}
	return key, w.Close()
}

// copyPart writes a part and makes sure that it still is what its hash says.
func copyPart(w io.Writer, p *app.Part) error {
	if p.Path == "" {
		_, err := w.Write(p.Inline)
		return err
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return fault.NotFound("UPLOAD_NOT_FOUND", "the upload for %s is gone: send it again", p.Name).Because(err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(f, p.Size+1))
	if err != nil {
		return err
	}
	if n != p.Size || [32]byte(sum.Sum(nil)) != p.SHA256 {
		return fault.FailedPrecondition("UPLOAD_CHANGED", "the upload for %s has changed on disk: send it again", p.Name)
	}
	return nil
}
