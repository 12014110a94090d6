package grpcserver

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/tracing"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

const (
	// successionAfter is how long what the carrier had waits for its process to come back with another stream: streams end now and then, and are opened again within
	// milliseconds.
	successionAfter = time.Second
	// pushPatience is how long one session may take nothing while there are others: a process that is paused breaks no stream.
	pushPatience = 3 * time.Second
)

// Sessions are the streams of the node's processes. One of them carries: what is to be sent and what wants a provider goes to it alone, so that it goes in order and nothing goes
// twice. All hear how tasks change, since a user may wait for one at any of them. When the carrier ends, all that is not acknowledged is told to the next one. It implements
// app.Pusher.
type Sessions struct {
	Trace   *tracing.Tracer // nil: no spans
	mu      sync.Mutex
	open    []*session // the longest open first
	carrier *session
	last    string      // the node id of whoever carries or did last
	wait    *time.Timer // for it to come back; nil: nobody waits
	all     bool        // all are told of tasks: a consumer's
}

// Push tells the sessions what concerns them; without any it is dropped.
func (s *Sessions) Push(ctx context.Context, r app.Reply) { s.tell(ctx, &r, nil) }

// tell gives a reply to those that it concerns; but gets nothing.
func (s *Sessions) tell(ctx context.Context, r *app.Reply, but *session) {
	if r.Task == nil && len(r.Outbox) == 0 && r.Placement == nil {
		return
	}
	s.mu.Lock()
	carrier, others, several := s.carrier, s.others(), len(s.open) > 1
	s.mu.Unlock()
	news := app.Reply{Task: r.Task, Stdout: r.Stdout, HasStdout: r.HasStdout}
	if carrier != nil && carrier != but {
		part := news
		part.Outbox, part.Placement = r.Outbox, r.Placement
		s.give(ctx, carrier, &part, several)
	}
	if news.Task == nil {
		return
	}
	for _, one := range others {
		if one != but {
			s.give(ctx, one, &news, true)
		}
	}
}

// others are those that are told of tasks and do not carry. s.mu is held.
func (s *Sessions) others() []*session {
	if !s.all || len(s.open) == 0 || len(s.open) == 1 && s.open[0] == s.carrier {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.open), func(o *session) bool { return o == s.carrier })
}

// give ends a session that does not take what it is given, where there are others: its process opens another one and is told everything.
func (s *Sessions) give(ctx context.Context, one *session, r *app.Reply, impatient bool) {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if impatient {
		limited, cancel = context.WithTimeout(ctx, pushPatience)
	}
	defer cancel()
	if err := one.server.Push(limited, s.response(r)); err != nil && ctx.Err() == nil {
		one.end()
	}
}

// share divides what a command of one session has to say: what it returns is for that session itself.
func (s *Sessions) share(ctx context.Context, one *session, r app.Reply) app.Reply {
	s.tell(ctx, &r, one)
	s.mu.Lock()
	carries := s.carrier == one
	s.mu.Unlock()
	if !carries {
		r.Outbox, r.Placement = nil, nil
	}
	return r
}

// add takes a session that has said hello, and tells whether it carries from now on.
func (s *Sessions) add(one *session, nodeID string) (carries bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.open, one) { // it says hello again
		return s.carrier == one
	}
	one.nodeID = nodeID
	s.open = append(s.open, one)
	if s.carrier == nil && s.wait == nil || nodeID == s.last && nodeID != "" { // the stream before may be dead and not known to be
		s.lead(one)
	}
	return s.carrier == one
}

// lead has one session carry. s.mu is held.
func (s *Sessions) lead(one *session) {
	s.carrier, s.last = one, one.nodeID
	if s.wait != nil {
		s.wait.Stop()
		s.wait = nil
	}
}

// remove takes a session out. next is called with the one that carries instead, later, when nobody has taken that over until then.
func (s *Sessions) remove(one *session, next func(*session)) (left int, was bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.open)
	s.open = slices.DeleteFunc(s.open, func(o *session) bool { return o == one })
	if s.carrier == one {
		s.carrier = nil
		if len(s.open) > 0 {
			s.succeed(next)
		}
	}
	if len(s.open) == 0 && s.wait != nil {
		s.wait.Stop()
		s.wait = nil
	}
	return len(s.open), n > len(s.open)
}

// succeed waits a moment for the process that carried, and then has another one do so. s.mu is held.
func (s *Sessions) succeed(next func(*session)) {
	var t *time.Timer
	t = time.AfterFunc(successionAfter, func() {
		s.mu.Lock()
		mine := s.wait == t && len(s.open) > 0
		var one *session
		if mine {
			s.wait = nil
			one = s.open[0]
			s.lead(one)
		}
		s.mu.Unlock()
		if mine {
			next(one)
		}
	})
	s.wait = t
}

// setOnline notes what one session says of the network, and tells what holds for the node: it can be reached when one process can reach it.
func (s *Sessions) setOnline(one *session, online bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.online = &online
	any, _ := s.onlineLocked()
	return any || online
}

// online is whether any session says that the network can be reached; known is false while none has said anything.
func (s *Sessions) online() (online, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.onlineLocked()
}

func (s *Sessions) onlineLocked() (online, known bool) {
	for _, o := range s.open {
		if o.online != nil {
			online, known = online || *o.online, true
		}
	}
	return online, known
}

// carries tells whether a session does.
func (s *Sessions) carries(one *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carrier == one
}

// Len is how many sessions there are.
func (s *Sessions) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// left ends a session's part: what it was told is told to the next one, or nobody listens.
func (s *Service) left(one *session) {
	left, was := s.sessions.remove(one, s.promote)
	if !was {
		return
	}
	if left == 0 {
		s.cfg.Role.Lost()
		return
	}
	if online, known := s.sessions.online(); known {
		s.cfg.Role.SetOnline(context.Background(), online)
	}
}

// promote tells a session everything that is to be sent: the one that carried has gone.
func (s *Service) promote(one *session) {
	s.cfg.Log.Info("another process of the node carries the events now")
	if err := s.cfg.Role.Sync(one.ctx, func(r app.Reply) error { return one.push(one.ctx, s.sessions.response(&r)) }); err != nil && one.ctx.Err() == nil {
		s.cfg.Log.Warn("what a lost session was told could not be told to another", logging.Err(err))
		one.end() // its process opens another one, and begins with it
	}
}
