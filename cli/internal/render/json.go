package render

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Object is a JSON object that keeps the order of its fields.
type Object []Field

// Field is one of an Object's.
type Field struct {
	Name  string
	Value any
}

// MarshalJSON implements json.Marshaler.
func (o Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.Name)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		value, err := marshal(f.Value)
		if err != nil {
			return nil, err
		}
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// With returns the object with one more field, or with that field's value replaced.
func (o Object) With(name string, value any) Object {
	out := append(Object(nil), o...)
	for i := range out {
		if out[i].Name == name {
			out[i].Value = value
			return out
		}
	}
	return append(out, Field{name, value})
}

// Without returns the object without some fields.
func (o Object) Without(names ...string) Object {
	var out Object
next:
	for _, f := range o {
		for _, n := range names {
			if f.Name == n {
				continue next
			}
		}
		out = append(out, f)
	}
	return out
}

// marshal leaves "<", ">" and "&" as they are: this is no HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// Proto turns a message into an object: every field, under its snake_case name; numbers of 64 bits are numbers, what is
// not set is null, a time is RFC 3339 in UTC, a duration is like "1.5s".
func Proto(m proto.Message) Object {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil
	}
	return object(m.ProtoReflect())
}

// Protos is Proto for a list; it is never null.
func Protos[M proto.Message](list []M) []Object {
	out := make([]Object, len(list))
	for i, m := range list {
		out[i] = Proto(m)
	}
	return out
}

func object(m protoreflect.Message) Object {
	fields := m.Descriptor().Fields()
	out := make(Object, 0, fields.Len())
	for i := range fields.Len() {
		fd := fields.Get(i)
		if od := fd.ContainingOneof(); od != nil && !od.IsSynthetic() && !m.Has(fd) {
			continue // of a choice only what was chosen
		}
		if replaced(m, fd) {
			continue
		}
		out = append(out, Field{string(fd.Name()), field(m, fd)})
	}
	return out
}

// aliases are the fields that an anonymous node fills, each with those that it is in the place of.
var aliases = map[protoreflect.Name][]protoreflect.Name{
	"alias": {"peer_id", "addresses", "sealing_key"}, "provider_alias": {"provider"}, "consumer_alias": {"consumer"},
}

// replaced tells whether a field is not there because of the mode: an alias in open mode, and what an alias is in the place of.
func replaced(m protoreflect.Message, fd protoreflect.FieldDescriptor) bool {
	if m.Has(fd) {
		return false
	}
	if aliases[fd.Name()] != nil {
		return true
	}
	for name, of := range aliases {
		if to := m.Descriptor().Fields().ByName(name); to != nil && m.Has(to) && slices.Contains(of, fd.Name()) {
			return true
		}
	}
	return false
}

func field(m protoreflect.Message, fd protoreflect.FieldDescriptor) any {
	v := m.Get(fd)
	switch {
	case fd.IsList():
		list := v.List()
		out := make([]any, list.Len())
		for i := range out {
			out[i] = single(fd, list.Get(i))
		}
		return out
	case fd.IsMap():
		out := map[string]any{} // encoding/json sorts the keys
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			out[k.String()] = single(fd.MapValue(), v)
			return true
		})
		return out
	case fd.HasPresence() && !m.Has(fd):
		return nil
	}
	return single(fd, v)
}

func single(fd protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch msg := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return msg.AsTime().UTC().Format(time.RFC3339Nano)
		case *durationpb.Duration:
			return Seconds(msg.AsDuration())
		}
		return object(v.Message())
	case protoreflect.EnumKind:
		if ev := fd.Enum().Values().ByNumber(v.Enum()); ev != nil {
			return string(ev.Name())
		}
		return int32(v.Enum())
	case protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil
		}
	}
	return v.Interface()
}

// Seconds prints a duration as protobuf's JSON does: "1.5s".
func Seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}
