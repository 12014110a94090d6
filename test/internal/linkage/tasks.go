package linkage

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Task is what colluding providers know of a task, by names of what it is.
type Task struct {
	ID       string
	Consumer int // what they want to know
	At       time.Time
	Numbers  map[string]float64
	Texts    map[string]string      // and bytes
	Times    map[string][]time.Time // when something happened
}

func newTask(id string, consumer int, at time.Time) *Task {
	return &Task{ID: id, Consumer: consumer, At: at, Numbers: map[string]float64{}, Texts: map[string]string{}, Times: map[string][]time.Time{}}
}

// Tasks are those of which a submission was seen. consumers says whose each is; what it does not name is left out. providers are the providers' own peer ids.
func Tasks(sights []Sight, consumers map[string]int, providers []string) ([]*Task, error) {
	sessions := map[string][]Sight{}
	for _, s := range sights {
		sessions[s.Peer] = append(sessions[s.Peer], s)
	}
	submitters := map[string]bool{}
	var out []*Task
	for _, s := range sights {
		if s.What != Heard || s.Event.GetType() != eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION {
			continue
		}
		submitters[s.Peer] = true
		m, err := decode(s.Event)
		if err != nil {
			return nil, err
		}
		sub, ok := m.(*eventv1.TaskSubmission)
		if !ok {
			return nil, fmt.Errorf("a submission is a %T", m)
		}
		consumer, known := consumers[sub.GetTaskId()]
		if !known || slices.ContainsFunc(out, func(t *Task) bool { return t.ID == sub.GetTaskId() }) {
			continue
		}
		t := newTask(sub.GetTaskId(), consumer, s.At)
		t.Texts["provider"] = fmt.Sprint(s.Provider)
		if err := errors.Join(t.identity(s.Peer), t.session(sessions[s.Peer])); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	askers(out, sights, submitters, providers)
	return out, nil
}

// identity is what a peer id says by itself.
func (t *Task) identity(id string) error {
	t.Texts["peer"] = id
	p, err := peer.Decode(id)
	if err != nil {
		return err
	}
	key, err := p.ExtractPublicKey()
	if err != nil {
		t.Texts["peer kind"] = "a hash"
		return nil //nolint:nilerr // then there is no key in the id, which is a kind too
	}
	t.Texts["peer kind"] = key.Type().String()
	return nil
}

// session is all that was seen of the task's peer.
func (t *Task) session(sights []Sight) error {
	var order, gaps []string
	var last time.Time
	seen := map[string]bool{}
	count := map[string]int{}
	at := map[string]time.Time{}
	for _, s := range sights {
		if s.What == Listed {
			t.listed(&s)
			continue
		}
		name := s.What
		if s.What == Fetched {
			t.Texts[fmt.Sprintf("content %d", count[name]+1)] = s.CID
		}
		if s.Event != nil {
			kind := strings.TrimPrefix(s.Event.GetType().String(), "EVENT_TYPE_")
			about, m, err := t.about(s.Event)
			if err != nil {
				return err
			}
			if !about {
				continue
			}
			name += " " + kind
			if !seen[name] {
				t.event(name, &s, m)
			}
		}
		t.Times[name] = append(t.Times[name], s.At)
		count[name]++
		if seen[name] && s.What == Heard {
			continue // how often is a feature of its own
		}
		if !seen[name] {
			at[name] = s.At
		}
		seen[name] = true
		order = append(order, name)
		if !last.IsZero() {
			gaps = append(gaps, fmt.Sprint(class(s.At.Sub(last))))
			t.Numbers[fmt.Sprintf("gap %d", len(gaps))] = class(s.At.Sub(last))
		}
		last = s.At
	}
	t.Texts["order"], t.Texts["gaps"] = strings.Join(order, ", "), strings.Join(gaps, " ")
	for name, n := range count {
		t.Numbers["how often "+name] = float64(n)
	}
	for _, span := range [][2]string{
		{Connected, "heard DISCOVER"}, {"heard DISCOVER", "heard TASK_SUBMISSION"}, {Connected, "heard TASK_SUBMISSION"}, {"answered DISCOVER_RESPONSE", "heard TASK_SUBMISSION"},
		{"heard TASK_SUBMISSION", "said TASK_RESULT"}, {"answered TASK_RESULT", "heard TASK_COLLECTED"}, {"heard TASK_COLLECTED", Disconnected}, {Connected, Disconnected},
	} {
		if from, to := at[span[0]], at[span[1]]; !from.IsZero() && !to.IsZero() {
			t.Numbers["time from "+span[0]+" to "+span[1]] = class(to.Sub(from))
		}
	}
	return nil
}

// class is a time in classes: the logarithm to the base of 2 of its milliseconds, rounded to a half.
func class(d time.Duration) float64 {
	ms := max(0, d.Seconds()*1000)
	return math.Round(2*math.Log2(1+ms)) / 2
}

// listed is what the broker says of a connected peer.
func (t *Task) listed(s *Sight) {
	p := s.Listed
	t.Texts["addresses"] = strings.Join(p.GetAddresses(), ",")
	t.Texts["inbound"] = fmt.Sprint(p.GetInbound())
	if p.GetRtt() != nil {
		t.Numbers["round trip"] = class(p.GetRtt().AsDuration())
	}
}

// about tells whether an event is about this task, or about none.
func (t *Task) about(ev *eventv1.Event) (bool, proto.Message, error) {
	m, err := decode(ev)
	if err != nil {
		return false, nil, err
	}
	any, mine := false, false
	leaves(m.ProtoReflect(), "", func(path string, v protoreflect.Value, _ protoreflect.FieldDescriptor) {
		if path == "task_id" || strings.HasSuffix(path, ".task_id") {
			any = true
			mine = mine || v.String() == t.ID
		}
	})
	return mine || !any, m, nil
}

// encapsulated are the bytes of the key that is agreed on, after one of a sealed key's version.
const encapsulated = 1120

// event takes everything from the first event of a kind: from what is heard every field, from what is said the sizes, since its content is the provider's own.
func (t *Task) event(name string, s *Sight, m proto.Message) {
	if s.What == Answered {
		t.Numbers["time to be "+name] = class(s.Took)
		t.Texts["fault of "+name] = s.Fault.GetReason() + " " + s.Fault.GetMessage()
		return
	}
	ev := s.Event
	t.Numbers["size of "+name] = float64(proto.Size(ev))
	t.Numbers["size of payload of "+name] = float64(len(ev.GetPayload()))
	t.Numbers["size of attachment of "+name] = float64(len(ev.GetAttachment()))
	if s.What != Heard {
		return
	}
	t.Texts[name+": id"] = ev.GetId()
	t.Texts[name+": author"] = ev.GetAuthor()
	t.Texts[name+": signature"] = string(ev.GetSignature())
	t.fields(name, m)
	if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION {
		var sealed eventv1.SealedPayload
		if proto.Unmarshal(ev.GetAttachment(), &sealed) == nil {
			t.fields(name+": sealed", &sealed)
			// Where a sender uses one for several tasks, it is this part of the sealed key that repeats.
			if key := sealed.GetSealedKey(); len(key) > encapsulated {
				t.Texts["encapsulated key"] = string(key[1 : 1+encapsulated])
			}
		}
	}
}

// fields are all values of a message, by their paths.
func (t *Task) fields(name string, m proto.Message) {
	t.Texts[name+": unknown fields"] = string(m.ProtoReflect().GetUnknown())
	leaves(m.ProtoReflect(), "", func(path string, v protoreflect.Value, f protoreflect.FieldDescriptor) {
		name := name + ": " + path
		switch f.Kind() {
		case protoreflect.StringKind:
			t.text(name, v.String())
		case protoreflect.BytesKind:
			t.text(name, string(v.Bytes()))
		case protoreflect.BoolKind:
			t.Texts[name] = fmt.Sprint(v.Bool())
		case protoreflect.EnumKind:
			t.Numbers[name] = float64(v.Enum())
		case protoreflect.FloatKind, protoreflect.DoubleKind:
			t.Numbers[name] = v.Float()
		case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind, protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
			t.Numbers[name] = float64(v.Int())
		case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
			t.Numbers[name] = float64(v.Uint())
		case protoreflect.MessageKind, protoreflect.GroupKind: // leaves are none
		}
	})
}

func (t *Task) text(name, value string) {
	t.Texts[name] = value
	t.Numbers["length of "+name] = float64(len(value))
}

// leaves are the values in a message, with their paths.
func leaves(m protoreflect.Message, prefix string, each func(path string, v protoreflect.Value, f protoreflect.FieldDescriptor)) {
	one := func(path string, v protoreflect.Value, f protoreflect.FieldDescriptor) {
		if f.Message() != nil && !f.IsMap() {
			leaves(v.Message(), path+".", each)
			return
		}
		each(path, v, f)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := prefix + string(f.Name())
		switch {
		case f.IsList():
			for i := range v.List().Len() {
				one(fmt.Sprintf("%s[%d]", path, i), v.List().Get(i), f)
			}
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				one(path+"["+k.String()+"]", v, f.MapValue())
				return true
			})
		default:
			one(path, v, f)
		}
		return true
	})
}

