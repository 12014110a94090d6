// Package memstore is a store in memory, with the semantics of the real ones: it passes the same conformance suite.
// Tests and simulations use it; it can be told to fail, and to crash.
package memstore

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

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
	persona string
	sum     domain.Hash
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
		s.shares[shareKey{r.Persona, r.SHA256}] = r
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

// Task implements consumer.Store.
func (s *Store) Task(_ context.Context, id string) (*domain.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.tasks[id]; row != nil {
		return decode[domain.Task](row.record), nil
	}
	return nil, app.ErrNotFound
}

// TaskByRequest implements consumer.Store.
func (s *Store) TaskByRequest(ctx context.Context, requestID string) (*domain.Task, error) {
	s.mu.Lock()
	id := s.requests[requestID]
	s.mu.Unlock()
	return s.Task(ctx, id)
}

func (s *Store) part(id string, get func(*taskRow) []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.tasks[id]; row != nil {
		return get(row), nil
	}
	return nil, app.ErrNotFound
}

// Secret implements consumer.Store.
func (s *Store) Secret(_ context.Context, id string) ([]byte, error) {
	return s.part(id, func(r *taskRow) []byte { return r.secret })
}

// Payload implements consumer.Store.
func (s *Store) Payload(_ context.Context, id string) ([]byte, error) {
	return s.part(id, func(r *taskRow) []byte { return r.payload })
}

// Body implements consumer.Store.
func (s *Store) Body(_ context.Context, id string) ([]byte, error) {
	return s.part(id, func(r *taskRow) []byte { return r.body })
}

func (s *Store) selectTasks(keep func(*domain.Task) bool) []*domain.Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*domain.Task
	for _, row := range s.tasks {
		if keep(row.task) {
			out = append(out, decode[domain.Task](row.record))
		}
	}
	return out
}

func (s *Store) selectEntries(keep func(*domain.Entry, *entryRow) bool) []*domain.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*domain.Entry
	for _, row := range s.entries {
		if keep(row.entry, row) {
			out = append(out, decode[domain.Entry](row.record))
		}
	}
	return out
}

func first[T any](s []T, n int) []T { return s[:min(len(s), n)] }

// OpenTasks implements consumer.Store.
func (s *Store) OpenTasks(_ context.Context, after string, limit int) ([]*domain.Task, error) {
	out := s.selectTasks(func(t *domain.Task) bool { return !t.State.Terminal() && t.ID > after })
	slices.SortFunc(out, func(a, b *domain.Task) int { return cmp.Compare(a.ID, b.ID) })
	return first(out, limit), nil
}

// ListTasks implements consumer.Store.
func (s *Store) ListTasks(_ context.Context, f app.TaskFilter) ([]*domain.Task, error) {
	out := s.selectTasks(func(t *domain.Task) bool {
		text := t.ID
		for k, v := range t.Labels {
			text += "\n" + k + "=" + v
		}
		if t.Error != nil {
			text += "\n" + t.Error.Reason + "\n" + t.Error.Message
		}
		return matches(f, t.ID, t.Type, t.State, t.CreatedAt, text)
	})
	slices.SortFunc(out, func(a, b *domain.Task) int { return newest(a.CreatedAt, b.CreatedAt, a.ID, b.ID) })
	return first(out, f.Limit), nil
}

// ListEntries implements provider.Store.
func (s *Store) ListEntries(_ context.Context, f app.TaskFilter) ([]*domain.Entry, error) {
	out := s.selectEntries(func(e *domain.Entry, _ *entryRow) bool {
		text := e.TaskID + "\n" + e.What
		if e.Outcome != nil {
			text += "\n" + e.Outcome.Reason + "\n" + e.Outcome.Message
		}
		return matches(f, e.TaskID, e.Sub.Type, e.State, e.CreatedAt, text)
	})
	slices.SortFunc(out, func(a, b *domain.Entry) int { return newest(a.CreatedAt, b.CreatedAt, a.TaskID, b.TaskID) })
	return first(out, f.Limit), nil
}

// Stores compare microseconds.
func newest(a, b time.Time, ida, idb string) int {
	return cmp.Or(cmp.Compare(b.UnixMicro(), a.UnixMicro()), cmp.Compare(idb, ida))
}

func matches(f app.TaskFilter, id, typ string, st domain.State, created time.Time, text string) bool {
	switch {
	case len(f.States) > 0 && !slices.Contains(f.States, st),
		f.Type != "" && f.Type != typ,
		!f.CreatedAfter.IsZero() && created.UnixMicro() <= f.CreatedAfter.UnixMicro(),
		!f.CreatedBefore.IsZero() && created.UnixMicro() >= f.CreatedBefore.UnixMicro(),
		f.Text != "" && !strings.Contains(strings.ToLower(text), strings.ToLower(f.Text)),
		!f.After.At.IsZero() && newest(f.After.At, created, f.After.ID, id) >= 0:
		return false
	}
	return true
}

