package consumer

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/bounded"
	"github.com/shallot-net/shallot/kit/padding"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	// shareFrom is from which size, in bytes, a part is content of its own: tasks come in numbers, and their
	// programs and reference data stay the same. Below it a reference saves less than the first fetch costs.
	shareFrom = 32 << 10
	// shareSlack is how much longer than its task needs a shared part is pinned, so that the next tasks renew nothing.
	shareSlack = 24 * time.Hour
	// shareSlackAnonymous is the same where each persona has its own, and few tasks.
	shareSlackAnonymous = 10 * time.Minute
	maxShares           = 4096 // remembered, and as many of those that were no shares yet
)

// shareable tells whether a part is worth a reference. Stdin is what differs between tasks, until it comes a second time: a program may be run on the same
// data with other arguments.
func (s *shares) shareable(k shareKey, p *app.Part) bool {
	return p.Size >= shareFrom && (p.Name == app.PartModule || strings.HasPrefix(p.Name, app.PrefixInput) || s.again(k))
}

// again tells whether a part was asked about before, as far as is remembered.
func (s *shares) again(k shareKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = bounded.New[shareKey, struct{}](maxShares)
	}
	_, ok := s.seen.Get(k)
	s.seen.Put(k, struct{}{})
	return ok
}

type shareKey struct {
	recipient
	sum domain.Hash
}

func (k shareKey) owner() string { return "share:" + k.sum.String() }

// shares are the parts that this process has made content of their own, or found to be.
type shares struct {
	locks app.Locks[shareKey]
	mu    sync.Mutex
	known map[shareKey]app.ShareRow
	seen  *bounded.Map[shareKey, struct{}] // what is shared when it comes again
}

func (s *shares) get(k shareKey, until time.Time) (*domain.Reference, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.known[k]
	if !ok || row.Until.Before(until) {
		return nil, false
	}
	return &row.Ref, true
}

func (s *shares) put(k shareKey, row app.ShareRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxShares {
		s.known = make(map[shareKey]app.ShareRow)
	}
	s.known[k] = row
}

// doubt has every share looked at again before it is used: a provider could not fetch one.
func (s *shares) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = nil
}

// refer replaces parts by references where that is worth it. It returns what a provider may have to fetch, and how much that is, in bytes.
func (s *Service) refer(ctx context.Context, infos []domain.Part, parts []app.Part, to recipient, until time.Time) (refs []string, size int64, err error) {
	for i := range parts {
		k := shareKey{to, parts[i].SHA256}
		if !s.shares.shareable(k, &parts[i]) {
			continue
		}
		if infos[i].Ref, err = s.share(ctx, k, &parts[i], until); err != nil {
			return nil, 0, err
		}
		infos[i].Ref.Padding = s.sharePadding(parts[i].Size)
		size += infos[i].Ref.Size
		refs = append(refs, infos[i].Ref.CID)
	}
	return refs, size, nil
}

// share makes a part content of its own that is there until the given time; or finds that it is, and sees to it that it stays.
func (s *Service) share(ctx context.Context, k shareKey, p *app.Part, until time.Time) (*domain.Reference, error) {
	if r, ok := s.shares.get(k, until); ok {
		return r, nil
	}
	unlock, err := s.shares.locks.Lock(ctx, k)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r, ok := s.shares.get(k, until); ok {
		return r, nil
	}
	keep := time.Until(until) + shareSlack
	if s.cfg.Anonymous {
		keep = time.Until(until) + shareSlackAnonymous
	}
	row, err := s.cfg.Store.Share(ctx, k.persona, k.peer, k.sum)
	if err == nil {
		err = s.cfg.Repository.Renew(ctx, k.persona, row.Ref.CID, app.Pin{Owner: k.owner(), Keep: keep, Readers: k.readers()})
	}
	if errors.Is(err, app.ErrNotFound) { // never made, or the repository has lost it
		row, err = s.makeShare(ctx, k, p, keep)
	}
	if err != nil {
		return nil, err
	}
	row.Until = time.Now().Add(keep)
	if err := s.cfg.Store.Commit(ctx, &app.Writes{Shares: []app.ShareRow{row}}); err != nil {
		return nil, err // what was put goes when its pin ends
	}
	s.shares.put(k, row)
	return &row.Ref, nil
}

// sharePadding is how many zeros follow a part of so many bytes that is content of its own.
func (s *Service) sharePadding(size int64) int64 {
	if !s.cfg.Anonymous {
		return 0
	}
	return padding.Size(size) - size
}

func (s *Service) makeShare(ctx context.Context, k shareKey, p *app.Part, keep time.Duration) (app.ShareRow, error) {
	put, err := s.encryptInto(ctx, k.persona, app.Pin{Owner: k.owner(), Keep: keep, Readers: k.readers()}, func(dst io.Writer) ([]byte, error) {
		w, key, err := s.cfg.Cipher.EncryptPayload(dst)
		if err != nil {
			return nil, err
		}
		if err := copyPart(w, p); err != nil {
			return nil, err
		}
		if err := padding.Write(w, s.sharePadding(p.Size)); err != nil {
			return nil, err
		}
		return key, w.Close()
	})
	if err != nil {
		return app.ShareRow{}, err
	}
	return app.ShareRow{Persona: k.persona, Peer: k.peer, SHA256: k.sum, Ref: domain.Reference{CID: put.cid, Key: put.key, Size: put.size}}, nil
}
