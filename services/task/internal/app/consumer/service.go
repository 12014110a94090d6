package consumer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Config is what a Service needs. Everything up to Pusher is required.
type Config struct {
	Store      Store
	Codec      app.Codec
	Cipher     app.Cipher
	Keys       app.TaskKeys
	Repository app.Repository
	Verifier   app.Verifier
	Results    Results
	Uploads    Uploads
	Logs       Logs
	Inputs     Inputs
	Pusher     app.Pusher

	// Validators by task type; a type without one is checked by its provider alone.
	Validators map[string]Validator
	Puzzle     app.PuzzleWork // what providers may ask for; nil: nothing is paid
	Metrics    app.Metrics
	Log        *slog.Logger
	// Anonymous: each task's content is its persona's own, and given to the provider that it is placed at alone; and bodies are padded before they are encrypted.
	Anonymous bool

	Lease         time.Duration // how long a provider may be silent; 15 s
	SubmitTimeout time.Duration // how long a submission is tried at one provider; 10 s
	CancelGrace   time.Duration // how long a cancelled task waits for its provider; 2 s
	Keep          time.Duration // how long a provider keeps a result; 24 h
	Retention     time.Duration // how long terminal tasks are kept; 0: for ever
	Redirect      bool          // whether a task may be handed on when its user did not say
	MaxResult     int64         // bytes of one result; 4 GiB
	MaxPayload    int64         // bytes of one payload; 4 GiB
	MaxEffort     uint32        // the largest effort that is paid for a submission; 16,384
	Collectors    int           // large results fetched side by side; 4
}

