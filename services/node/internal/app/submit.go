package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/tracing"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// TaskCreator makes tasks.
type TaskCreator interface {
	// Create is safe to repeat: the request id returns the task made before. It does so itself across a restart of the
	// task service, until ctx ends. seen runs with the answer before anything that the task service says after it; missed: something may have happened before it that
	// this process was told earlier, or that the answer does not have.
	Create(ctx context.Context, c *taskv1.CreateTask, seen func(t *taskv1.Task, missed bool)) (*taskv1.Task, error)
}

// BodyReader reads what a task has printed.
type BodyReader interface {
	// ReadResult gives data the pieces of a body in order; they may be kept.
	ReadResult(ctx context.Context, task, body string, offset uint64, size func(uint64) error, data func([]byte) error) error
}

// Placement finds a provider for a task. It may ask candidates first, for some hundred milliseconds. why says why this one, or why none.
type Placement interface {
	Place(ctx context.Context, need *domain.Need) (candidate *taskv1.Candidate, why *domain.Why)
	// Keepers are others that may keep its result beside runner: none where none are wanted.
	Keepers(need *domain.Need, runner string) []*taskv1.Candidate
}

// Submitter takes users' tasks.
type Submitter struct {
	tasks     TaskCreator
	bodies    BodyReader
	placement Placement // nil on a provider
	watches   *Watches
	// MayRedirect is what holds for tasks that do not say whether their provider may hand them on.
	MayRedirect bool
	// PeerName is how details of placements call a peer; nil for domain.ShortPeer.
	PeerName func(id string) string
	Trace    *tracing.Tracer // nil: no spans
}

// NewSubmitter makes one. placement is nil on a provider, which takes no tasks from users.
func NewSubmitter(tasks TaskCreator, bodies BodyReader, placement Placement, watches *Watches) *Submitter {
	return &Submitter{tasks: tasks, bodies: bodies, placement: placement, watches: watches, MayRedirect: true}
}

const (
	maxRequestID = 128 // bytes
	maxNamed     = 256 // providers named or excluded by one task
)

// Submit makes a task, or finds the one of this request id, and returns it.
func (s *Submitter) Submit(ctx context.Context, requestID string, spec *taskv1.TaskSpec) (*taskv1.Task, error) {
	return s.create(ctx, requestID, spec, nil)
}

func (s *Submitter) create(ctx context.Context, requestID string, spec *taskv1.TaskSpec, seen func(t *taskv1.Task, missed bool)) (made *taskv1.Task, err error) {
	ctx, span := s.Trace.Start(ctx, "task.submit")
	defer func() {
		s.Trace.Remember(ctx, made.GetId())
		span.Failed(err)
		span.End()
	}()
	if s.placement == nil {
		return nil, fault.FailedPrecondition("ROLE_PROVIDER", "this node is a provider and runs other people's tasks: submit at a consumer node, for example one started by `shallot up --role consumer --bootstrap ADDR` with an address of this node (`shallot node --show-addresses` prints them)")
	}
	if err := checkSubmission(requestID, spec); err != nil {
		return nil, err
	}
	if requestID == "" {
		requestID = rand.Text()
	}
	if !s.MayRedirect {
		spec = NoRedirect(spec)
	}
	need := needOf(spec)
	need.PeerName = s.PeerName
	create := &taskv1.CreateTask{RequestId: requestID, Spec: spec}
	span.SetType(spec.GetType())
	s.place(ctx, need, create)
	return s.tasks.Create(ctx, create, seen)
}

func (s *Submitter) place(ctx context.Context, need *domain.Need, create *taskv1.CreateTask) {
	ctx, span := s.Trace.Start(ctx, "task.place")
	defer span.End()
	candidate, why := s.placement.Place(ctx, need)
	if create.Candidate, create.Detail = candidate, why.Detail; candidate != nil {
		create.Choice = choiceOf(why)
		create.Replicas = s.placement.Keepers(need, create.GetCandidate().GetPeerId())
		create.Detail += keepersDetail(need, create.Replicas)
	}
}

// NoRedirect is a spec that forbids its provider to hand the task on, unless it says itself that it may.
func NoRedirect(spec *taskv1.TaskSpec) *taskv1.TaskSpec {
	if spec == nil || spec.GetPlacement() != nil && spec.Placement.Redirect != nil {
		return spec
	}
	spec = proto.CloneOf(spec)
	if spec.Placement == nil {
		spec.Placement = &taskv1.PlacementPolicy{}
	}
	spec.Placement.Redirect = proto.Bool(false)
	return spec
}

