package main

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// schemas collects the JSON schemas of messages, as JSON of Protocol Buffers has them: 64-bit numbers are strings, bytes are base64.
type schemas struct{ seen map[string]bool }

// message refers to a message's schema and remembers that it is wanted.
func (s *schemas) message(m protoreflect.MessageDescriptor) object {
	switch m.FullName() {
	case "google.protobuf.Duration":
		return object{{"type", "string"}, {"description", "seconds, such as 1.5s"}}
	case "google.protobuf.Timestamp":
		return object{{"type", "string"}, {"format", "date-time"}}
	}
	s.seen[string(m.FullName())] = true
	return ref("#/components/schemas/" + local(m))
}

// all are the schemas that were referred to, and those that they refer to, by their names.
func (s *schemas) all(c *contracts) (out object) {
	done := map[string]object{}
	for len(done) < len(s.seen) {
		for name := range s.seen {
			if done[name] != nil {
				continue
			}
			d, err := c.files.FindDescriptorByName(protoreflect.FullName(name))
			if err != nil {
				panic(err) // it was found a moment ago
			}
			done[name] = s.fields(d.(protoreflect.MessageDescriptor))
			break // the set has grown
		}
	}
	names := make([]string, 0, len(done))
	for n := range done {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		d, _ := c.files.FindDescriptorByName(protoreflect.FullName(n))
		out = append(out, member{local(d), done[n]})
	}
	return out
}

func (s *schemas) fields(m protoreflect.MessageDescriptor) object {
	out := object{{"type", "object"}}
	if text := comment(m); text != "" {
		out = append(out, member{"description", text})
	}
	var properties object
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		properties = append(properties, member{string(f.Name()), s.field(f)})
	}
	if properties == nil {
		return out
	}
	return append(out, member{"properties", properties})
}

func (s *schemas) field(f protoreflect.FieldDescriptor) object {
	var out object
	switch {
	case f.IsMap():
		out = object{{"type", "object"}, {"additionalProperties", s.value(f.MapValue())}}
	case f.IsList():
		out = object{{"type", "array"}, {"items", s.value(f)}}
	default:
		out = s.value(f)
	}
	if text := oneLine(comment(f)); text != "" {
		if out[0].key == "$ref" { // whose neighbours are not read
			out = object{{"allOf", []object{out}}}
		}
		out = append(slices.DeleteFunc(out, func(m member) bool { return m.key == "description" }), member{"description", text})
	}
	if out[0].key == "$ref" {
		return out
	}
	return append(out, member{"x-field-number", int(f.Number())})
}

func (s *schemas) value(f protoreflect.FieldDescriptor) object {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return s.message(f.Message())
	case protoreflect.EnumKind:
		var names []string
		for i := range f.Enum().Values().Len() {
			names = append(names, string(f.Enum().Values().Get(i).Name()))
		}
		return object{{"type", "string"}, {"enum", names}}
	case protoreflect.BoolKind:
		return object{{"type", "boolean"}}
	case protoreflect.StringKind:
		return object{{"type", "string"}}
	case protoreflect.BytesKind:
		return object{{"type", "string"}, {"format", "byte"}}
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		return object{{"type", "number"}, {"format", f.Kind().String()}}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Uint64Kind, protoreflect.Sfixed64Kind, protoreflect.Fixed64Kind:
		return object{{"type", "string"}, {"format", f.Kind().String()}}
	default:
		return object{{"type", "integer"}, {"format", f.Kind().String()}}
	}
}
