package render

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func TestProtoShowsEveryFieldWithNumbersAsNumbers(t *testing.T) {
	task := &taskv1.Task{
		Id: "a", Type: "wasm", State: "COMPLETED", Attempts: 2, ExitCode: proto.Int32(0), Revision: 1 << 60,
		CreatedAt: timestamppb.New(time.Unix(1700000000, 500000000)),
		Limits:    &eventv1.Limits{Time: durationpb.New(1500 * time.Millisecond), Memory: 64 << 20},
		Labels:    map[string]string{"b": "<&>", "a": "1"},
		Result:    &taskv1.ResultInfo{StdoutSize: 5},
	}
	data, err := Proto(task).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	for key, want := range map[string]any{
		"id": "a", "attempts": json.Number("2"), "exit_code": json.Number("0"), "error": nil, "provider": "", "revision": json.Number("1152921504606846976"),
		"created_at": "2023-11-14T22:13:20.5Z", "started_at": nil,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %#v (there: %v), want %#v", key, v, ok, want)
		}
	}
	if h, ok := got["history"].([]any); !ok || len(h) != 0 {
		t.Errorf("history is %#v, want an empty list", got["history"])
	}
	limits := got["limits"].(map[string]any)
	if limits["time"] != "1.5s" || limits["memory"] != json.Number("67108864") {
		t.Errorf("limits are %v", limits)
	}
	if !strings.Contains(string(data), `"<&>"`) {
		t.Errorf("text was escaped as if it were for HTML: %s", data)
	}
	if !strings.HasPrefix(string(data), `{"id":"a","type":"wasm","state":"COMPLETED"`) {
		t.Errorf("the fields are not in the proto's order: %.80s", data)
	}
}

func TestProtoOmitsWhatWasNotChosen(t *testing.T) {
	data, err := Proto(&taskv1.Blob{Source: &taskv1.Blob_UploadId{UploadId: "u"}}).MarshalJSON()
	if err != nil || string(data) != `{"upload_id":"u"}` {
		t.Errorf("got %s, %v", data, err)
	}
	if got := Protos[*taskv1.Task](nil); got == nil || len(got) != 0 {
		t.Errorf("an empty list is %#v, which is null in JSON", got)
	}
}

func TestObjectFields(t *testing.T) {
	o := Object{{"a", 1}, {"b", 2}}
	data, _ := o.With("c", Object{{"x", nil}}).With("a", 5).Without("b").MarshalJSON()
	if string(data) != `{"a":5,"c":{"x":null}}` {
		t.Errorf("got %s", data)
	}
	if o[0].Value != 1 {
		t.Error("With changed the object it was called on")
	}
}

func TestTableIsAlignedWithAndWithoutColour(t *testing.T) {
	rows := [][]Cell{{{"abc", Plain}, {"COMPLETED", Good}, {"x", Plain}}, {{"a", Plain}, {"", Plain}, {"\x1b[31mevil\nname\u202e", Plain}}}
	var plainOut, colourOut bytes.Buffer
	if err := (Printer{W: &plainOut}).Table([]string{"id", "state", "name"}, rows); err != nil {
		t.Fatal(err)
	}
	want := "ID   STATE      NAME\nabc  COMPLETED  x\na    -          \uFFFD[31mevil name\uFFFD\n"
	if plainOut.String() != want {
		t.Errorf("got\n%q, want\n%q", plainOut.String(), want)
	}
	if err := (Printer{W: &colourOut, Colour: true}).Table([]string{"id", "state", "name"}, rows); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(colourOut.String(), "\x1b[32mCOMPLETED\x1b[0m  x") {
		t.Errorf("colours broke the alignment: %q", colourOut.String())
	}
}

func TestHumanUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1234 * time.Nanosecond: "1µs", 5430 * time.Microsecond: "5.4ms", 1534 * time.Millisecond: "1.53s",
		310 * time.Second: "5m10s", 2 * time.Hour: "2h", 76 * time.Hour: "3d4h", -1: "0s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%d) = %q, want %q", d, got, want)
		}
	}
	now := time.Unix(1700000000, 0)
	for then, want := range map[time.Time]string{{}: "-", now: "now", now.Add(-42 * time.Second): "42s ago", now.Add(-2 * time.Hour): "2h ago", now.Add(time.Hour): "now"} {
		if got := Age(now, then); got != want {
			t.Errorf("Age(%v) = %q, want %q", then, got, want)
		}
	}
	if Bytes(64<<20) != "64 MiB" || ShortID("0123456789abcdef") != "0123456789ab" || ShortPeer("12D3KooWabcdefghijkl") != "…efghijkl" {
		t.Error("sizes or short ids changed")
	}
}