func (c Config) withDefaults() Config {
	set := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&c.Lease, 15*time.Second)
	set(&c.SubmitTimeout, 10*time.Second)
	set(&c.CancelGrace, 2*time.Second)
	set(&c.Keep, 24*time.Hour)
	if c.MaxResult <= 0 {
		c.MaxResult = 4 << 30
	}
	if c.MaxPayload <= 0 {
		c.MaxPayload = 4 << 30
	}
	if c.MaxEffort == 0 {
		c.MaxEffort = domain.DefaultMaxEffort
	}
	if c.Puzzle == nil {
		c.MaxEffort = 0
	}
	if c.Collectors <= 0 {
		c.Collectors = 4
	}
	if c.Metrics == nil {
		c.Metrics = app.NoMetrics{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Service is a consumer's use cases. It implements app.Role.
type Service struct {
	cfg       Config
	outbox    *app.Outbox
	alarms    *app.Alarms
	watch     *app.Watchers
	let       *releaser
	shares    shares
	payer     *payer
	leftovers *app.Leftovers
	jobs      *jobs
	collector *app.Work       // fetches large results
	ctx       context.Context // ends when Run does
	cancel    context.CancelFunc

	mu     sync.Mutex
	live   map[string]*live
	online bool
	known  bool   // node has said whether it is online
	asks   uint64 // how often all providers were asked
}

var _ app.Role = (*Service)(nil)

// New makes a Service; call Load before the first command, and Run beside it.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg.withDefaults(), outbox: app.NewOutbox(cfg.Codec), alarms: app.NewAlarms(), watch: app.NewWatchers(),
		live: make(map[string]*live), payer: newPayer()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.collector = app.NewWork(s.cfg.Collectors, s.collect)
	s.let = newReleaser(s)
	s.leftovers = &app.Leftovers{Kind: payloadKind, Repository: cfg.Repository, Wanted: s.wanted, Log: s.cfg.Log}
	s.jobs = newJobs(s)
	return s
}

// live is a task that somebody works on, or that is not over. Its fields are guarded by mu; task itself is never
// changed, only replaced.
type live struct {
	mu      sync.Mutex
	refs    int // guarded by Service.mu
	task    *domain.Task
	key     app.TaskKey // nil until needed
	payload []byte      // the payload key; nil until needed
	seal    app.Seal    // of the last attempt, where this process has made it; else nil
	lease   time.Time   // zero: not running
	rows    []uint64    // durable outbox rows that tell of it
	draft   *draft      // set while it is in memory alone
	// progress is what the provider last said of the attempt; it is worth no commit.
	progress        *domain.Progress
	progressAttempt uint32
	paying          *domain.Progress // of a provider's price, while that takes long
}

// edit is one change of a task, made under its lock.
type edit struct {
	*live
	now    time.Time
	t      *domain.Task // a clone: change it through its methods
	w      app.Writes
	reply  app.Reply
	body   []byte
	shard  *domain.Shard   // of a job, as the edit leaves it; nil where it stays as it is
	writes func()          // ends the writing of the shard; nil where it is not written
	sends  []app.OutboxRow // rows to be written, with attachments in attach
	attach [][]byte
	after  []func()
}

// errUnchanged ends an edit without a commit, and without an error.
var errUnchanged = errors.New("nothing to change")

// change runs fn on a clone of the task, commits what it did, and says it: in the reply, and to watchers. When fn returns
// an error nothing is changed. A task that somebody else changed meanwhile is read again, and fn runs again.
func (s *Service) change(ctx context.Context, id string, fn func(e *edit) error) (app.Reply, error) {
	for try := 0; ; try++ {
		l, err := s.acquire(ctx, id)
		if err != nil {
			return app.Reply{}, err
		}
		e := &edit{live: l, now: time.Now(), t: l.task.Clone()}
		err = fn(e)
		if err == nil {
			err = s.commit(ctx, e)
		}
		if errors.Is(err, app.ErrConflict) && try < 3 {
			l.task = nil // read again
			s.release(id, l)
			continue
		}
		if errors.Is(err, errUnchanged) {
			s.arm(e.live, id)
			v := View(l.task)
			e.reply.Task, err = &v, nil
		}
		s.release(id, l)
		if err != nil {
			return app.Reply{}, err
		}
		for _, f := range e.after {
			f()
		}
		return e.reply, nil
	}
}

// commit writes the edit and makes it what everybody sees.
func (s *Service) commit(ctx context.Context, e *edit) error {
	e.t.Revision++
	tw := app.TaskWrite{Task: e.t, Body: e.body, Forget: e.t.State.Terminal()}
	if d := e.draft; d != nil {
		tw.Insert, tw.Secret, tw.Payload = true, d.secret, d.payload
	}
	e.w.Tasks = append(e.w.Tasks, tw)
	if e.t.Shard != nil {
		if err := s.jobs.record(e); err != nil {
			return err
		}
	}
	e.w.Outbox = append(e.w.Outbox, e.sends...)
	if e.writes != nil {
		defer e.writes()
	}
	if err := s.cfg.Store.Commit(ctx, &e.w); err != nil {
		return err
	}
	s.committed(e)
	return nil
}

// committed is what follows a commit, under the task's lock.
func (s *Service) committed(e *edit) {
	was := e.task
	e.live.task = e.t
	s.outbox.Track(e.sends...)
	for i := range e.sends {
		e.rows = append(e.rows, e.sends[i].ID)
		e.reply.Outbox = append(e.reply.Outbox, e.sends[i].Outgoing(e.attach[i]))
	}
	v := View(e.t)
	e.reply.Task = &v
	if e.t.Shard != nil {
		s.jobs.recorded(e)
		e.live.draft = nil
	}
	s.watch.Tell(e.t.ID)
	s.arm(e.live, e.t.ID)
	if e.t.State.Terminal() && (was == nil || !was.State.Terminal()) {
		reason := ""
		if e.t.Error != nil {
			reason = e.t.Error.Reason
		}
		s.cfg.Metrics.Ended(e.t.State.String(), reason)
	}
}

// send adds a durable event to the edit.
func (e *edit) send(row app.OutboxRow, attachment []byte) {
	e.sends = append(e.sends, row)
	e.attach = append(e.attach, attachment)
}

// once adds an event that is not stored.
func (e *edit) once(out app.Outgoing) { e.reply.Outbox = append(e.reply.Outbox, out) }

// acquire locks a task, reading it where it is not in memory. NOT_FOUND when there is none.
func (s *Service) acquire(ctx context.Context, id string) (*live, error) {
	s.mu.Lock()
	l := s.live[id]
	if l == nil {
		l = &live{}
		s.live[id] = l
	}
	l.refs++
	s.mu.Unlock()
	l.mu.Lock()
	if l.task != nil {
		return l, nil
	}
	t, err := s.cfg.Store.Task(ctx, id)
	if err != nil {
		s.release(id, l)
		return nil, notFound(err, id)
	}
	l.task = t
	return l, nil
}

// release unlocks a task, and forgets it when it is over.
func (s *Service) release(id string, l *live) {
	over := l.task == nil || l.task.State.Terminal()
	l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.refs--; l.refs == 0 && over {
		delete(s.live, id)
	}
}

func notFound(err error, id string) error {
	if errors.Is(err, app.ErrNotFound) {
		return fault.NotFound("TASK_NOT_FOUND", "there is no task %q on this node", clip(id, 64)).With("task_id", clip(id, 64))
	}
	return err
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// address is where events about an attempt go.
func address(a *domain.Attempt) app.Address {
	return app.Address{Persona: a.Persona, Peer: a.Peer, Addresses: a.Addresses}
}

// View is a task as its user sees it.
func View(t *domain.Task) app.TaskView {
	v := app.TaskView{ID: t.ID, Type: t.Type, RequestID: t.RequestID, State: t.State, Attempts: uint32(len(t.Attempts)), ExitCode: t.ExitCode,
		Error: t.Error, CreatedAt: t.CreatedAt, StartedAt: t.StartedAt, FinishedAt: t.FinishedAt, Limits: t.Limits, Usage: t.Usage,
		Result: t.Result, Available: t.Result != nil && t.State.Terminal(), Labels: t.Labels, History: t.History, Revision: t.Revision}
	v.Replicas = t.Policy.Replicas
	if a := t.Current(); a != nil {
		v.Provider, v.ReplicaPeers = a.Peer, a.Replicas
	}
	if t.Receipt != nil {
		v.Provider = t.Receipt.Peer
		if a := t.Attempt(t.Receipt.Attempt); a != nil {
			v.ReplicaPeers = a.Replicas
		}
		if t.Receipt.Limits != (domain.Limits{}) {
			v.Limits = t.Receipt.Limits
		}
	}
	return v
}
