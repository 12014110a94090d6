package app

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/tracing"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// Verdict is what the broker is told of a delivery.
type Verdict struct {
	Verdict brokerv1.Verdict
	Reason  string // UPPER_SNAKE, for the sender of a rejected event
}

func ignored(reason string) Verdict  { return Verdict{brokerv1.Verdict_VERDICT_IGNORED, reason} }
func rejected(reason string) Verdict { return Verdict{brokerv1.Verdict_VERDICT_REJECTED, reason} }
func retry(reason string) Verdict    { return Verdict{brokerv1.Verdict_VERDICT_RETRY, reason} }

// EventTaker gives events to the task service.
type EventTaker interface {
	// Deliver returns when what the event changes is committed. Repeats are recognised, so it repeats itself across a
	// restart of the task service, until ctx ends.
	Deliver(ctx context.Context, d *taskv1.DeliverEvent) (*taskv1.Delivered, error)
}

// Surroundings are what a provider's evaluator wants to know with a submission. They come from memory, where that is fresh.
type Surroundings interface {
	OwnMetric() *eventv1.Metric
	OwnPeerID() string
	// Candidates are other providers that could run it, as many as the task service asked for. It may ask them first, for some hundred milliseconds.
	Candidates(ctx context.Context, need *domain.Need) []*taskv1.Candidate
}

// ProviderNews takes what a consumer learns about providers from the network.
type ProviderNews interface {
	DiscoverResponse(from string, ev *eventv1.Event) Verdict
	MetricAvailable(from string, ev *eventv1.Event) Verdict
	// Contact: the provider has just spoken to this node.
	Contact(from string)
	// Redirected: a provider that had a task of ours has handed it to another, which ev announces.
	Redirected(ctx context.Context, ev *eventv1.Event)
}

// DeliverTimeout is how long a delivery may take, less than the broker waits for its acknowledgement.
const DeliverTimeout = 12 * time.Second

// AckTimeout is what the broker is asked to wait.
const AckTimeout = 15 * time.Second

// Deliverer takes what the network brings: events about tasks for the task service, others for the consumer's view.
type Deliverer struct {
	tasks EventTaker
	own   Surroundings // nil on a consumer
	news  ProviderNews // nil on a provider
	log   *slog.Logger
	// Personas hears what providers answer to personas; nil where there are none.
	Personas *Personas
	Trace    *tracing.Tracer // nil: no spans
}

// NewDeliverer makes one; own is nil on a consumer, news on a provider.
func NewDeliverer(tasks EventTaker, own Surroundings, news ProviderNews, log *slog.Logger) *Deliverer {
	return &Deliverer{tasks: tasks, own: own, news: news, log: log}
}

var taskTypes = []eventv1.EventType{
	eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, eventv1.EventType_EVENT_TYPE_TASK_CANCEL, eventv1.EventType_EVENT_TYPE_TASK_QUERY,
	eventv1.EventType_EVENT_TYPE_TASK_COLLECTED, eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION, eventv1.EventType_EVENT_TYPE_TASK_ACCEPTED,
	eventv1.EventType_EVENT_TYPE_TASK_REDIRECTED, eventv1.EventType_EVENT_TYPE_TASK_REFUSED, eventv1.EventType_EVENT_TYPE_TASK_PROGRESS,
	eventv1.EventType_EVENT_TYPE_TASK_LOG, eventv1.EventType_EVENT_TYPE_TASK_RESULT, eventv1.EventType_EVENT_TYPE_TASK_FAILURE,
	eventv1.EventType_EVENT_TYPE_TASK_STATUS, eventv1.EventType_EVENT_TYPE_TASK_REPLICA_REQUEST, eventv1.EventType_EVENT_TYPE_TASK_REPLICA_ANSWER,
	eventv1.EventType_EVENT_TYPE_TASK_REPLICAS, eventv1.EventType_EVENT_TYPE_TASK_REPLICA_RESULT,
}

// Types are the directed events that one process of a node receives for all.
func (d *Deliverer) Types() []eventv1.EventType { return taskTypes }

// Answers are those that each process of a node has to see: what they answer, one of them has asked. None on a provider.
func (d *Deliverer) Answers() []eventv1.EventType {
	if d.news == nil {
		return nil
	}
	return []eventv1.EventType{eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE, eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE}
}

// Handle deals with one delivery and returns after what it changed is committed.
func (d *Deliverer) Handle(ctx context.Context, del *brokerv1.Delivery) Verdict {
	ev, from := del.GetEvent(), del.GetFromPeer()
	if d.Personas != nil && del.GetPersona() != "" && ev.GetType() == eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE {
		return d.Personas.DiscoverResponse(del.GetPersona(), from, ev)
	}
	if d.news != nil {
		switch ev.GetType() {
		case eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE:
			return d.news.DiscoverResponse(from, ev)
		case eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE:
			return d.news.MetricAvailable(from, ev)
		}
	}
	ctx, span := d.Trace.Task(ctx, taskOf(ev), "event.deliver")
	defer span.End()
	span.SetEvent(ev.GetType().String())
	cmd := &taskv1.DeliverEvent{Persona: del.GetPersona(), FromPeer: from, Event: ev}
	if d.own != nil {
		if need := submissionNeed(ev, from); need != nil {
			cmd.OwnMetric, cmd.OwnPeerId = d.own.OwnMetric(), d.own.OwnPeerID()
			if need.MayHandOn { // who may not be given to others costs no question to them
				cmd.Candidates = d.own.Candidates(ctx, need)
			}
		} else if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_REPLICA_REQUEST {
			cmd.OwnPeerId = d.own.OwnPeerID()
		}
	}
	call, cancel := context.WithTimeout(ctx, DeliverTimeout)
	defer cancel()
	out, err := d.deliver(call, cmd)
	if err != nil {
		span.Failed(err)
		return d.failed(ctx, del, err)
	}
	span.SetReason(out.GetReason())
	v := Verdict{brokerv1.Verdict(out.GetVerdict()), out.GetReason()}
	if d.news != nil && v.Verdict == brokerv1.Verdict_VERDICT_UNSPECIFIED {
		d.news.Contact(from)
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_REDIRECTED {
			d.redirected(ctx, ev)
		}
	}
	return v
}