// keepersDetail says in words who is named to keep the result, where that was asked for.
func keepersDetail(need *domain.Need, keepers []*taskv1.Candidate) string {
	switch {
	case need.Copies == 0:
		return ""
	case len(keepers) == 0:
		return "; no other provider is known that could keep the result"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "; %d of these are to keep the result as well:", min(int(need.Copies), len(keepers)))
	for _, k := range keepers {
		b.WriteString(" " + need.Name(k.GetPeerId()))
	}
	return b.String()
}

// maxReplicas is the task service's bound; it says what is wrong with more.
const maxReplicas = 8

// checkSubmission looks at what node itself uses; the task service checks the payload.
func checkSubmission(requestID string, spec *taskv1.TaskSpec) error {
	if len(requestID) > maxRequestID {
		return fault.InvalidArgument("REQUEST_ID_TOO_LONG", "request_id has %d bytes and may have %d: make a random one, for example a UUID", len(requestID), maxRequestID)
	}
	if spec == nil || spec.GetType() == "" {
		return fault.InvalidArgument("TYPE_MISSING", "spec.type is empty: say what to run, for example sum or wasm")
	}
	if !domain.ValidType(spec.GetType()) {
		return fault.InvalidArgument("TYPE_INVALID", "spec.type is %q: a task type has letters, digits, '.', '-' and '_', 64 at most", clip(spec.GetType()))
	}
	for field, ids := range map[string][]string{"spec.placement.providers": spec.GetPlacement().GetProviders(), "spec.placement.exclude": spec.GetPlacement().GetExclude()} {
		if len(ids) > maxNamed {
			return fault.InvalidArgument("TOO_MANY_PROVIDERS", "%s names %d providers and may name %d", field, len(ids), maxNamed)
		}
		for i, id := range ids {
			if !domain.ValidPeerID(id) {
				return fault.InvalidArgument("PEER_ID_INVALID", "%s[%d] is %q, which is no peer id: `shallot peers` lists them", field, i, clip(id))
			}
		}
	}
	return nil
}

// clip bounds what of an input is repeated in a message.
func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "…"
	}
	return s
}

func needOf(spec *taskv1.TaskSpec) *domain.Need {
	n := &domain.Need{Type: spec.GetType(), Limits: limitsOf(spec.GetLimits()), Only: spec.GetPlacement().GetProviders()}
	if r := spec.GetPlacement().GetReplicas(); r > 1 && r <= maxReplicas {
		n.Copies = r - 1
	}
	if ids := spec.GetPlacement().GetExclude(); len(ids) > 0 {
		n.Excluded = make(map[string]string, len(ids))
		for _, id := range ids {
			n.Excluded[id] = "by the submission"
		}
	}
	return n
}

func limitsOf(l *eventv1.Limits) domain.Limits {
	return domain.Limits{Time: l.GetTime().AsDuration(), Memory: l.GetMemory(), Output: l.GetOutput()}
}

// Run is Submit, then the task after each change of its state (the first time once it is stored), then its stdout in pieces.
// When ctx ends early the task goes on.
func (s *Submitter) Run(ctx context.Context, requestID string, spec *taskv1.TaskSpec, emit func(*taskv1.Task) error, stdout func([]byte) error) error {
	var watch *domain.Watch[TaskUpdate]
	var full error
	t, err := s.create(ctx, requestID, spec, func(t *taskv1.Task, missed bool) {
		// Here, and not after the answer: the result may be the very next thing that the task service says.
		if watch, full = s.watches.watch(t.GetId()); full == nil {
			watch.Offer(update(TaskUpdate{Task: t}))
			if missed {
				watch.Resync()
			}
		}
	})
	if watch != nil {
		defer watch.Close()
	}
	if err != nil {
		return err
	}
	if full != nil {
		return full
	}
	state := ""
	var last TaskUpdate
	err = s.watches.follow(ctx, watch, t.GetId(), func(u TaskUpdate) error {
		last = u
		if u.Task.GetState() == state {
			return nil
		}
		state = u.Task.GetState()
		return emit(u.Task)
	})
	if err != nil {
		return err
	}
	return s.printed(ctx, last, stdout)
}

// printed gives stdout what the program has printed, also where it failed in the end.
func (s *Submitter) printed(ctx context.Context, u TaskUpdate, stdout func([]byte) error) error {
	if u.HasStdout {
		if len(u.Stdout) == 0 {
			return nil
		}
		return stdout(u.Stdout)
	}
	r := u.Task.GetResult()
	if !r.GetAvailable() || r.GetStdoutSize() == 0 {
		return nil
	}
	return s.bodies.ReadResult(ctx, u.Task.GetId(), "", 0, func(uint64) error { return nil }, stdout)
}
