package consumer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"

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
	referred   int64 // bytes of what it refers to
}

// overhead is more than encryption adds to a payload of at most 64 KiB: header, nonce, tag.
const overhead = 512

// pack encrypts a payload once, whoever will run it. A large one goes into the repository as it is encrypted, and so do
// parts that other tasks may share, each for itself.
func (s *Service) pack(ctx context.Context, t *domain.Task, options []byte, parts []app.Part, c *app.Candidate) (packed, error) {
	persona := ""
	if c != nil {
		persona = c.Persona
	}
	h := &app.PayloadHeader{TaskID: t.ID, Type: t.Type, Options: options, Parts: make([]domain.Part, len(parts))}
	for i, p := range parts {
		h.Parts[i] = domain.Part{Name: p.Name, Size: p.Size, SHA256: p.SHA256}
	}
	referred, err := s.refer(ctx, h.Parts, parts, persona, t.CreatedAt.Add(t.Clocks.Total))
	if err != nil {
		return packed{}, err
	}
	header := s.cfg.Codec.EncodePayloadHeader(h)
	total := 4 + int64(len(header))
	var follow []app.Part
	for i, p := range parts {
		if h.Parts[i].Ref == nil {
			follow, total = append(follow, p), total+p.Size
		}
	}
	if s.cfg.Padded {
		h.Padding, total = app.Padding(total)
		header = s.cfg.Codec.EncodePayloadHeader(h)
	}
	var p packed
	if total+overhead <= app.SmallLimit {
		var out bytes.Buffer
		out.Grow(int(total) + overhead)
		p.key, err = s.encrypt(&out, header, follow, h.Padding)
		p.ciphertext, p.hash, p.size = out.Bytes(), sha256.Sum256(out.Bytes()), int64(out.Len())
	} else {
		p, err = s.encryptInto(ctx, persona, app.Pin{Owner: s.leftovers.Owner(t.ID), Keep: t.Clocks.Total}, func(dst io.Writer) ([]byte, error) {
			return s.encrypt(dst, header, follow, h.Padding)
		})
	}
	p.referred = referred
	return p, err
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
