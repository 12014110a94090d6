package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// partName is what a part that came by reference is kept under. It takes the reference's key to know it: the hash of
// somebody's input file must not be enough to have a program read it.
func partName(p *domain.Part) string {
	h := sha256.New()
	for _, b := range [][]byte{[]byte(p.Ref.CID), p.Ref.Key, p.SHA256[:]} {
		h.Write([]byte{byte(len(b))}) // none has more than 255 bytes
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ready decrypts a small payload whose references are all here, so that it can run at once. Whatever is wrong with another
// is found out when it is fetched.
func (s *Service) ready(h *held, sealed *app.Material) bool {
	header, plain, err := s.openSmall(h.entry, sealed)
	if err != nil {
		return false
	}
	f := &staged{header: header, release: func() {}}
	if f.parts, err = cut(header, plain); err != nil {
		return false
	}
	for i := range header.Parts {
		if header.Parts[i].Ref != nil && !s.find(f, i) {
			f.remove()
			return false
		}
	}
	h.files = f
	return true
}

// openSmall decrypts a payload that came inline.
func (s *Service) openSmall(e *domain.Entry, m *app.Material) (*app.PayloadHeader, []byte, error) {
	key, err := s.openKey(m.SealedKey)
	if err != nil {
		return nil, nil, err
	}
	plain, err := s.cfg.Cipher.OpenPayload(key, m.Ciphertext)
	if err != nil {
		return nil, nil, invalid("the payload cannot be decrypted with its key")
	}
	src := bytes.NewReader(plain)
	header, err := s.readHeader(e, src, int64(len(plain)))
	if err != nil {
		return nil, nil, err
	}
	return header, plain[len(plain)-src.Len():], nil
}

// find takes a part from those that are kept.
func (s *Service) find(f *staged, i int) bool {
	p := &f.header.Parts[i]
	path, release, err := s.cfg.Parts.Find(partName(p), *p)
	if err != nil {
		return false
	}
	f.keep(i, path, release)
	return true
}

// keep makes a file one of the payload's parts, until the payload is removed.
func (f *staged) keep(i int, path string, release func()) {
	p := &f.header.Parts[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts[i] = app.Part{Name: p.Name, Size: p.Size, SHA256: p.SHA256, Path: path}
	before := f.release
	f.release = func() { before(); release() }
}

// bringAtOnce is how many parts of one payload are fetched side by side: each costs a way there and back, and a directory may have hundreds.
const bringAtOnce = 4

// bring fetches what the payload refers to and is not here. Several tasks that want the same wait for one fetch.
func (s *Service) bring(ctx context.Context, e *domain.Entry, f *staged) error {
	total, todo := int64(0), make(chan int, len(f.header.Parts))
	for i := range f.header.Parts {
		p := &f.header.Parts[i]
		if p.Ref == nil {
			continue
		}
		if total += p.Ref.Size; total > e.Sub.RefSize || total < 0 {
			return invalid("the payload refers to more than its submission says")
		}
		todo <- i
	}
	close(todo)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	for range min(bringAtOnce, len(todo)) {
		workers.Go(func() {
			for i := range todo {
				if ctx.Err() != nil {
					return
				}
				if err := s.bringPart(ctx, e, f, i); err != nil {
					cancel(err) // the first counts: those after it may be no more than cut off
					return
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

func (s *Service) bringPart(ctx context.Context, e *domain.Entry, f *staged, i int) error {
	if s.find(f, i) {
		return nil
	}
	p := &f.header.Parts[i]
	name := partName(p)
	unlock, err := s.bringing.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if s.find(f, i) {
		return nil
	}
	src, err := s.cfg.Repository.Get(ctx, e.Persona, p.Ref.CID, append([]string{e.Consumer}, e.Path...), p.Ref.Size)
	if err != nil {
		return err
	}
	defer src.Close()
	out, err := s.cfg.Parts.Create()
	if err != nil {
		return err
	}
	defer out.Drop()
	if err := s.copyReferred(out, src, p); err != nil {
		return err
	}
	path, release, err := out.Keep(name, *p)
	if err != nil {
		return err
	}
	f.keep(i, path, release)
	return nil
}

func (s *Service) copyReferred(dst io.Writer, src io.Reader, p *domain.Part) error {
	in := app.NewHashingReader(src)
	plain, err := s.cfg.Cipher.DecryptPayload(p.Ref.Key, in)
	if err == nil {
		if err = app.CopyPart(dst, plain, *p); err == nil {
			err = app.AtEnd(plain, p.Ref.Padding)
		}
	} else {
		err = errNotDecrypted
	}
	switch {
	case in.Err != nil: // the fetch broke off: that says nothing of the content
		return in.Err
	case errors.Is(err, errNotDecrypted), app.BadData(err):
		return invalid("the content that " + p.Name + " refers to: " + err.Error())
	case err != nil:
		return fmt.Errorf("write a payload's part: %w", err)
	}
	return nil
}

var errNotDecrypted = errors.New("it cannot be decrypted with its key")
