package record

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// message is how a struct is stored: its fields in protobuf's wire format, each described once for both directions.
// Numbers are never reused; what is zero is not written; a number that is not known is skipped.
type message[T any] []field[T]

type field[T any] struct {
	n   protowire.Number
	put func(b []byte, v *T) []byte
	get func(v *T, w value) error
}

// value is one field's: a number, or bytes.
type value struct {
	number uint64
	bytes  []byte
	varint bool
}

var errKind = errors.New("a field is of another kind")

func (m message[T]) append(b []byte, v *T) []byte {
	for i := range m {
		b = m[i].put(b, v)
	}
	return b
}

func (m message[T]) read(b []byte, v *T) error {
	next := 0 // fields come in the order of the table
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var w value
		switch kind {
		case protowire.VarintType:
			w.varint = true
			w.number, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			w.bytes, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		for range m {
			f := &m[next]
			if f.n == n {
				if err := f.get(v, w); err != nil {
					return fmt.Errorf("field %d: %w", n, err)
				}
				break
			}
			next = (next + 1) % len(m)
		}
	}
	return nil
}

// number is for every kind of integer; what is negative is rare and takes ten bytes.
func number[T any, I ~int32 | ~int64 | ~uint8 | ~uint32 | ~uint64](n protowire.Number, at func(*T) *I) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		i := *at(v)
		if i == 0 {
			return b
		}
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(i))
	}, func(v *T, w value) error {
		if !w.varint {
			return errKind
		}
		*at(v) = I(w.number)
		return nil
	}}
}

// maybe is a number that may be absent, which is not the same as 0.
func maybe[T any](n protowire.Number, at func(*T) **int32) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		i := *at(v)
		if i == nil {
			return b
		}
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(*i))
	}, func(v *T, w value) error {
		if !w.varint {
			return errKind
		}
		i := int32(w.number)
		*at(v) = &i
		return nil
	}}
}

func flagged[T any](n protowire.Number, at func(*T) *bool) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		if !*at(v) {
			return b
		}
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), 1)
	}, func(v *T, w value) error {
		if !w.varint {
			return errKind
		}
		*at(v) = w.number != 0
		return nil
	}}
}

// moment is nanoseconds since 1970; it comes back in UTC.
func moment[T any](n protowire.Number, at func(*T) *time.Time) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		t := *at(v)
		if t.IsZero() {
			return b
		}
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(t.UnixNano()))
	}, func(v *T, w value) error {
		if !w.varint {
			return errKind
		}
		*at(v) = time.Unix(0, int64(w.number)).UTC()
		return nil
	}}
}

func text[T any](n protowire.Number, at func(*T) *string) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		s := *at(v)
		if s == "" {
			return b
		}
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
	}, func(v *T, w value) error {
		if w.varint {
			return errKind
		}
		*at(v) = string(w.bytes)
		return nil
	}}
}

func blob[T any](n protowire.Number, at func(*T) *[]byte) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		if len(*at(v)) == 0 {
			return b
		}
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), *at(v))
	}, func(v *T, w value) error {
		if w.varint {
			return errKind
		}
		*at(v) = append([]byte(nil), w.bytes...) // what it was read from is used again
		return nil
	}}
}

func texts[T any](n protowire.Number, at func(*T) *[]string) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		for _, s := range *at(v) {
			b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
		}
		return b
	}, func(v *T, w value) error {
		if w.varint {
			return errKind
		}
		*at(v) = append(*at(v), string(w.bytes))
		return nil
	}}
}

func hash[T any](n protowire.Number, at func(*T) *domain.Hash) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		h := at(v)
		if h.IsZero() {
			return b
		}
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), h[:])
	}, func(v *T, w value) error {
		h, ok := domain.HashOf(w.bytes)
		if !ok {
			return errKind
		}
		*at(v) = h
		return nil
	}}
}

// appendMessage writes a message inside another: its length goes before it once that is known.
func appendMessage[M any](b []byte, n protowire.Number, m message[M], v *M) []byte {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	start := len(b)
	b = m.append(b, v)
	size := len(b) - start
	b = protowire.AppendVarint(b, uint64(size))
	var length [10]byte
	k := copy(length[:], b[start+size:])
	copy(b[start+k:], b[start:start+size])
	copy(b[start:], length[:k])
	return b
}

func nested[T, M any](n protowire.Number, m message[M], at func(*T) *M) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte { return appendMessage(b, n, m, at(v)) }, func(v *T, w value) error {
		if w.varint {
			return errKind
		}
		return m.read(w.bytes, at(v))
	}}
}

// optional is a message that may be absent, which is not the same as an empty one.
func optional[T, M any](n protowire.Number, m message[M], at func(*T) **M) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		if *at(v) == nil {
			return b
		}
		return appendMessage(b, n, m, *at(v))
	}, func(v *T, w value) error {
		if w.varint {
			return errKind
		}
		*at(v) = new(M)
		return m.read(w.bytes, *at(v))
	}}
}

func list[T, M any](n protowire.Number, m message[M], at func(*T) *[]M) field[T] {
	return field[T]{n, func(b []byte, v *T) []byte {
		for i := range *at(v) {
			b = appendMessage(b, n, m, &(*at(v))[i])
		}
		return b
	}, func(v *T, w value) error {
		if w.varint {
			return errKind
		}
		var e M
		err := m.read(w.bytes, &e)
		*at(v) = append(*at(v), e)
		return err
	}}
}

// pair is one entry of a map.
type pair[V any] struct {
	key   string
	value V
}

func dictionary[T, V any](n protowire.Number, of field[pair[V]], at func(*T) *map[string]V) field[T] {
	m := message[pair[V]]{text(1, func(p *pair[V]) *string { return &p.key }), of}
	return field[T]{n, func(b []byte, v *T) []byte {
		for k, e := range *at(v) {
			b = appendMessage(b, n, m, &pair[V]{k, e})
		}
		return b
	}, func(v *T, w value) error {
		if w.varint {
			return errKind
		}
		var p pair[V]
		if err := m.read(w.bytes, &p); err != nil {
			return err
		}
		if *at(v) == nil {
			*at(v) = make(map[string]V)
		}
		(*at(v))[p.key] = p.value
		return nil
	}}
}
