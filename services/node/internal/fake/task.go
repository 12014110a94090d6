package fake

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
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
		stdout: map[string][]byte{}, excluded: map[string]map[string]string{}, pending: map[string]bool{}, seen: map[string]bool{}, sessions: map[*session]struct{}{},
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
		if of == id {
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
	return t.placeLocked(p.GetTaskId(), p.GetCandidate(), p.GetDetail())
}

func (t *Task) placementFailed(p *taskv1.PlacementFailed) *taskv1.SessionResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
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

// ---- events

func (t *Task) deliver(d *taskv1.DeliverEvent) *taskv1.SessionResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	ev := d.GetEvent()
	if t.seen[ev.GetId()] {
		return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 1, Reason: "REPEATED"}}
	}
	t.delivered = append(t.delivered, d)
	var r *taskv1.SessionResponse
	switch ev.GetType() {
	case eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION:
		r = t.submissionLocked(d)
	case eventv1.EventType_EVENT_TYPE_TASK_ACCEPTED:
		var m eventv1.TaskAccepted
		r = t.aboutLocked(ev, &m, func() *taskv1.SessionResponse {
			return &taskv1.SessionResponse{Task: t.changeLocked(m.GetTaskId(), "ACCEPTED", "ACCEPTED", d.GetFromPeer(), "")}
		})
	case eventv1.EventType_EVENT_TYPE_TASK_REDIRECTED:
		r = t.redirectedLocked(d)
	case eventv1.EventType_EVENT_TYPE_TASK_REFUSED:
		var m eventv1.TaskRefused
		r = t.aboutLocked(ev, &m, func() *taskv1.SessionResponse {
			return t.againLocked(m.GetTaskId(), d.GetFromPeer(), m.GetReason(), "REFUSED")
		})
	case eventv1.EventType_EVENT_TYPE_TASK_RESULT:
		r = t.resultLocked(d)
	default:
		r = &taskv1.SessionResponse{}
	}
	if r.Delivered == nil {
		r.Delivered = &taskv1.Delivered{}
	}
	if r.GetDelivered().GetVerdict() == 0 {
		t.seen[ev.GetId()] = true
	}
	return r
}

func (t *Task) aboutLocked(ev *eventv1.Event, m interface {
	proto.Message
	GetTaskId() string
}, f func() *taskv1.SessionResponse) *taskv1.SessionResponse {
	if proto.Unmarshal(ev.GetPayload(), m) != nil || t.tasks[m.GetTaskId()] == nil {
		return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2, Reason: "TASK_UNKNOWN"}}
	}
	if x := t.tasks[m.GetTaskId()]; x.GetState() == "COMPLETED" {
		return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 1, Reason: "LATE"}}
	}
	return f()
}

func (t *Task) redirectedLocked(d *taskv1.DeliverEvent) *taskv1.SessionResponse {
	var m eventv1.TaskRedirected
	return t.aboutLocked(d.GetEvent(), &m, func() *taskv1.SessionResponse {
		var a eventv1.Announcement
		if proto.Unmarshal(m.GetAnnouncement().GetPayload(), &a) != nil {
			return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2}}
		}
		t.tasks[m.GetTaskId()].Provider = a.GetPeerId()
		return &taskv1.SessionResponse{Task: t.changeLocked(m.GetTaskId(), "", "REDIRECTED", a.GetPeerId(), m.GetReason())}
	})
}

func (t *Task) resultLocked(d *taskv1.DeliverEvent) *taskv1.SessionResponse {
	var m eventv1.TaskResult
	return t.aboutLocked(d.GetEvent(), &m, func() *taskv1.SessionResponse {
		id := m.GetTaskId()
		x := t.tasks[id]
		if x.GetProvider() != d.GetEvent().GetAuthor() {
			return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2, Reason: "NOT_THE_PROVIDER"}}
		}
		t.stdout[id] = d.GetEvent().GetAttachment()
		x.ExitCode = proto.Int32(0)
		x.Result = &taskv1.ResultInfo{Available: true, StdoutSize: uint64(len(t.stdout[id]))}
		r := &taskv1.SessionResponse{Task: t.changeLocked(id, "COMPLETED", "RESULT", d.GetFromPeer(), "")}
		t.stdoutLocked(r)
		return r
	})
}

// ---- provider

