package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// field is one leaf of the target struct.
type field struct {
	key, help string
	secret    bool
	value     reflect.Value
}

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType    = reflect.TypeFor[time.Duration]()
)

// fields lists the leaves of a struct, in order. A struct that a program declares wrongly is the programmer's
// mistake and found by the first start, so it panics.
func fields(v reflect.Value, prefix string) []field {
	var out []field
	t := v.Type()
	for i := range t.NumField() {
		sf := t.Field(i)
		if !sf.IsExported() {
			continue
		}
		if sf.Anonymous {
			out = append(out, fields(v.Field(i), prefix)...)
			continue
		}
		name := sf.Tag.Get("koanf")
		if name == "-" {
			continue
		}
		if name == "" {
			panic(fmt.Sprintf("config: field %s of %s has no koanf tag", sf.Name, t))
		}
		if sf.Type.Kind() == reflect.Struct && !reflect.PointerTo(sf.Type).Implements(textUnmarshaler) {
			out = append(out, fields(v.Field(i), prefix+name+".")...)
			continue
		}
		out = append(out, field{prefix + name, sf.Tag.Get("help"), sf.Tag.Get("secret") == "true", v.Field(i)})
	}
	return out
}

// set assigns what a source gave: a string, or what YAML made of it.
func (f field) set(raw any) error {
	if f.value.Kind() != reflect.Slice || f.value.Addr().Type().Implements(textUnmarshaler) {
		switch raw.(type) {
		case []any, map[string]any:
			return fmt.Errorf("not a single value")
		}
		return setScalar(f.value, text(raw))
	}
	var items []string
	switch raw := raw.(type) {
	case []any:
		for _, item := range raw {
			items = append(items, text(item))
		}
	case map[string]any:
		return fmt.Errorf("not a list")
	default:
		for item := range strings.SplitSeq(text(raw), ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	}
	list := reflect.MakeSlice(f.value.Type(), len(items), len(items))
	for i, item := range items {
		if err := setScalar(list.Index(i), item); err != nil {
			return fmt.Errorf("item %q: %w", item, err)
		}
	}
	f.value.Set(list)
	return nil
}

func text(raw any) string {
	switch raw := raw.(type) {
	case string:
		return raw
	case float64:
		return strconv.FormatFloat(raw, 'f', -1, 64)
	}
	return fmt.Sprint(raw)
}

func setScalar(v reflect.Value, s string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	if v.Type() == durationType {
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("not a duration such as 2s, 150ms or 1h30m")
		}
		v.SetInt(int64(d))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("not true or false")
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(s, 0, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("not a whole number of %d bits", v.Type().Bits())
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(s, 0, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("not a whole number of 0 or more, of %d bits", v.Type().Bits())
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("not a number")
		}
		v.SetFloat(n)
	default:
		panic("config: a field of type " + v.Type().String() + " cannot be configured")
	}
	return nil
}

// show prints a value as it could be given.
func (f field) show() string {
	v := f.value
	if f.secret && !v.IsZero() {
		return "***"
	}
	if v.Kind() == reflect.Slice {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = showScalar(v.Index(i))
		}
		return strings.Join(items, ",")
	}
	return showScalar(v)
}

func showScalar(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v.Interface())
}