const (
	againFirst = 20 * time.Millisecond
	againMost  = 500 * time.Millisecond
)

// deliver gives an event to the task service, and again while that says "not yet": of providers that hand a task on, the last may be
// heard first. It waits here and not in the broker, where everything else of the same sender would wait behind it, perhaps the very
// event that another sender's is waiting for.
func (d *Deliverer) deliver(ctx context.Context, cmd *taskv1.DeliverEvent) (*taskv1.Delivered, error) {
	for wait := againFirst; ; wait = min(2*wait, againMost) {
		out, err := d.tasks.Deliver(ctx, cmd)
		if err != nil || brokerv1.Verdict(out.GetVerdict()) != brokerv1.Verdict_VERDICT_RETRY {
			return out, err
		}
		t, _ := ctx.Deadline()
		if time.Until(t) <= wait {
			return out, nil
		}
		sleep(ctx, wait)
	}
}

// failed: the broker gives the event again, later or to another; one that makes the task service fail every time is let go.
func (d *Deliverer) failed(ctx context.Context, del *brokerv1.Delivery, err error) Verdict {
	f := fault.From(err)
	if ctx.Err() == nil {
		d.log.Warn("the task service did not take an event", slog.String("type", del.GetEvent().GetType().String()), slog.Bool("redelivered", del.GetRedelivered()), logging.Err(err))
	}
	switch f.Code.String() {
	case "InvalidArgument":
		return rejected(f.Reason)
	case "Internal", "Unknown", "Unimplemented":
		if del.GetRedelivered() {
			return ignored("INTERNAL")
		}
	}
	return retry("BUSY")
}

func (d *Deliverer) redirected(ctx context.Context, ev *eventv1.Event) {
	var m eventv1.TaskRedirected
	if err := proto.Unmarshal(ev.GetPayload(), &m); err == nil && m.GetAnnouncement() != nil {
		d.news.Redirected(ctx, m.GetAnnouncement())
	}
}

// submissionNeed is what a submission needs, so that candidates for a redirect can be found; nil where it is none,
// does not decode (the task service says what is wrong with it) or must stay here.
func submissionNeed(ev *eventv1.Event, from string) *domain.Need {
	var s eventv1.TaskSubmission
	var path []string
	switch ev.GetType() {
	case eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION:
		if proto.Unmarshal(ev.GetPayload(), &s) != nil {
			return nil
		}
	case eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION:
		var f eventv1.TaskForceSubmission
		if proto.Unmarshal(ev.GetPayload(), &f) != nil || proto.Unmarshal(f.GetSubmission().GetPayload(), &s) != nil {
			return nil
		}
		path = f.GetPath()
	default:
		return nil
	}
	n := &domain.Need{MayHandOn: s.GetRedirect(), TaskID: s.GetTaskId(), Type: s.GetType(), Limits: limitsOf(s.GetLimits()), Excluded: map[string]string{from: "sender"}}
	for _, p := range path {
		n.Excluded[p] = "had it before"
	}
	return n
}

// Order names what a delivery must not overtake: what its sender said before about the same task.
func Order(del *brokerv1.Delivery) string {
	ev := del.GetEvent()
	switch ev.GetType() {
	case eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION, eventv1.EventType_EVENT_TYPE_TASK_PROGRESS, eventv1.EventType_EVENT_TYPE_TASK_QUERY,
		eventv1.EventType_EVENT_TYPE_TASK_COLLECTED, eventv1.EventType_EVENT_TYPE_DISCOVER_RESPONSE, eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE:
		return ""
	}
	task := firstString(ev.GetPayload())
	if task == "" {
		return ""
	}
	return del.GetFromPeer() + "/" + task
}

// taskOf is the task that an event is about, as far as its first bytes tell; empty where they do not.
func taskOf(ev *eventv1.Event) string {
	if id := firstString(ev.GetPayload()); domain.ValidTaskID(id) {
		return id
	}
	return ""
}

// firstString is field 1 of an encoded message where it is its first and can be a task id: in every event about one task
// that is the task's id. Decoding all of it only for its order would cost more than the order is worth.
func firstString(b []byte) string {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 || num != 1 || typ != protowire.BytesType {
		return ""
	}
	v, m := protowire.ConsumeBytes(b[n:])
	if m < 0 || len(v) != domain.TaskIDLength {
		return ""
	}
	return string(v)
}
