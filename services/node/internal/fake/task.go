package fake

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/rpc/mux"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Task is a task service of either role. It executes sum. What Stop leaves is what a real one has on disk: everything.
type Task struct {
	taskv1.UnimplementedTaskServiceServer
	Switch
	Role string

	// Evaluate decides about a submission on a provider; nil accepts and runs it at once (express).
	Evaluate func(sub *eventv1.TaskSubmission, d *taskv1.DeliverEvent) Decision
	// SubmitTimeout is that of submissions; 2 s.
	SubmitTimeout time.Duration
	// Hello is told of every session.
	Hello func()

	mu        sync.Mutex
	tasks     map[string]*taskv1.Task
	bySpec    map[string]string // request id to task id
	specs     map[string]*taskv1.TaskSpec
	stdout    map[string][]byte
	excluded  map[string]map[string]string
	choices   map[string][]*taskv1.Choice
	pending   map[string]bool
	outbox    []*taskv1.OutboxEvent
	nextOut   uint64
	seen      map[string]bool // event ids
	sessions  map[*session]struct{}
	online    []bool
	delivered []*taskv1.DeliverEvent
	created   int
	executed  int
	watchers  map[chan *taskv1.Task]string
	queue     chan *eventv1.Queue
	large     int // results of at least so many bytes do not ride along
}

// Decision is what a provider does with a submission.
type Decision struct {
	RedirectTo *taskv1.Candidate
	Refuse     string
	// Wait: it is accepted, and runs when the channel closes.
	Wait <-chan struct{}
}

// NewTask makes an empty one.
func NewTask(role string) *Task {
	return &Task{Role: role, SubmitTimeout: 2 * time.Second, tasks: map[string]*taskv1.Task{}, bySpec: map[string]string{}, specs: map[string]*taskv1.TaskSpec{},
		stdout: map[string][]byte{}, excluded: map[string]map[string]string{}, choices: map[string][]*taskv1.Choice{}, pending: map[string]bool{}, seen: map[string]bool{}, sessions: map[*session]struct{}{},
		watchers: map[chan *taskv1.Task]string{}, queue: make(chan *eventv1.Queue, 16), large: 64 << 10}
}

// Register serves it.
func (t *Task) Register(s grpc.ServiceRegistrar) { taskv1.RegisterTaskServiceServer(s, t) }

type session struct {
	server *mux.Server[*taskv1.SessionRequest, *taskv1.SessionResponse]
}

type cutStream struct {
	grpc.BidiStreamingServer[taskv1.SessionRequest, taskv1.SessionResponse]
	ctx context.Context
}

func (c cutStream) Context() context.Context { return c.ctx }

// Session serves node.
func (t *Task) Session(stream grpc.BidiStreamingServer[taskv1.SessionRequest, taskv1.SessionResponse]) error {
	ctx, cancel, err := t.during(stream.Context())
	if err != nil {
		return err
	}
	defer cancel()
	s := &session{}
	s.server = mux.NewServer(mux.ServerStream[*taskv1.SessionRequest, *taskv1.SessionResponse](cutStream{stream, ctx}),
		(*taskv1.SessionRequest).GetSeq, func(r *taskv1.SessionResponse, seq uint64) { r.Seq = seq },
		func(_ context.Context, r *taskv1.SessionRequest) *taskv1.SessionResponse { return t.command(s, r) }, mux.Options[*taskv1.SessionRequest, *taskv1.SessionResponse]{MaxInFlight: 512})
	t.mu.Lock()
	t.sessions[s] = struct{}{}
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.sessions, s)
		t.mu.Unlock()
	}()
	return s.server.Run()
}

func (t *Task) push(r *taskv1.SessionResponse) {
	t.mu.Lock()
	sessions := make([]*session, 0, len(t.sessions))
	for s := range t.sessions {
		sessions = append(sessions, s)
	}
	t.mu.Unlock()
	for _, s := range sessions {
		_ = s.server.Push(context.Background(), proto.CloneOf(r))
	}
}

