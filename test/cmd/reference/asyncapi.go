package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const eventPackage = "shallot.event.v1"

// A channel is a way for events, and who says what on it. What the contract says of events in words only is said here once more as data: asyncAPI refuses a document in which a type of event has no
// channel.
type channel struct {
	id, address, title, description string
	say                             map[string][]string // who sends: types of events, by the names of their messages
}

var channels = []channel{
	{
		id: "announcements", address: "announcements", title: "Announcements, gossiped",
		description: "A gossipsub topic (/shallot/meshsub/1.2.0). Every provider relays what it has checked; messages have neither author nor signature of the transport, so that relaying tells nobody who spoke first.",
		say:         map[string][]string{"provider": {"Announcement"}},
	},
	{
		id: "metrics", address: "metrics", title: "Metrics, gossiped",
		description: "A gossipsub topic (/shallot/meshsub/1.2.0), as announcements are.",
		say:         map[string][]string{"provider": {"MetricAvailable"}},
	},
	{
		id: "events", address: "/shallot/event/1.0.0", title: "Events from one peer to another",
		description: "One libp2p stream per direction and pair of peers. At least once: acknowledged by the receiving service after its commit, in the order of the sender for one task while one replica of the receiver has it, " +
			"repeated or reordered after a hand-over. Repeats are known by their id.",
		say: map[string][]string{
			"provider": {"DiscoverResponse", "MetricAvailable", "Discover", "Ping", "TaskForceSubmission", "TaskReplicaRequest", "TaskReplicaAnswer", "TaskCollected",
				"TaskAccepted", "TaskRedirected", "TaskRefused", "TaskProgress", "TaskLog", "TaskResult", "TaskFailure", "TaskStatus", "TaskReplicas", "TaskReplicaResult"},
			"consumer": {"Discover", "MetricQuery", "TaskSubmission", "TaskCancel", "TaskQuery", "TaskCollected"},
		},
	},
}

// object keeps the order of its members, which a map of Go's would not.
type object []member

type member struct {
	key   string
	value any
}

// MarshalYAML implements yaml.Marshaler.
func (o object) MarshalYAML() (any, error) {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for _, m := range o {
		var v yaml.Node
		if err := v.Encode(m.value); err != nil {
			return nil, err
		}
		node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: m.key}, &v)
	}
	return node, nil
}

func ref(to string) object { return object{{"$ref", to}} }

// asyncAPI is the document.
func asyncAPI(c *contracts) ([]byte, error) {
	types, err := eventTypes(c)
	if err != nil {
		return nil, err
	}
	var ways, operations object
	said := map[string]bool{}
	for _, ch := range channels {
		var senders []string
		carried := map[string]bool{}
		for who, names := range ch.say {
			senders = append(senders, who)
			for _, n := range names {
				if types[n] == nil {
					return nil, fmt.Errorf("the channel %s has %s, which is no event", ch.id, n)
				}
				carried[n], said[n] = true, true
			}
		}
		slices.Sort(senders)
		var messages object
		for _, n := range byNumber(types, carried) {
			messages = append(messages, member{n, ref("#/components/messages/" + n)})
		}
		ways = append(ways, member{ch.id, object{{"address", ch.address}, {"title", ch.title}, {"description", ch.description}, {"messages", messages}}})
		for _, who := range senders {
			of := map[string]bool{}
			for _, n := range ch.say[who] {
				of[n] = true
			}
			var refs []object
			for _, n := range byNumber(types, of) {
				refs = append(refs, ref("#/channels/"+ch.id+"/messages/"+n))
			}
			operations = append(operations, member{who + "Says" + strings.ToUpper(ch.id[:1]) + ch.id[1:], object{
				{"action", "send"}, {"channel", ref("#/channels/" + ch.id)}, {"title", "What a " + who + " sends"}, {"messages", refs}}})
		}
	}
	for n := range types {
		if !said[n] {
			return nil, fmt.Errorf("nobody sends %s: give it a channel in asyncapi.go", n)
		}
	}
	all := map[string]bool{}
	for n := range types {
		all[n] = true
	}
	s := schemas{seen: map[string]bool{}}
	var messages object
	for _, n := range byNumber(types, all) {
		t := types[n]
		messages = append(messages, member{n, object{
			{"name", n}, {"title", n}, {"summary", cmp.Or(firstSentence(comment(t.message)), n+".")}, {"contentType", "application/protobuf"},
			{"x-event-type", string(t.value.Name())}, {"x-event-number", int(t.value.Number())}, {"x-protobuf-message", string(t.message.FullName())},
			{"payload", s.message(t.message)},
		}})
	}
	s.message(c.message("Event")) // the envelope, to which nothing else refers
	doc := object{
		{"asyncapi", "3.0.0"},
		{"info", object{
			{"title", "Shallot: events between nodes"}, {"version", "v1"}, {"license", object{{"name", "Apache-2.0"}}},
			{"description", "What nodes of the network send each other, from the contract shallot.event.v1. Written by `make reference`.\n\n" +
				"On the wire everything is an Event of Protocol Buffers (components/schemas/Event), whose type says which of these messages its payload is: schemas here are those of its JSON form. " +
				"An event has at most 256 KiB, attachment included. What does not decode, verify or fit is dropped, counted and held against the sender; what is repeated, late or of a type not known is ignored."},
		}},
		{"defaultContentType", "application/protobuf"},
		{"channels", ways},
		{"operations", operations},
		{"components", object{{"messages", messages}, {"schemas", s.all(c)}}},
	}
	var b bytes.Buffer
	b.WriteString("# Written by `make reference` from proto/shallot/event/v1: change the comments there.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(doc), e.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

type eventType struct {
	value   protoreflect.EnumValueDescriptor
	message protoreflect.MessageDescriptor
}

// eventTypes are the events by the names of their messages: the type NAME_OF_IT holds a message NameOfIt.
func eventTypes(c *contracts) (map[string]*eventType, error) {
	d, err := c.files.FindDescriptorByName(eventPackage + ".EventType")
	if err != nil {
		return nil, err
	}
	out := map[string]*eventType{}
	values := d.(protoreflect.EnumDescriptor).Values()
	for i := range values.Len() {
		v := values.Get(i)
		if v.Number() == 0 {
			continue
		}
		name := ""
		for word := range strings.SplitSeq(strings.TrimPrefix(string(v.Name()), "EVENT_TYPE_"), "_") {
			name += word[:1] + strings.ToLower(word[1:])
		}
		m := c.message(name)
		if m == nil {
			return nil, fmt.Errorf("the contract has no message %s for %s", name, v.Name())
		}
		out[name] = &eventType{v, m}
	}
	return out, nil
}

func (c *contracts) message(name string) protoreflect.MessageDescriptor {
	d, err := c.files.FindDescriptorByName(protoreflect.FullName(eventPackage + "." + name))
	if err != nil {
		return nil
	}
	return d.(protoreflect.MessageDescriptor)
}

func byNumber(types map[string]*eventType, which map[string]bool) []string {
	var names []string
	for n := range which {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(types[a].value.Number(), types[b].value.Number()) })
	return names
}

// firstSentence is enough for a summary.
func firstSentence(s string) string {
	s = oneLine(s)
	if i := strings.Index(s, ". "); i >= 0 {
		return s[:i+1]
	}
	return s
}
