package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/padding"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// staged is a payload that was decrypted before its turn: a large one to files, or one whose references were looked for.
type staged struct {
	header  *app.PayloadHeader
	parts   []app.Part
	fetched bool // counted in Service.staging

	mu      sync.Mutex // held while parts and release change: parts are fetched side by side
	release func()     // removes its files, and lets go those that it shares
}

func (f *staged) remove() { f.release() }

// unpack decrypts the payload. clean removes what it put on disk; it is never nil.
func (s *Service) unpack(h *held, e *domain.Entry) (run app.Run, resultKey []byte, clean func(), err error) {
	run = app.Run{TaskID: e.TaskID, Attempt: e.Sub.Attempt, Limits: app.Limits(e.Limits)}
	h.mu.Lock()
	files, m := h.files, h.material
	h.files, h.material = nil, nil
	h.mu.Unlock()
	if files != nil {
		if files.fetched {
			s.mu.Lock()
			s.staging--
			s.pump()
			s.mu.Unlock()
		}
		run.Options, run.Parts = files.header.Options, files.parts
		return run, files.header.ResultKey, files.remove, nil
	}
	clean = func() {}
	if m == nil {
		stored, err := s.cfg.Store.Material(h.ctx, h.key)
		if err != nil {
			return run, nil, clean, err
		}
		m = &stored
	}
	header, plain, err := s.openSmall(e, m)
	if err != nil {
		return run, nil, clean, err
	}
	for i := range header.Parts {
		if header.Parts[i].Ref != nil {
			return run, nil, clean, invalid("the payload refers to content, and its submission does not say so")
		}
	}
	run.Options = header.Options
	run.Parts, err = cut(header, plain)
	return run, header.ResultKey, clean, err
}

func (s *Service) openKey(sealed []byte) ([]byte, error) {
	key, err := s.cfg.Key.OpenKey(sealed)
	if err != nil {
		return nil, invalid("the payload key is not sealed to this provider")
	}
	return key, nil
}

func (s *Service) decrypt(sealedKey []byte, src io.Reader) (io.Reader, error) {
	key, err := s.openKey(sealedKey)
	if err != nil {
		return nil, err
	}
	plain, err := s.cfg.Cipher.DecryptPayload(key, src)
	if err != nil {
		return nil, invalid("the payload cannot be decrypted with its key")
	}
	return plain, nil
}

func (s *Service) readHeader(e *domain.Entry, plain io.Reader, total int64) (*app.PayloadHeader, error) {
	b, err := app.ReadHeader(plain, total)
	if err != nil {
		return nil, invalid("the payload: " + err.Error())
	}
	h, err := s.cfg.Codec.DecodePayloadHeader(b)
	if err != nil {
		return nil, invalid("the payload's header: " + err.Error())
	}
	if h.TaskID != e.TaskID || h.Type != e.Sub.Type {
		return nil, invalid("the payload was made for another task or type")
	}
	return h, nil
}

// cut divides a small payload's bytes into its parts, without copying them; what is referred to stays empty.
func cut(h *app.PayloadHeader, b []byte) ([]app.Part, error) {
	parts := make([]app.Part, len(h.Parts))
	for i, p := range h.Parts {
		if p.Ref != nil {
			continue
		}
		if p.Size > int64(len(b)) {
			return nil, invalid(fmt.Sprintf("the payload ends within %s", p.Name))
		}
		data := b[:p.Size:p.Size]
		b = b[p.Size:]
		if domain.Hash(sha256.Sum256(data)) != p.SHA256 {
			return nil, invalid(p.Name + " is not what its hash says")
		}
		parts[i] = app.Part{Name: p.Name, Size: p.Size, SHA256: p.SHA256, Inline: data}
	}
	if int64(len(b)) != h.Padding || !padding.Zero(b) {
		return nil, invalid("what follows the payload's last part is not the padding that its header tells of")
	}
	return parts, nil
}

// Fetching a large payload.
const (
	fetchTries   = 7
	fetchPause   = 500 * time.Millisecond // doubled after each
	fetchTimeout = 10 * time.Minute       // for one try
)

// unread is the journal's error: what it is to be fetched with could not be read.
type unread struct{ error }

func (u unread) Unwrap() error { return u.error }

