package record

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// fill sets every field to something that is not zero, and no two alike.
func fill(t testing.TB, v reflect.Value, n *int) {
	t.Helper()
	*n++
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(*n), 123_456_789).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") == "-" { // is not stored
				continue
			}
			fill(t, v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, key, n)
			fill(t, value, n)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString("text " + time.Duration(*n).String())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(-int64(*n)) // what is negative comes back as well
	case reflect.Uint8:
		v.SetUint(uint64(*n%255 + 1))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n) << 20)
	default:
		t.Fatalf("a %s is stored, and this test does not know how", v.Type())
	}
}

// A field that a table has forgotten comes back zero.
func TestRecordsKeepEveryField(t *testing.T) {
	t.Parallel()
	n := 0
	var full domain.Task
	var entry domain.Entry
	fill(t, reflect.ValueOf(&full).Elem(), &n)
	fill(t, reflect.ValueOf(&entry).Elem(), &n)
	zero := int32(0)
	for _, want := range []*domain.Task{{}, {ExitCode: &zero, Receipt: &domain.Receipt{}, Error: &domain.Failure{}, Result: &domain.Result{}, Policy: domain.Policy{Only: []string{"", "a"}},
		Labels: map[string]string{"": ""}}, &full} {
		old, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		for what, b := range map[string][]byte{"record": AppendTask(want), "old record": old} {
			if got, err := ReadTask(b); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v\n got %+v\nwant %+v", what, err, got, want)
			}
		}
	}
	for _, want := range []*domain.Entry{{}, {Outcome: &domain.Outcome{}}, &entry} {
		old, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		for what, b := range map[string][]byte{"record": AppendEntry(want), "old record": old} {
			if got, err := ReadEntry(b); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v\n got %+v\nwant %+v", what, err, got, want)
			}
		}
	}
}

func TestRecordsSkipFieldsOfLaterVersions(t *testing.T) {
	t.Parallel()
	want := &domain.Task{ID: "id", Revision: 7}
	b := AppendTask(want)
	b = append(b, 0xfa, 0x7f, 3, 'n', 'e', 'w')                      // field 2047, bytes
	b = append(b, 0xf1, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8, 0xf8, 0x7f, 9) // field 2046, fixed; 2047, a number
	if got, err := ReadTask(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, torn := range [][]byte{b[:len(b)-1], {0x0a}, {0x0a, 5, 'x'}, {0x08, 1}, {'{'}, {0x42, 1, 1}} {
		if got, err := ReadTask(torn); err == nil {
			t.Errorf("% x is read as %+v", torn, got)
		}
	}
}

// Files may be torn: whatever is in a row, reading it ends, and what was read can be written again.
func FuzzRecords(f *testing.F) {
	n := 0
	var task domain.Task
	var entry domain.Entry
	fill(f, reflect.ValueOf(&task).Elem(), &n)
	fill(f, reflect.ValueOf(&entry).Elem(), &n)
	f.Add(AppendTask(&task))
	f.Add(AppendEntry(&entry))
	f.Add([]byte(`{"id":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := ReadTask(b); err == nil {
			if _, err := ReadTask(AppendTask(v)); err != nil {
				t.Fatal(err)
			}
		}
		if v, err := ReadEntry(b); err == nil {
			if _, err := ReadEntry(AppendEntry(v)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	now := time.Now()
	t := domain.NewTask(domain.Task{ID: "0123456789abcdef0123456789abcdef", RequestID: "0123456789abcdef0123456789abcdef", Type: "wasm", Clocks: domain.DefaultClocks}, now)
	if err := t.Place(now, domain.Attempt{Peer: "12D3KooWGRYmVLUTGsjSZVtMQ5hyLpFEnbSJZfkYmBk2ZRMVNrVx"}, "the only one that is known"); err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = AppendTask(t)
		}
	})
	b.Run("write-json-floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = json.Marshal(t)
		}
	})
	record := AppendTask(t)
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = ReadTask(record)
		}
	})
}
