package aliased

import (
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shallot-net/shallot/kit/alias"
)

type mask struct {
	key    *alias.Key
	peers  Peers
	tokens *tokens
}

// ids are the fields that hold a peer id, and the field beside it that takes its alias; a metric's is in what surrounds it.
var ids = map[protoreflect.Name]protoreflect.Name{"peer_id": "alias", "provider": "provider_alias", "consumer": "consumer_alias"}

// addresses are the fields that lead to a peer and are not texts.
var addresses = map[protoreflect.Name]bool{"addresses": true, "sealing_key": true, "announcement": true}

// own are the fields whose words are the user's: they stay as they are.
var own = map[protoreflect.Name]bool{"labels": true, "request_id": true, "path": true, "input_path": true, "name": true, "owner": true, "cid": true}

const pageToken protoreflect.Name = "next_page_token"

// message fills in aliases, and takes out what says who or where a peer is unless show.
func (m *mask) message(msg protoreflect.Message, show bool) {
	m.aliases(msg)
	msg.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			m.entries(fd, v.Map(), show)
		case isMessage(fd) && addresses[fd.Name()] && !show:
			msg.Clear(fd)
		case isMessage(fd) && fd.IsList():
			for i := range v.List().Len() {
				m.message(v.List().Get(i).Message(), show)
			}
		case isMessage(fd):
			m.message(v.Message(), show)
		case fd.Kind() == protoreflect.StringKind:
			m.words(msg, fd, v, show)
		}
		return true
	})
}

func isMessage(fd protoreflect.FieldDescriptor) bool {
	return fd.Kind() == protoreflect.MessageKind || fd.Kind() == protoreflect.GroupKind
}

// aliases fills in the fields for them, before what they are made of is taken out.
func (m *mask) aliases(msg protoreflect.Message) {
	fields := msg.Descriptor().Fields()
	for id, name := range ids {
		to := fields.ByName(name)
		if to == nil || to.Kind() != protoreflect.StringKind {
			continue
		}
		holder := msg
		from := fields.ByName(id)
		if inner := fields.ByName("metric"); from == nil && inner != nil && isMessage(inner) && !inner.IsList() {
			holder = msg.Get(inner).Message()
			from = holder.Descriptor().Fields().ByName(id)
		}
		if from != nil && from.Kind() == protoreflect.StringKind {
			msg.Set(to, protoreflect.ValueOfString(m.key.Of(holder.Get(from).String())))
		}
	}
}

// words takes peers out of one field of text.
func (m *mask) words(msg protoreflect.Message, fd protoreflect.FieldDescriptor, v protoreflect.Value, show bool) {
	_, id := ids[fd.Name()]
	switch {
	case fd.Name() == pageToken:
		msg.Set(fd, protoreflect.ValueOfString(m.tokens.seal(v.String())))
	case own[fd.Name()] || show:
	case id || addresses[fd.Name()]:
		msg.Clear(fd)
	case fd.IsList():
		for i := range v.List().Len() {
			v.List().Set(i, protoreflect.ValueOfString(m.key.Text(v.List().Get(i).String())))
		}
	default:
		msg.Set(fd, protoreflect.ValueOfString(m.key.Text(v.String())))
	}
}

func (m *mask) entries(fd protoreflect.FieldDescriptor, entries protoreflect.Map, show bool) {
	if own[fd.Name()] {
		return
	}
	var keys []protoreflect.MapKey // nothing may be added while it is ranged over
	entries.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if isMessage(fd.MapValue()) {
			m.message(v.Message(), show)
		}
		keys = append(keys, k)
		return true
	})
	if show {
		return
	}
	for _, k := range keys {
		v := entries.Get(k)
		if fd.MapValue().Kind() == protoreflect.StringKind {
			v = protoreflect.ValueOfString(m.key.Text(v.String()))
		}
		entries.Clear(k)
		if fd.MapKey().Kind() == protoreflect.StringKind {
			k = protoreflect.ValueOfString(m.key.Text(k.String())).MapKey()
		}
		entries.Set(k, v)
	}
}

var speaking sync.Map // message name: whether there is text in it

// speaksOfPeers tells whether a message can hold text: pieces of results and content are not worth a copy.
func speaksOfPeers(d protoreflect.MessageDescriptor) bool {
	if known, ok := speaking.Load(d.FullName()); ok {
		return known.(bool)
	}
	found := hasText(d, map[protoreflect.FullName]bool{})
	speaking.Store(d.FullName(), found)
	return found
}

func hasText(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[d.FullName()] {
		return false
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if fd.Kind() == protoreflect.StringKind || isMessage(fd) && hasText(fd.Message(), seen) {
			return true
		}
	}
	return false
}
