package grpcserver

import (
	"context"
	"errors"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/rpc/mux"
	"github.com/shallot-net/shallot/kit/tracing"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// session is one node process.
type session struct {
	service *Service
	server  *mux.Server[*taskv1.SessionRequest, *taskv1.SessionResponse]
	hello   atomic.Bool
	ctx     context.Context // ends with the stream
	end     context.CancelFunc

	// Guarded by Sessions.mu.
	nodeID string
	online *bool // nil: it has not said
}

// ending is a stream that this side can end.
type ending struct {
	grpc.BidiStreamingServer[taskv1.SessionRequest, taskv1.SessionResponse]
	ctx context.Context
}

// Context ends with the stream, or when it is to end.
func (e ending) Context() context.Context { return e.ctx }

// errSilent ends a session that takes nothing.
var errSilent = fault.Unavailable("SESSION_SILENT", "the session took nothing of what it was told: open another one")

// maxInFlight bounds the commands of one node that are handled at once. Submissions that wait for their result are
// among them.
const maxInFlight = 512

// Session implements shallot.task.v1.
func (s *Service) Session(stream grpc.BidiStreamingServer[taskv1.SessionRequest, taskv1.SessionResponse]) error {
	if err := s.leading(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	one := &session{service: s, ctx: ctx, end: func() { cancel(errSilent) }}
	one.server = mux.NewServer(ending{stream, ctx}, (*taskv1.SessionRequest).GetSeq, func(r *taskv1.SessionResponse, seq uint64) { r.Seq = seq }, one.handle,
		mux.Options[*taskv1.SessionRequest, *taskv1.SessionResponse]{MaxInFlight: maxInFlight, Failed: one.failed})
	err := one.server.Run()
	s.left(one)
	return err
}

func (one *session) push(ctx context.Context, m *taskv1.SessionResponse) error {
	return one.server.Push(ctx, m)
}

func (one *session) failed(_ *taskv1.SessionRequest, err error) *taskv1.SessionResponse {
	one.service.cfg.Log.Error("a command failed", logging.Err(err))
	return faulty(fault.From(err))
}

func faulty(err error) *taskv1.SessionResponse {
	f := fault.From(err)
	return &taskv1.SessionResponse{Fault: &eventv1.Fault{Code: uint32(f.Code), Reason: f.Reason, Message: f.Message, Meta: f.Meta}}
}

// errNotCarrying is for what only one process of the node may see to.
var errNotCarrying = fault.FailedPrecondition("NOT_CARRYING", "another process of the node carries the events, and sees to the personas")

var errNoHello = fault.FailedPrecondition("NO_HELLO", "the session must begin with a Hello")

func (one *session) handle(ctx context.Context, req *taskv1.SessionRequest) *taskv1.SessionResponse {
	if h := req.GetHello(); h != nil {
		return one.sync(ctx, h)
	}
	if !one.hello.Load() {
		return faulty(errNoHello)
	}
	if req.GetPersonas() != nil {
		if !one.service.sessions.carries(one) {
			return faulty(errNotCarrying)
		}
		m := &taskv1.SessionResponse{}
		for _, u := range one.service.cfg.Role.Personas() {
			m.Personas = append(m.Personas, &taskv1.PersonaUse{Persona: u.Persona, PeerId: u.Peer, Addresses: u.Addresses, JobId: u.Job})
		}
		return m
	}
	trace := one.service.sessions.Trace
	var span tracing.Span
	if parent := req.GetTraceParent(); parent != "" { // else it is about no task, or node takes no traces
		ctx, span = trace.Start(trace.From(ctx, parent), spanOf(req))
		defer span.End()
	}
	r, err := one.command(ctx, req)
	if err != nil {
		span.Failed(err)
		if f := fault.From(err); f.Reason == fault.ReasonInternal {
			one.service.cfg.Log.Error("a command failed", logging.Err(err))
		}
		return faulty(err)
	}
	r = one.service.sessions.share(ctx, one, r)
	if req.GetCreate() != nil && r.Task != nil && !r.Existed {
		trace.Remember(ctx, r.Task.ID)
	}
	if r.Delivered != nil {
		span.SetReason(r.Delivered.Reason)
	}
	return one.service.sessions.response(&r)
}

// spanOf names what a command does.
func spanOf(req *taskv1.SessionRequest) string {
	switch req.GetCommand().(type) {
	case *taskv1.SessionRequest_Create:
		return "task.create"
	case *taskv1.SessionRequest_Place, *taskv1.SessionRequest_PlacementFailed:
		return "task.placed"
	case *taskv1.SessionRequest_Deliver:
		return "task.deliver"
	}
	return "task.sent"
}

func (one *session) command(ctx context.Context, req *taskv1.SessionRequest) (app.Reply, error) {
	role := one.service.cfg.Role
	switch c := req.GetCommand().(type) {
	case *taskv1.SessionRequest_Create:
		create, err := fromCreate(c.Create)
		if err != nil {
			return app.Reply{}, err
		}
		return role.Create(ctx, create)
	case *taskv1.SessionRequest_Place:
		if c.Place.GetCandidate() == nil {
			return app.Reply{}, fault.InvalidArgument("CANDIDATE_MISSING", "candidate is not set: say PlacementFailed when there is none")
		}
		candidate := fromCandidate(c.Place.GetCandidate())
		candidate.Replicas, candidate.Choice = fromReplicas(c.Place.GetReplicas()), fromChoice(c.Place.GetChoice())
		return role.Place(ctx, c.Place.GetTaskId(), candidate, c.Place.GetDetail())
	case *taskv1.SessionRequest_PlacementFailed:
		return role.PlacementFailed(ctx, c.PlacementFailed.GetTaskId(), c.PlacementFailed.GetDetail(), fromChoice(c.PlacementFailed.GetChoice()))
	case *taskv1.SessionRequest_Deliver:
		return role.Deliver(ctx, fromDelivery(c.Deliver)), nil
	case *taskv1.SessionRequest_Sent:
		role.MarkSent(ctx, c.Sent.GetOutboxIds())
		return app.Reply{}, nil
	case *taskv1.SessionRequest_SendFailed:
		return role.SendFailed(ctx, c.SendFailed.GetOutboxId(), c.SendFailed.GetReason(), c.SendFailed.GetMessage())
	case *taskv1.SessionRequest_Online:
		role.SetOnline(ctx, one.service.sessions.setOnline(one, c.Online.GetOnline()))
		return app.Reply{}, nil
	}
	return app.Reply{}, fault.InvalidArgument("COMMAND_UNKNOWN", "the command is not set, or not known to this version")
}

// sync answers a Hello: first everything that a session which carries must know, then the answer itself.
func (one *session) sync(ctx context.Context, h *taskv1.Hello) *taskv1.SessionResponse {
	carries := one.service.sessions.add(one, h.GetNodeId())
	one.hello.Store(true)
	if !carries {
		return &taskv1.SessionResponse{Synced: true}
	}
	err := one.service.cfg.Role.Sync(ctx, func(r app.Reply) error { return one.push(ctx, one.service.sessions.response(&r)) })
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			one.service.cfg.Log.Warn("a session could not be brought up to date", logging.Err(err))
		}
		return faulty(err)
	}
	return &taskv1.SessionResponse{Synced: true}
}

