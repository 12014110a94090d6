package consumer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/shallot-net/shallot/kit/fault"
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
}

// overhead is more than encryption adds to a payload of at most 64 KiB: header, nonce, tag.
const overhead = 512

// pack encrypts a payload once, whoever will run it. A large one goes into the repository as it is encrypted.
func (s *Service) pack(ctx context.Context, t *domain.Task, options []byte, parts []app.Part, c *app.Candidate) (packed, error) {
	h := &app.PayloadHeader{TaskID: t.ID, Type: t.Type, Options: options, Parts: make([]domain.Part, len(parts))}
	total := int64(0)
	for i, p := range parts {
		h.Parts[i] = domain.Part{Name: p.Name, Size: p.Size, SHA256: p.SHA256}
		total += p.Size
	}
	header := s.cfg.Codec.EncodePayloadHeader(h)
	total += 4 + int64(len(header))
	if total+overhead <= app.SmallLimit {
		var out bytes.Buffer
		out.Grow(int(total) + overhead)
		key, err := s.encrypt(&out, header, parts)
		if err != nil {
			return packed{}, err
		}
		return packed{key: key, ciphertext: out.Bytes(), hash: sha256.Sum256(out.Bytes()), size: int64(out.Len())}, nil
	}
	return s.packLarge(ctx, t, header, parts, c)
}

func (s *Service) packLarge(ctx context.Context, t *domain.Task, header []byte, parts []app.Part, c *app.Candidate) (packed, error) {
	persona := ""
	if c != nil {
		persona = c.Persona
	}
	r, w := io.Pipe()
	sum := sha256.New()
	count := &counter{}
	type made struct {
		key []byte
		err error
	}
	done := make(chan made, 1)
	go func() {
		key, err := s.encrypt(io.MultiWriter(w, sum, count), header, parts)
		w.CloseWithError(err)
		done <- made{key, err}
	}()
	cid, err := s.cfg.Repository.Put(ctx, persona, r, app.Pin{Owner: payloadOwner(t.ID), Keep: t.Clocks.Total})
	r.CloseWithError(io.ErrClosedPipe) // ends the goroutine when Put did not read to the end
	m := <-done
	if m.err != nil && !errors.Is(m.err, io.ErrClosedPipe) { // it is why Put failed
		return packed{}, m.err
	}
	if err != nil {
		return packed{}, err
	}
	return packed{key: m.key, cid: cid, hash: domain.Hash(sum.Sum(nil)), size: count.n}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }

// encrypt writes the ciphertext of header and parts, and returns its key.
func (s *Service) encrypt(dst io.Writer, header []byte, parts []app.Part) ([]byte, error) {
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
		return fmt.Errorf("the upload for %s has changed on disk", p.Name)
	}
	return nil
}