// fetch brings a large payload here, and queues the attempt; or settles it where that fails for good, or leaves it to whoever claims it when the store is well again.
func (s *Service) fetch(h *held) {
	var err error
	for try := range fetchTries {
		if try > 0 {
			select {
			case <-time.After(fetchPause << (try - 1)):
			case <-h.ctx.Done():
			}
		}
		if h.ctx.Err() != nil {
			err = h.ctx.Err()
			break
		}
		if err = s.stage(h); err == nil {
			break
		}
		var bad invalid
		if errors.As(err, &bad) || s.elsewhere(err) {
			break
		}
		s.cfg.Log.Warn("a payload could not be fetched", "error", err.Error())
	}
	s.mu.Lock()
	s.fetching--
	if err == nil && s.held[h.key] == h && !s.stopping {
		s.queue = append(s.queue, h)
		s.pump()
		s.mu.Unlock()
		return
	}
	s.staging--
	s.pump()
	s.mu.Unlock()
	h.discard()
	h.mu.Lock()
	cancelled := h.cancelled
	h.mu.Unlock()
	if s.elsewhere(err) && !cancelled && s.giveBack(h) {
		return
	}
	if err == nil { // cancelled or stopped meanwhile
		err = context.Canceled
	}
	out := s.interrupted(h, err)
	if out != nil && out.Cause == domain.CauseProvider {
		out.Reason, out.Message = app.ReasonPayloadUnavailable, "the provider could not fetch the payload"
	}
	s.settle(h, out, nil)
}

// elsewhere tells whether a payload that could not be fetched is for whoever claims its attempt next. What the repository says is said to all replicas.
func (s *Service) elsewhere(err error) bool {
	var no unread
	return errors.As(err, &no) && s.another(no.error)
}

// discard removes a payload that will not be run, where there is one, and tells whether it was fetched.
func (h *held) discard() bool {
	h.mu.Lock()
	files := h.files
	h.files = nil
	h.mu.Unlock()
	if files == nil {
		return false
	}
	files.remove()
	return files.fetched
}

// stage fetches, decrypts, checks and writes a payload and what it refers to, streaming.
func (s *Service) stage(h *held) error {
	ctx, cancel := context.WithTimeout(h.ctx, fetchTimeout)
	defer cancel()
	h.mu.Lock()
	e, m := h.entry, h.material
	h.mu.Unlock()
	if m == nil {
		stored, err := s.cfg.Store.Material(ctx, h.key)
		if err != nil {
			return unread{err}
		}
		m = &stored
	}
	files, err := s.stagePayload(ctx, e, m)
	if err == nil {
		err = s.bring(ctx, e, files)
	}
	if err != nil {
		if files != nil {
			files.remove()
		}
		return err
	}
	h.mu.Lock()
	h.files = files
	h.mu.Unlock()
	return nil
}

// stagePayload writes the payload itself. What it returns beside an error is to be removed.
func (s *Service) stagePayload(ctx context.Context, e *domain.Entry, m *app.Material) (*staged, error) {
	src := io.NopCloser(bytes.NewReader(m.Ciphertext))
	if e.Sub.PayloadCID != "" {
		var err error
		if src, err = s.cfg.Repository.Get(ctx, e.Persona, e.Sub.PayloadCID, append([]string{e.Consumer}, e.Path...), e.Sub.PayloadSize); err != nil {
			return nil, err
		}
	}
	defer src.Close()
	in := app.NewHashingReader(src)
	files, err := s.writeParts(e, m, in)
	if err == nil {
		if _, err = io.Copy(io.Discard, in); err == nil && (in.N != e.Sub.PayloadSize || in.Sum() != e.Sub.PayloadHash) {
			err = invalid("the payload is not what the submission says")
		}
	}
	if in.Err != nil { // the fetch broke off: that says nothing of the payload
		err = in.Err
	}
	return files, err
}

// smallPart is up to what size a part stays in memory, in bytes.
const smallPart = 64 << 10

func (s *Service) writeParts(e *domain.Entry, m *app.Material, in io.Reader) (*staged, error) {
	plain, err := s.decrypt(m.SealedKey, in)
	if err != nil {
		return nil, err
	}
	header, err := s.readHeader(e, plain, e.Sub.PayloadSize)
	if err != nil {
		return nil, err
	}
	dir, remove, err := s.cfg.Workspace.Make()
	if err != nil {
		return nil, err
	}
	f := &staged{header: header, parts: make([]app.Part, len(header.Parts)), fetched: true, release: remove}
	small := int64(0)
	for i, p := range header.Parts {
		if p.Ref != nil {
			continue
		}
		part := app.Part{Name: p.Name, Size: p.Size, SHA256: p.SHA256}
		var dst io.Writer
		var buf bytes.Buffer
		var file *os.File
		if small+p.Size <= smallPart {
			small += p.Size
			dst = &buf
		} else {
			part.Path = filepath.Join(dir, "part-"+strconv.Itoa(i))
			if file, err = os.OpenFile(part.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
				return f, err
			}
			dst = file
		}
		err := app.CopyPart(dst, plain, p)
		if file != nil {
			err = errors.Join(err, file.Close())
		} else {
			part.Inline = buf.Bytes()
		}
		if app.BadData(err) {
			return f, invalid("the payload's " + p.Name + ": " + err.Error())
		}
		if err != nil {
			return f, fmt.Errorf("write a payload's part: %w", err)
		}
		f.parts[i] = part
	}
	if err := app.AtEnd(plain, header.Padding); err != nil {
		return f, invalid("the payload: " + err.Error())
	}
	return f, nil
}