// FinishedBefore implements consumer.Store.
func (s *Store) FinishedBefore(_ context.Context, t time.Time, limit int) ([]string, error) {
	var ids []string
	for _, task := range s.selectTasks(func(x *domain.Task) bool { return x.State.Terminal() && x.FinishedAt.Before(t) }) {
		ids = append(ids, task.ID)
	}
	return first(ids, limit), nil
}

// Releases implements consumer.Store.
func (s *Store) Releases(_ context.Context, limit int) ([]app.ReleaseRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []app.ReleaseRow
	for _, r := range s.releases {
		out = append(out, r)
	}
	return first(out, limit), nil
}

// Share implements consumer.Store.
func (s *Store) Share(_ context.Context, persona string, sum domain.Hash) (app.ShareRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.shares[shareKey{persona, sum}]; ok {
		return r, nil
	}
	return app.ShareRow{}, app.ErrNotFound
}

// Outbox implements app.OutboxReader.
func (s *Store) Outbox(_ context.Context, after uint64, limit int) ([]app.OutboxRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []app.OutboxRow
	for id, r := range s.outbox {
		if id > after {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b app.OutboxRow) int { return cmp.Compare(a.ID, b.ID) })
	return first(out, limit), nil
}

// Entry implements provider.Store.
func (s *Store) Entry(_ context.Context, k domain.EntryKey) (*domain.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.entries[k]; row != nil {
		return decode[domain.Entry](row.record), nil
	}
	return nil, app.ErrNotFound
}

// Entries implements provider.Store.
func (s *Store) Entries(_ context.Context, taskID string) ([]*domain.Entry, error) {
	out := s.selectEntries(func(e *domain.Entry, _ *entryRow) bool { return e.TaskID == taskID })
	slices.SortFunc(out, func(a, b *domain.Entry) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return first(out, 64), nil
}

// OpenEntries implements provider.Store.
func (s *Store) OpenEntries(context.Context) ([]*domain.Entry, error) {
	out := s.selectEntries(func(e *domain.Entry, _ *entryRow) bool { return !e.State.Terminal() })
	slices.SortFunc(out, func(a, b *domain.Entry) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out, nil
}

// KeptEntries implements provider.Store.
func (s *Store) KeptEntries(_ context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error) {
	return s.page(after, limit, func(_ *domain.Entry, r *entryRow) bool { return r.result != nil }), nil
}

// Replicated implements provider.Store.
func (s *Store) Replicated(_ context.Context, after domain.EntryKey, limit int) ([]*domain.Entry, error) {
	return s.page(after, limit, func(e *domain.Entry, _ *entryRow) bool { return e.IsReplica() && !e.Collected || e.Replicates() }), nil
}

// page gives entries by their keys.
func (s *Store) page(after domain.EntryKey, limit int, keep func(*domain.Entry, *entryRow) bool) []*domain.Entry {
	compare := func(a, b domain.EntryKey) int {
		return cmp.Or(cmp.Compare(a.TaskID, b.TaskID), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Consumer, b.Consumer))
	}
	out := s.selectEntries(func(e *domain.Entry, r *entryRow) bool { return keep(e, r) && compare(e.Key(), after) > 0 })
	slices.SortFunc(out, func(a, b *domain.Entry) int { return compare(a.Key(), b.Key()) })
	return first(out, limit)
}

// Overdue implements provider.Store.
func (s *Store) Overdue(_ context.Context, now time.Time, limit int) ([]*domain.Entry, error) {
	out := s.selectEntries(func(e *domain.Entry, _ *entryRow) bool { return e.State.Terminal() && !e.ForgetAt.After(now) })
	slices.SortFunc(out, func(a, b *domain.Entry) int { return a.ForgetAt.Compare(b.ForgetAt) })
	return first(out, limit), nil
}

// Material implements provider.Store.
func (s *Store) Material(_ context.Context, k domain.EntryKey) (app.Material, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.entries[k]
	if row == nil {
		return app.Material{}, app.ErrNotFound
	}
	if row.material == nil {
		return app.Material{}, nil
	}
	return *row.material, nil
}

// Result implements provider.Store.
func (s *Store) Result(_ context.Context, k domain.EntryKey) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row := s.entries[k]; row != nil {
		return row.result, nil
	}
	return nil, app.ErrNotFound
}

// Setting returns a value that is made once.
func (s *Store) Setting(_ context.Context, name string, make func() ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.settings[name]; ok {
		return v, nil
	}
	v, err := make()
	if err == nil {
		s.settings[name] = v
	}
	return v, err
}