func (t *Task) command(s *session, r *taskv1.SessionRequest) *taskv1.SessionResponse {
	switch c := r.GetCommand().(type) {
	case *taskv1.SessionRequest_Hello:
		return t.hello(s)
	case *taskv1.SessionRequest_Create:
		return t.create(c.Create)
	case *taskv1.SessionRequest_Place:
		return t.place(c.Place)
	case *taskv1.SessionRequest_PlacementFailed:
		return t.placementFailed(c.PlacementFailed)
	case *taskv1.SessionRequest_Deliver:
		return t.deliver(c.Deliver)
	case *taskv1.SessionRequest_Sent:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.outbox = slices.DeleteFunc(t.outbox, func(e *taskv1.OutboxEvent) bool { return slices.Contains(c.Sent.GetOutboxIds(), e.GetOutboxId()) })
	case *taskv1.SessionRequest_SendFailed:
		return t.sendFailed(c.SendFailed)
	case *taskv1.SessionRequest_Online:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.online = append(t.online, c.Online.GetOnline())
	}
	return &taskv1.SessionResponse{}
}

func (t *Task) hello(s *session) *taskv1.SessionResponse {
	t.mu.Lock()
	var told []*taskv1.SessionResponse
	for _, e := range t.outbox {
		told = append(told, &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{proto.CloneOf(e)}})
	}
	for id := range t.pending {
		told = append(told, &taskv1.SessionResponse{Task: t.viewLocked(id), Placement: t.neededLocked(id)})
	}
	hello := t.Hello
	t.mu.Unlock()
	for _, r := range told {
		_ = s.server.Push(context.Background(), r)
	}
	if hello != nil {
		hello()
	}
	return &taskv1.SessionResponse{Synced: true}
}

func id128() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (t *Task) viewLocked(id string) *taskv1.Task {
	v := proto.CloneOf(t.tasks[id])
	v.History = nil
	return v
}

// changeLocked writes history and tells watchers.
func (t *Task) changeLocked(id, state, what, peer, detail string) *taskv1.Task {
	x := t.tasks[id]
	if state != "" {
		x.State = state
	}
	x.Revision++
	x.History = append(x.History, &taskv1.HistoryEntry{State: x.GetState(), What: what, PeerId: peer, Detail: detail, Attempt: x.GetAttempts()})
	for w, of := range t.watchers {
		if of == id || of == "" {
			select {
			case w <- t.viewLocked(id):
			default:
			}
		}
	}
	return t.viewLocked(id)
}

func (t *Task) sendLocked(task, peer string, addresses []string, typ eventv1.EventType, payload proto.Message, attachment []byte, sign bool, timeout time.Duration) *taskv1.OutboxEvent {
	b, err := proto.Marshal(payload)
	if err != nil {
		panic(err)
	}
	t.nextOut++
	e := &taskv1.OutboxEvent{OutboxId: t.nextOut, TaskId: task, PeerId: peer, Addresses: addresses, Sign: sign,
		Event: &eventv1.Event{Id: id128(), Type: typ, Payload: b, Attachment: attachment}}
	if timeout > 0 {
		e.Timeout = durationpb.New(timeout)
	}
	t.outbox = append(t.outbox, e)
	return proto.CloneOf(e)
}

// ---- consumer

func (t *Task) create(c *taskv1.CreateTask) *taskv1.SessionResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id := t.bySpec[c.GetRequestId()]; id != "" {
		r := &taskv1.SessionResponse{Task: t.viewLocked(id), Existed: true}
		t.stdoutLocked(r)
		return r
	}
	if c.GetSpec().GetType() == "sum" && len(c.GetSpec().GetSum().GetAddends()) == 0 {
		return &taskv1.SessionResponse{Fault: &eventv1.Fault{Code: 3, Reason: "SUM_EMPTY", Message: "spec.sum.addends is empty"}}
	}
	id := id128()
	t.created++
	t.bySpec[c.GetRequestId()], t.specs[id] = id, c.GetSpec()
	t.excluded[id] = map[string]string{}
	for _, p := range c.GetSpec().GetPlacement().GetExclude() {
		t.excluded[id][p] = "EXCLUDED_BY_USER"
	}
	t.tasks[id] = &taskv1.Task{Id: id, Type: c.GetSpec().GetType(), State: "PENDING", RequestId: c.GetRequestId(), Labels: c.GetSpec().GetLabels()}
	t.changeLocked(id, "PENDING", "CREATED", "", "")
	if c.GetCandidate() == nil {
		t.pending[id] = true
		return &taskv1.SessionResponse{Task: t.viewLocked(id), Placement: t.neededLocked(id)}
	}
	t.choices[id] = append(t.choices[id], c.GetChoice())
	return t.placeLocked(id, c.GetCandidate(), c.GetDetail())
}

