package anonymous

import (
	"fmt"
	"math"
	"regexp"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/padding"
)

// classes say whether a value is as coarse as it has to be. What cannot be seen in one value is let through: it is the reason in the list that counts.
var classes = map[string]func(v protoreflect.Value) bool{
	"random": text(regexp.MustCompile(`^([0-9a-f]{32})?$`)),
	"word":   text(regexp.MustCompile(`^[A-Z0-9_]*$`)),
	"empty":  text(regexp.MustCompile(`^$`)),
	"key":    anything, "sealed": anything, "asked": anything, "setting": anything, "address": anything, "nested": anything, "constant": anything, "size": anything,
	"counter":    func(v protoreflect.Value) bool { n := number(v); return n >= 1 && n < 1e6 }, // the seconds of an epoch are a thousand times that
	"small":      func(v protoreflect.Value) bool { n := number(v); return n >= 0 && n < 100 },
	"power":      func(v protoreflect.Value) bool { return power(number(v), 2) },
	"power4":     func(v protoreflect.Value) bool { return power(number(v), 4) },
	"quarter":    func(v protoreflect.Value) bool { return power(number(v), 2) || power(number(v)/3, 2) },
	"quarters":   func(v protoreflect.Value) bool { return number(v)*4 == math.Trunc(number(v)*4) && number(v) <= 1 },
	"sixteenths": func(v protoreflect.Value) bool { return number(v)*16 == math.Trunc(number(v)*16) && number(v) <= 1 },
	"seconds": func(v protoreflect.Value) bool {
		d := duration(v)
		return d == d.Truncate(time.Second) && power(d.Seconds(), 2)
	},
	"minutes": func(v protoreflect.Value) bool { d := duration(v); return d == d.Truncate(time.Minute) },
	"padded":  func(v protoreflect.Value) bool { n := int64(number(v)); return n == 0 || padding.Size(n) == n },
	"zeros": func(v protoreflect.Value) bool {
		if b, ok := v.Interface().([]byte); ok {
			return padding.Zero(b)
		}
		return number(v) >= 0
	},
	"drawn": func(v protoreflect.Value) bool { b, ok := v.Interface().([]byte); return ok && len(b) == 16 },
	"payment": func(v protoreflect.Value) bool {
		b, ok := v.Interface().([]byte)
		return ok && len(b) == 33 && b[0] <= 25
	},
}

func anything(protoreflect.Value) bool { return true }

func text(form *regexp.Regexp) func(v protoreflect.Value) bool {
	return func(v protoreflect.Value) bool { s, ok := v.Interface().(string); return ok && form.MatchString(s) }
}

func number(v protoreflect.Value) float64 {
	switch n := v.Interface().(type) {
	case uint32:
		return float64(n)
	case uint64:
		return float64(n)
	case int32:
		return float64(n)
	case int64:
		return float64(n)
	case float64:
		return n
	}
	return math.NaN()
}

func duration(v protoreflect.Value) time.Duration {
	d, ok := v.Message().Interface().(*durationpb.Duration)
	if !ok {
		return -1
	}
	return d.AsDuration()
}

func power(v float64, base float64) bool {
	if v == 0 {
		return true
	}
	e := math.Log2(v) / math.Log2(base)
	return v > 0 && e == math.Trunc(e)
}

// TestClasses: a class that lets everything through would go unnoticed.
func TestClasses(t *testing.T) {
	t.Parallel()
	of := protoreflect.ValueOf
	span := func(d time.Duration) protoreflect.Value { return of(durationpb.New(d).ProtoReflect()) }
	for class, c := range map[string]struct{ good, bad []protoreflect.Value }{
		"random":     {[]protoreflect.Value{of(""), of("0123456789abcdef0123456789abcdef")}, []protoreflect.Value{of("2026-11-26"), of("task-1")}},
		"word":       {[]protoreflect.Value{of(""), of("QUEUE_FULL")}, []protoreflect.Value{of("the queue is full"), of("/home/me")}},
		"empty":      {[]protoreflect.Value{of("")}, []protoreflect.Value{of("Example CPU")}},
		"counter":    {[]protoreflect.Value{of(uint64(1)), of(uint64(4097))}, []protoreflect.Value{of(uint64(0)), of(uint64(1_795_000_000)), of("1")}},
		"small":      {[]protoreflect.Value{of(uint32(0)), of(uint32(3))}, []protoreflect.Value{of(uint32(1_795_000_000))}},
		"power":      {[]protoreflect.Value{of(uint32(0)), of(uint64(16 << 30)), of(4096.0)}, []protoreflect.Value{of(uint32(6)), of(3392.1), of(0.3)}},
		"power4":     {[]protoreflect.Value{of(uint64(1 << 38))}, []protoreflect.Value{of(uint64(1 << 39))}},
		"quarter":    {[]protoreflect.Value{of(uint64(12 << 30)), of(uint64(0))}, []protoreflect.Value{of(uint64(9_000_000_000))}},
		"quarters":   {[]protoreflect.Value{of(0.75)}, []protoreflect.Value{of(0.37), of(1.25)}},
		"sixteenths": {[]protoreflect.Value{of(0.3125)}, []protoreflect.Value{of(0.3)}},
		"seconds":    {[]protoreflect.Value{span(0), span(16 * time.Second)}, []protoreflect.Value{span(15 * time.Second), span(26_300_000), span(-time.Second)}},
		"minutes":    {[]protoreflect.Value{span(24 * time.Hour)}, []protoreflect.Value{span(90*time.Second + 1)}},
		"zeros":      {[]protoreflect.Value{of(uint32(7)), of(make([]byte, 9))}, []protoreflect.Value{of([]byte{0, 1}), of(-1.0), of("x")}},
		"drawn":      {[]protoreflect.Value{of(make([]byte, 16))}, []protoreflect.Value{of(make([]byte, 15)), of("0123456789abcdef")}},
		"payment":    {[]protoreflect.Value{of(make([]byte, 33))}, []protoreflect.Value{of([]byte{}), of(append([]byte{26}, make([]byte, 32)...))}},
		"padded":     {[]protoreflect.Value{of(uint64(0)), of(uint64(1024)), of(uint64(1536)), of(uint64(4352))}, []protoreflect.Value{of(uint64(6)), of(uint64(1088)), of(uint64(4353))}},
	} {
		for _, v := range c.good {
			if !classes[class](v) {
				t.Errorf("%s refuses %v", class, v)
			}
		}
		for _, v := range c.bad {
			if classes[class](v) {
				t.Errorf("%s lets %s through", class, fmt.Sprint(v))
			}
		}
	}
}