func (t *Task) submissionLocked(d *taskv1.DeliverEvent) *taskv1.SessionResponse {
	var sub eventv1.TaskSubmission
	consumer := d.GetFromPeer()
	var path []string
	signed := d.GetEvent()
	if d.GetEvent().GetType() == eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION {
		var f eventv1.TaskForceSubmission
		if proto.Unmarshal(d.GetEvent().GetPayload(), &f) != nil {
			return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2}}
		}
		signed, path = f.GetSubmission(), f.GetPath()
		consumer = signed.GetAuthor()
	}
	if proto.Unmarshal(signed.GetPayload(), &sub) != nil {
		return &taskv1.SessionResponse{Delivered: &taskv1.Delivered{Verdict: 2}}
	}
	decide := Decision{}
	if t.Evaluate != nil {
		decide = t.Evaluate(&sub, d)
	}
	id, n := sub.GetTaskId(), sub.GetAttempt()
	switch {
	case decide.Refuse != "":
		out := t.sendLocked(id, consumer, nil, eventv1.EventType_EVENT_TYPE_TASK_REFUSED, &eventv1.TaskRefused{TaskId: id, Attempt: n, Reason: decide.Refuse}, nil, false, 0)
		return &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{out}}
	case decide.RedirectTo != nil && len(path) == 0:
		c := decide.RedirectTo
		force := t.sendLocked(id, c.GetPeerId(), c.GetAddresses(), eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION,
			&eventv1.TaskForceSubmission{Submission: withoutAttachment(signed), Path: []string{d.GetOwnPeerId()}}, d.GetEvent().GetAttachment(), false, 0)
		tell := t.sendLocked(id, consumer, nil, eventv1.EventType_EVENT_TYPE_TASK_REDIRECTED,
			&eventv1.TaskRedirected{TaskId: id, Attempt: n, Announcement: c.GetAnnouncement(), Reason: "BUSY"}, nil, false, 0)
		return &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{force, tell}}
	}
	input := d.GetEvent().GetAttachment()
	if decide.Wait == nil {
		return &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{t.runLocked(id, n, consumer, input)}}
	}
	out := t.sendLocked(id, consumer, nil, eventv1.EventType_EVENT_TYPE_TASK_ACCEPTED, &eventv1.TaskAccepted{TaskId: id, Attempt: n}, nil, false, 0)
	go func() {
		<-decide.Wait
		t.mu.Lock()
		r := &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{t.runLocked(id, n, consumer, input)}}
		t.mu.Unlock()
		t.push(r)
	}()
	return &taskv1.SessionResponse{Outbox: []*taskv1.OutboxEvent{out}}
}

func withoutAttachment(ev *eventv1.Event) *eventv1.Event {
	c := proto.CloneOf(ev)
	c.Attachment = nil
	return c
}

func (t *Task) runLocked(id string, attempt uint32, consumer string, input []byte) *taskv1.OutboxEvent {
	t.executed++
	sum := new(big.Rat)
	for _, a := range strings.Fields(string(input)) {
		if r, ok := new(big.Rat).SetString(a); ok {
			sum.Add(sum, r)
		}
	}
	out := sum.FloatString(0)
	if n, ok := strings.CutPrefix(string(input), "0 "); ok && strings.HasPrefix(n, "fill") { // a large result, for tests
		out = strings.Repeat("x", 100_000)
	}
	return t.sendLocked(id, consumer, nil, eventv1.EventType_EVENT_TYPE_TASK_RESULT, &eventv1.TaskResult{TaskId: id, Attempt: attempt}, []byte(out), true, 0)
}

// ---- single calls

func (t *Task) notFound(id string) error {
	return fault.NotFound("TASK_NOT_FOUND", "there is no task %s", id)
}

// GetTask is of the contract.
func (t *Task) GetTask(_ context.Context, r *taskv1.GetTaskRequest) (*taskv1.GetTaskResponse, error) {
	if _, err := t.alive(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.tasks[r.GetTaskId()]
	if x == nil {
		return nil, t.notFound(r.GetTaskId())
	}
	return &taskv1.GetTaskResponse{Task: proto.CloneOf(x)}, nil
}

// ListTasks is of the contract, without filters.
func (t *Task) ListTasks(context.Context, *taskv1.ListTasksRequest) (*taskv1.ListTasksResponse, error) {
	if _, err := t.alive(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &taskv1.ListTasksResponse{}
	for id := range t.tasks {
		out.Tasks = append(out.Tasks, t.viewLocked(id))
	}
	return out, nil
}

// CancelTask is of the contract.
func (t *Task) CancelTask(_ context.Context, r *taskv1.CancelTaskRequest) (*taskv1.CancelTaskResponse, error) {
	t.mu.Lock()
	x := t.tasks[r.GetTaskId()]
	if x == nil {
		t.mu.Unlock()
		return nil, t.notFound(r.GetTaskId())
	}
	delete(t.pending, r.GetTaskId())
	v := t.changeLocked(r.GetTaskId(), "CANCELLED", "CANCELLED", "", "")
	t.mu.Unlock()
	t.push(&taskv1.SessionResponse{Task: v})
	return &taskv1.CancelTaskResponse{Task: v}, nil
}

// WatchTask is of the contract.
func (t *Task) WatchTask(r *taskv1.WatchTaskRequest, out grpc.ServerStreamingServer[taskv1.WatchTaskResponse]) error {
	w := make(chan *taskv1.Task, 64)
	t.mu.Lock()
	if t.tasks[r.GetTaskId()] == nil {
		t.mu.Unlock()
		return t.notFound(r.GetTaskId())
	}
	w <- t.viewLocked(r.GetTaskId())
	t.watchers[w] = r.GetTaskId()
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.watchers, w)
		t.mu.Unlock()
	}()
	for {
		select {
		case <-out.Context().Done():
			return context.Cause(out.Context())
		case v := <-w:
			if err := out.Send(&taskv1.WatchTaskResponse{Task: v}); err != nil || v.GetState() == "COMPLETED" || v.GetState() == "CANCELLED" {
				return err
			}
		}
	}
}