func (t *Task) neededLocked(id string) *taskv1.PlacementNeeded {
	x := t.tasks[id]
	return &taskv1.PlacementNeeded{TaskId: id, Type: x.GetType(), Attempt: x.GetAttempts() + 1, Excluded: t.excluded[id], Only: t.specs[id].GetPlacement().GetProviders(), Limits: t.specs[id].GetLimits()}
}

func (t *Task) placeLocked(id string, c *taskv1.Candidate, detail string) *taskv1.SessionResponse {
	x := t.tasks[id]
	delete(t.pending, id)
	x.Attempts++
	x.Provider = c.GetPeerId()
	task := t.changeLocked(id, "SUBMITTED", "SUBMITTED", c.GetPeerId(), detail)
	addends := t.specs[id].GetSum().GetAddends()
	out := t.sendLocked(id, c.GetPeerId(), c.GetAddresses(), eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION,
		&eventv1.TaskSubmission{TaskId: id, Attempt: x.GetAttempts(), Type: x.GetType(), Limits: t.specs[id].GetLimits(), Redirect: true},
		[]byte(strings.Join(addends, " ")), true, t.SubmitTimeout)
	return &taskv1.SessionResponse{Task: task, Outbox: []*taskv1.OutboxEvent{out}}
}

func (t *Task) place(p *taskv1.PlaceTask) *taskv1.SessionResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.pending[p.GetTaskId()] {
		return &taskv1.SessionResponse{}
	}
	t.choices[p.GetTaskId()] = append(t.choices[p.GetTaskId()], p.GetChoice())
	return t.placeLocked(p.GetTaskId(), p.GetCandidate(), p.GetDetail())
}

func (t *Task) placementFailed(p *taskv1.PlacementFailed) *taskv1.SessionResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.choices[p.GetTaskId()] = append(t.choices[p.GetTaskId()], p.GetChoice())
	return &taskv1.SessionResponse{Task: t.changeLocked(p.GetTaskId(), "", "NO_CANDIDATE", "", p.GetDetail())}
}

func (t *Task) sendFailed(f *taskv1.SendFailed) *taskv1.SessionResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.outbox, func(e *taskv1.OutboxEvent) bool { return e.GetOutboxId() == f.GetOutboxId() })
	if i < 0 {
		return &taskv1.SessionResponse{}
	}
	e := t.outbox[i]
	t.outbox = slices.Delete(t.outbox, i, i+1)
	if e.GetEvent().GetType() != eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION {
		return &taskv1.SessionResponse{}
	}
	return t.againLocked(e.GetTaskId(), e.GetPeerId(), f.GetReason(), "UNREACHABLE")
}

// againLocked ends an attempt: the task wants another provider.
func (t *Task) againLocked(id, peer, reason, what string) *taskv1.SessionResponse {
	t.excluded[id][peer] = reason
	t.pending[id] = true
	t.tasks[id].Provider = ""
	task := t.changeLocked(id, "PENDING", what, peer, reason)
	return &taskv1.SessionResponse{Task: task, Placement: t.neededLocked(id)}
}

func (t *Task) stdoutLocked(r *taskv1.SessionResponse) {
	out, ok := t.stdout[r.GetTask().GetId()]
	if ok && len(out) < t.large {
		r.Stdout = out
	}
}
