package anonymous

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// readList reads fields.txt: the class of each field.
func readList(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for i, line := range strings.Split(string(b), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		switch {
		case len(words) < 3:
			t.Fatalf("fields.txt, line %d: a field needs a class and a reason", i+1)
		case list[words[0]] != "":
			t.Fatalf("fields.txt, line %d: %s is there twice", i+1, words[0])
		case classes[words[1]] == nil:
			t.Fatalf("fields.txt, line %d: there is no class %q", i+1, words[1])
		}
		list[words[0]] = words[1]
	}
	return list
}

// spoken are the messages that nodes say to each other.
func spoken(t *testing.T) map[int32]protoreflect.MessageType {
	t.Helper()
	out := map[int32]protoreflect.MessageType{}
	for number, name := range eventv1.EventType_name {
		if number == 0 {
			continue
		}
		message := ""
		for word := range strings.SplitSeq(strings.TrimPrefix(name, "EVENT_TYPE_"), "_") {
			message += word[:1] + strings.ToLower(word[1:])
		}
		mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("shallot.event.v1." + message))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[number] = mt
	}
	return out
}

// pathOf is how the list calls a field.
func pathOf(f protoreflect.FieldDescriptor) string {
	return string(f.ContainingMessage().Name()) + "." + string(f.Name())
}

// leaf tells whether a field's value is looked at as it is.
func leaf(f protoreflect.FieldDescriptor) bool {
	return f.Message() == nil || f.IsMap() || f.Message().FullName() == "google.protobuf.Duration"
}

// TestListIsComplete: a field that is new to the contract is not on the list, and one that has gone is on it no longer.
func TestListIsComplete(t *testing.T) {
	t.Parallel()
	list := readList(t)
	todo := []protoreflect.MessageDescriptor{(&eventv1.Event{}).ProtoReflect().Descriptor(), (&eventv1.SealedPayload{}).ProtoReflect().Descriptor(),
		(&eventv1.BulkHosts{}).ProtoReflect().Descriptor(), (&taskv1.PayloadHeader{}).ProtoReflect().Descriptor(), (&taskv1.ResultHeader{}).ProtoReflect().Descriptor()}
	for _, mt := range spoken(t) {
		todo = append(todo, mt.Descriptor())
	}
	seen, found := map[protoreflect.FullName]bool{}, map[string]bool{}
	for ; len(todo) > 0; todo = todo[1:] {
		m := todo[0]
		if seen[m.FullName()] {
			continue
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if !leaf(f) {
				todo = append(todo, f.Message())
				continue
			}
			found[pathOf(f)] = true
			if list[pathOf(f)] == "" {
				t.Errorf("%s leaves a node, and nobody has said in fields.txt why, and how fine it may be", pathOf(f))
			}
		}
	}
	for path := range list {
		if !found[path] {
			t.Errorf("fields.txt has %s, which nobody says", path)
		}
	}
}