// response is a reply as node gets it.
func (s *Sessions) response(r *app.Reply) *taskv1.SessionResponse {
	m := &taskv1.SessionResponse{Existed: r.Existed}
	if r.Task != nil {
		m.Task = toTask(r.Task, false)
	}
	if r.HasStdout {
		m.Stdout = r.Stdout
		if m.Stdout == nil {
			m.Stdout = []byte{} // set, and empty
		}
	}
	if len(r.Outbox) > 0 {
		m.Outbox = make([]*taskv1.OutboxEvent, len(r.Outbox))
		for i := range r.Outbox {
			m.Outbox[i] = toOutbox(&r.Outbox[i])
			m.Outbox[i].TraceParent = s.Trace.ParentOf(r.Outbox[i].TaskID)
		}
	}
	if p := r.Placement; p != nil {
		m.Placement = &taskv1.PlacementNeeded{TaskId: p.TaskID, Type: p.Type, Attempt: p.Attempt, Excluded: p.Excluded, Only: p.Only, Limits: wire.Limits(p.Limits), Copies: p.Copies, JobId: p.Job,
			Personas: p.Personas, Efforts: p.Efforts, MaxEffort: p.MaxEffort}
	}
	if d := r.Delivered; d != nil {
		m.Delivered = &taskv1.Delivered{Verdict: uint32(d.Verdict), Reason: d.Reason}
	}
	return m
}

func toOutbox(o *app.Outgoing) *taskv1.OutboxEvent {
	return &taskv1.OutboxEvent{OutboxId: o.ID, TaskId: o.TaskID, Persona: o.Persona, PeerId: o.Peer, Addresses: o.Addresses, Event: wire.Event(&o.Event),
		Sign: o.Sign, Timeout: wire.Duration(o.Timeout), Withdrawn: o.Withdrawn}
}
