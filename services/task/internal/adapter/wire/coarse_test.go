package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/padding"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// TestCoarse: figures leave in their classes, and those that cannot be told apart any more are the same bytes.
func TestCoarse(t *testing.T) {
	t.Parallel()
	result := func(u domain.Usage) *domain.ResultEvent {
		return &domain.ResultEvent{TaskID: id, Attempt: 1, Type: "sum", Usage: u}
	}
	for _, c := range []struct{ in, want domain.Usage }{
		{domain.Usage{}, domain.Usage{}},
		{domain.Usage{Wall: 26_300_000, CPU: 4_420_000_000, PeakMemory: 31 << 20, Output: 2}, domain.Usage{Wall: time.Second, CPU: 8 * time.Second, PeakMemory: 32 << 20, Output: 512}},
		{domain.Usage{Wall: time.Second + 1, CPU: 1, PeakMemory: 1, Output: 1025}, domain.Usage{Wall: 2 * time.Second, CPU: time.Second, PeakMemory: 16 << 20, Output: 1536}},
		{domain.Usage{Wall: 1<<63 - 1, PeakMemory: 1<<63 - 1, Output: 1<<63 - 1}, domain.Usage{Wall: 1 << 32 * time.Second, PeakMemory: 1 << 62, Output: padding.Limit}},
	} {
		if got := coarseUsage(c.in); got != c.want {
			t.Errorf("%+v became %+v, want %+v", c.in, got, c.want)
		}
		want := Codec{}.Encode(result(c.want))
		if got := (Coarse{}).Encode(result(c.in)); !bytes.Equal(got, want) {
			t.Errorf("a result with %+v is not that of %+v", c.in, c.want)
		}
		if got := (Coarse{}).Encode(&domain.ReplicaRequestEvent{TaskID: id, Attempt: 1, Result: result(c.in)}); !bytes.Contains(got, want) {
			t.Errorf("a replica is told of %+v", c.in)
		}
		h := app.ResultHeader{TaskID: id, Usage: c.in}
		exact := h
		exact.Usage = c.want
		if !bytes.Equal(Coarse{}.EncodeResultHeader(&h), Codec{}.EncodeResultHeader(&exact)) || h.Usage != c.in {
			t.Errorf("a result's header has %+v", c.in)
		}
	}
	refused := &domain.RefusedEvent{TaskID: id, Attempt: 1, Reason: "QUEUE_FULL", Message: "1,024 tasks wait", RetryAfter: 1500 * time.Millisecond}
	b, err := Coarse{}.Decode(domain.TypeRefused, Coarse{}.Encode(refused))
	if got, _ := b.(*domain.RefusedEvent); err != nil || got.Message != untold || got.RetryAfter != 2*time.Second || got.Reason != "QUEUE_FULL" {
		t.Errorf("a refusal came as %+v, %v", b, err)
	}
	unknown := &domain.RefusedEvent{TaskID: id, Attempt: 1, Reason: "TYPE_UNKNOWN", Message: "it has sum and wasm"}
	if !bytes.Equal(Coarse{}.Encode(unknown), Codec{}.Encode(unknown)) {
		t.Error("what is announced anyway is not said")
	}
	if refused.Message != "1,024 tasks wait" {
		t.Error("what this node's users see was changed")
	}
	progress := &domain.ProgressEvent{Tasks: []domain.ProgressEntry{{TaskID: id, Attempt: 1, State: domain.Running, QueuePosition: 5, Progress: &domain.Progress{Fraction: 0.3333, Text: "a third"}}}}
	b, err = Coarse{}.Decode(domain.TypeProgress, Coarse{}.Encode(progress))
	if got, _ := b.(*domain.ProgressEvent); err != nil || got.Tasks[0].QueuePosition != 8 || got.Tasks[0].Progress.Fraction != 0.3125 || got.Tasks[0].Progress.Text != "a third" {
		t.Errorf("progress came as %+v, %v", b, err)
	}
	if e := progress.Tasks[0]; e.QueuePosition != 5 || e.Progress.Fraction != 0.3333 {
		t.Error("what this node's users see was changed")
	}
}

// TestCoarseIsStable: what was rounded is not rounded again, so that an event that is handed on says what its receipt said.
func TestCoarseIsStable(t *testing.T) {
	t.Parallel()
	for _, b := range bodies() {
		once := coarse(b)
		if twice := coarse(once); !reflect.DeepEqual(once, twice) {
			t.Errorf("%T: %+v became %+v", b, once, twice)
		}
	}
}

// TestPaddedHeaders: what a header says of padding has one length, and what is impossible is refused.
func TestPaddedHeaders(t *testing.T) {
	t.Parallel()
	part := domain.Part{Name: "stdout", Size: 100_000}
	for total := int64(0); total < 200_000; total += 997 {
		h := &app.PayloadHeader{TaskID: id, Type: "wasm", Options: make([]byte, total/2), Parts: []domain.Part{{Name: "stdin", Size: total - total/2}}}
		bare := int64(len(Codec{}.EncodePayloadHeader(h)))
		whole := 4 + bare + h.Parts[0].Size
		pad, padded := app.Padding(whole)
		h.Padding = pad
		b := Codec{}.EncodePayloadHeader(h)
		if got := 4 + int64(len(b)) + h.Parts[0].Size + pad; got != padded || padding.Size(padded+app.CiphertextOverhead) != padded+app.CiphertextOverhead || pad <= 0 {
			t.Fatalf("%d bytes became %d, want %d", whole, got, padded)
		}
		if got, err := (Codec{}).DecodePayloadHeader(b); err != nil || got.Padding != pad {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	for name, pad := range map[string]int64{"too much": 13_000, "beyond all": 1 << 62, "negative": -1} {
		h := &app.PayloadHeader{TaskID: id, Type: "wasm", Parts: []domain.Part{part}, Padding: pad}
		if _, err := (Codec{}).DecodePayloadHeader(Codec{}.EncodePayloadHeader(h)); err == nil || !strings.Contains(err.Error(), "padding") {
			t.Errorf("a payload, %s: %v", name, err)
		}
		r := &app.ResultHeader{TaskID: id, Parts: []domain.Part{part}, Padding: pad}
		if _, err := (Codec{}).DecodeResultHeader(Codec{}.EncodeResultHeader(r)); err == nil || !strings.Contains(err.Error(), "padding") {
			t.Errorf("a result, %s: %v", name, err)
		}
		part.Ref = &domain.Reference{CID: "bafk", Key: make([]byte, contentKey), Size: 1, Padding: pad}
		h = &app.PayloadHeader{TaskID: id, Type: "wasm", Parts: []domain.Part{part}}
		part.Ref = nil
		if _, err := (Codec{}).DecodePayloadHeader(Codec{}.EncodePayloadHeader(h)); err == nil || !strings.Contains(err.Error(), "padding") {
			t.Errorf("a reference, %s: %v", name, err)
		}
	}
}
