// Package memstore is a store in memory, with the semantics of the real ones: it passes the same conformance suite.
// Tests and simulations use it; it can be told to fail, and to crash.
package memstore

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Store implements the stores of both roles.
type Store struct {
	mu       sync.Mutex
	tasks    map[string]*taskRow
	requests map[string]string
	entries  map[domain.EntryKey]*entryRow
	outbox   map[uint64]app.OutboxRow
	inbox    map[app.InboxID]bool
	releases map[releaseKey]app.ReleaseRow
	settings map[string][]byte
	shares   map[shareKey]app.ShareRow
	jobs     map[string]*jobRow
	later    []*app.Writes
	fail     func(w *app.Writes) error
	commits  int
}

var (
	_ consumer.Store = (*Store)(nil)
	_ provider.Store = (*Store)(nil)
)

type shareKey struct {
	persona, peer string
	sum           domain.Hash
}

type releaseKey struct {
	domain.Ref
	peer string
}

func keyOf(r app.ReleaseRow) releaseKey {
	return releaseKey{domain.Ref{TaskID: r.TaskID, Attempt: r.Attempt}, r.Peer}
}

// Records are kept encoded, as a real store does: what the caller changes afterwards stays the caller's.
type taskRow struct {
	record                []byte
	task                  *domain.Task
	secret, payload, body []byte
}

type entryRow struct {
	record   []byte
	entry    *domain.Entry
	material *app.Material
	result   []byte
}

// New makes an empty store.
func New() *Store {
	return &Store{tasks: make(map[string]*taskRow), requests: make(map[string]string), entries: make(map[domain.EntryKey]*entryRow),
		outbox: make(map[uint64]app.OutboxRow), inbox: make(map[app.InboxID]bool), releases: make(map[releaseKey]app.ReleaseRow), settings: make(map[string][]byte), shares: make(map[shareKey]app.ShareRow),
		jobs: make(map[string]*jobRow)}
}

// FailWith asks f before every Commit; its error fails the commit, which then writes nothing. nil ends it.
func (s *Store) FailWith(f func(w *app.Writes) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Crash loses what nobody has waited for, as the end of a process may.
func (s *Store) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later = nil
}

// Commits is how many commits there were.
func (s *Store) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// Commit implements app.Committer.
func (s *Store) Commit(ctx context.Context, w *app.Writes) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.flush()
	if s.fail != nil {
		if err := s.fail(w); err != nil {
			return err
		}
	}
	s.commits++
	return s.apply(w)
}

// Later implements app.Committer.
func (s *Store) Later(w *app.Writes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later = append(s.later, w)
}

// Flush applies what waits for a commit.
func (s *Store) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
}

func (s *Store) flush() {
	for _, w := range s.later {
		_ = s.apply(w) // a conflict drops it
	}
	s.later = nil
}

// apply checks everything before it writes anything.
func (s *Store) apply(w *app.Writes) error {
	if err := s.check(w); err != nil {
		return err
	}
	for _, id := range w.Inbox {
		s.inbox[id] = true
	}
	for i := range w.Tasks {
		s.writeTask(&w.Tasks[i])
	}
	for i := range w.Entries {
		s.writeEntry(&w.Entries[i])
	}
	for _, r := range w.Outbox {
		s.outbox[r.ID] = r
	}
	for _, id := range w.Sent {
		delete(s.outbox, id)
	}
	for _, r := range w.Releases {
		k := keyOf(r)
		if _, ok := s.releases[k]; !ok {
			s.releases[k] = r
		}
	}
	for _, r := range w.Released {
		delete(s.releases, keyOf(r))
	}
	if !w.ShareEnd.IsZero() {
		maps.DeleteFunc(s.shares, func(_ shareKey, r app.ShareRow) bool { return !r.Until.After(w.ShareEnd) })
	}
	for _, r := range w.Shares {
		s.shares[shareKey{r.Persona, r.Peer, r.SHA256}] = r
	}
	s.writeJobs(w)
	return nil
}

func (s *Store) check(w *app.Writes) error {
	for i, id := range w.Inbox {
		if s.inbox[id] || slices.Contains(w.Inbox[:i], id) {
			return app.ErrRepeated
		}
	}
	for _, t := range w.Tasks {
		row := s.tasks[t.Task.ID]
		switch {
		case t.Delete:
		case t.Insert && (row != nil || s.requests[t.Task.RequestID] != ""):
			return app.ErrExists
		case !t.Insert && (row == nil || row.task.Revision != t.Task.Revision-1):
			return app.ErrConflict
		}
	}
	for _, e := range w.Entries {
		row := s.entries[e.Entry.Key()]
		switch {
		case e.Delete:
		case e.Insert && row != nil:
			return app.ErrExists
		case !e.Insert && (row == nil || row.entry.Revision != e.Entry.Revision-1):
			return app.ErrConflict
		}
	}
	return s.checkJobs(w)
}

func (s *Store) writeTask(w *app.TaskWrite) {
	id := w.Task.ID
	if w.Delete {
		if row := s.tasks[id]; row != nil {
			delete(s.requests, row.task.RequestID)
		}
		delete(s.tasks, id)
		for k, r := range s.outbox {
			if r.TaskID == id {
				delete(s.outbox, k)
			}
		}
		return
	}
	row := s.tasks[id]
	if row == nil {
		row = &taskRow{secret: w.Secret, payload: w.Payload}
		s.tasks[id] = row
		s.requests[w.Task.RequestID] = id
	}
	row.record, row.task = encode(w.Task), decode[domain.Task](encode(w.Task))
	if w.Body != nil {
		row.body = w.Body
	}
	if w.Forget {
		row.secret, row.payload = nil, nil
	}
}

func (s *Store) writeEntry(w *app.EntryWrite) {
	k := w.Entry.Key()
	if w.Delete {
		delete(s.entries, k)
		return
	}
	row := s.entries[k]
	if row == nil {
		row = &entryRow{material: w.Material}
		s.entries[k] = row
	}
	row.record, row.entry = encode(w.Entry), decode[domain.Entry](encode(w.Entry))
	if w.Result != nil {
		row.result = w.Result
	}
	if w.Forget {
		row.material = nil
	}
	if w.DropResult {
		row.result = nil
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func decode[T any](b []byte) *T {
	v := new(T)
	if err := json.Unmarshal(b, v); err != nil {
		panic(err)
	}
	return v
}