// GetResult is of the contract, for stdout.
func (t *Task) GetResult(r *taskv1.GetResultRequest, out grpc.ServerStreamingServer[taskv1.GetResultResponse]) error {
	t.mu.Lock()
	b, ok := t.stdout[r.GetTaskId()]
	there := t.tasks[r.GetTaskId()] != nil
	t.mu.Unlock()
	if !there {
		return t.notFound(r.GetTaskId())
	}
	if !ok {
		return fault.FailedPrecondition("TASK_NOT_DONE", "the task has no result yet")
	}
	if err := out.Send(&taskv1.GetResultResponse{Response: &taskv1.GetResultResponse_Size{Size: uint64(len(b))}}); err != nil {
		return err
	}
	for part := range slices.Chunk(b[min(int(r.GetOffset()), len(b)):], 32<<10) {
		if err := out.Send(&taskv1.GetResultResponse{Response: &taskv1.GetResultResponse_Data{Data: part}}); err != nil {
			return err
		}
	}
	return nil
}

// GetLogs is of the contract: every task says the same.
func (t *Task) GetLogs(r *taskv1.GetLogsRequest, out grpc.ServerStreamingServer[taskv1.GetLogsResponse]) error {
	t.mu.Lock()
	there := t.tasks[r.GetTaskId()] != nil
	t.mu.Unlock()
	if !there {
		return t.notFound(r.GetTaskId())
	}
	return out.Send(&taskv1.GetLogsResponse{Data: []byte("log of " + r.GetTaskId())})
}

// Upload is of the contract; the id is the size.
func (t *Task) Upload(in grpc.ClientStreamingServer[taskv1.UploadRequest, taskv1.UploadResponse]) error {
	n := 0
	for {
		r, err := in.Recv()
		if err != nil {
			break
		}
		n += len(r.GetData())
	}
	return in.SendAndClose(&taskv1.UploadResponse{UploadId: fmt.Sprint(n), Size: uint64(n)})
}

// Capability of a fake provider.
func Capability(typ string) *eventv1.Capability {
	return &eventv1.Capability{Type: typ, Version: "1", MaxLimits: &eventv1.Limits{Time: durationpb.New(time.Minute), Memory: 1 << 30, Output: 1 << 30}}
}

// Describe is of the contract.
func (t *Task) Describe(context.Context, *taskv1.DescribeRequest) (*taskv1.DescribeResponse, error) {
	if _, err := t.alive(); err != nil {
		return nil, err
	}
	if t.Role != "provider" {
		return &taskv1.DescribeResponse{Role: t.Role}, nil
	}
	return &taskv1.DescribeResponse{Role: t.Role, Capabilities: []*eventv1.Capability{Capability("sum")}, SealingKey: "age1pq1fakefakefakefake", Evaluator: "two-choices", CandidatesWanted: 2}, nil
}

// SetQueue changes the figures that WatchQueue gives.
func (t *Task) SetQueue(q *eventv1.Queue) { t.queue <- q }

// WatchQueue is of the contract.
func (t *Task) WatchQueue(_ *taskv1.WatchQueueRequest, out grpc.ServerStreamingServer[taskv1.WatchQueueResponse]) error {
	ctx, cancel, err := t.during(out.Context())
	if err != nil {
		return err
	}
	defer cancel()
	q := &eventv1.Queue{Slots: 4, Capacity: 100}
	for {
		if err := out.Send(&taskv1.WatchQueueResponse{Queue: q}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case q = <-t.queue:
		}
	}
}

// Stats are what happened.
type Stats struct {
	Created, Executed, Outbox int
	Online                    []bool
	Delivered                 []*taskv1.DeliverEvent
}

// Stats says what happened.
func (t *Task) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{t.created, t.executed, len(t.outbox), slices.Clone(t.online), slices.Clone(t.delivered)}
}

// Find is a task as it is, with its history; nil when there is none.
func (t *Task) Find(id string) *taskv1.Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tasks[id] == nil {
		return nil
	}
	return proto.CloneOf(t.tasks[id])
}