// decode finds the message that an event's type names: NAME_OF_IT is NameOfIt.
func decode(ev *eventv1.Event) (proto.Message, error) {
	name := ""
	for word := range strings.SplitSeq(strings.TrimPrefix(ev.GetType().String(), "EVENT_TYPE_"), "_") {
		name += word[:1] + strings.ToLower(word[1:])
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("shallot.event.v1." + name))
	if err != nil {
		return nil, fmt.Errorf("an event of the type %s: %w", ev.GetType(), err)
	}
	m := kind.New().Interface()
	if err := proto.Unmarshal(ev.GetPayload(), m); err != nil {
		return nil, fmt.Errorf("an event of the type %s: %w", ev.GetType(), err)
	}
	return m, nil
}

// askers adds who, of those that never submit, asked a question last before a task's peer connected, and first after: a consumer that looks around when it has
// a task would name itself.
func askers(tasks []*Task, sights []Sight, submitters map[string]bool, providers []string) {
	var questions []Sight
	for _, s := range sights {
		kind := s.Event.GetType()
		if s.What == Heard && !submitters[s.Peer] && !slices.Contains(providers, s.Peer) &&
			(kind == eventv1.EventType_EVENT_TYPE_METRIC_QUERY || kind == eventv1.EventType_EVENT_TYPE_DISCOVER) {
			questions = append(questions, s)
		}
	}
	for _, t := range tasks {
		when := t.At
		if c := t.Times[Connected]; len(c) > 0 {
			when = c[0]
		}
		next := slices.IndexFunc(questions, func(q Sight) bool { return q.At.After(when) })
		if next >= 0 {
			t.Texts["asked first after"] = questions[next].Peer
		} else {
			next = len(questions)
		}
		if next > 0 {
			t.Texts["asked last before"] = questions[next-1].Peer
		}
	}
}

// MustDiffer are texts that are drawn or made anew for every task.
var MustDiffer = []string{
	"peer", "heard DISCOVER: id", "heard TASK_SUBMISSION: id", "heard TASK_SUBMISSION: signature", "heard TASK_SUBMISSION: task_id", "heard TASK_SUBMISSION: puzzle",
	"heard TASK_SUBMISSION: payload_hash", "heard TASK_SUBMISSION: sealed: sealed_key", "heard TASK_SUBMISSION: sealed: ciphertext", "encapsulated key", "heard TASK_COLLECTED: id",
}

// Repeated are those of the names that any two tasks have in common, or that no task has at all.
func Repeated(tasks []*Task, names []string) (out []string) {
	for _, name := range names {
		seen := map[string]bool{}
		for _, t := range tasks {
			s, ok := t.Texts[name]
			if seen[s] && ok {
				out = append(out, name)
				break
			}
			seen[s] = seen[s] || ok
		}
		if len(seen) < len(tasks)*9/10 && !slices.Contains(out, name) { // an event that was not seen of some tasks is no repetition
			out = append(out, name+", which few tasks have")
		}
	}
	return out
}
