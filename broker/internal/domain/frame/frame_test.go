package frame_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/broker/internal/domain/frame"
)

func TestRoundTrip(t *testing.T) {
	id := event.ID{1, 2, 3}
	var wire []byte
	wire = frame.AppendEvent(wire, []byte("envelope"))
	wire = frame.AppendAck(wire, id, event.Outcome{Status: event.Rejected, Detail: "BAD_LIMITS"})
	wire = frame.AppendEvent(wire, bytes.Repeat([]byte{7}, event.MaxSize))
	wire = append(wire, 0, 0, 0, 3, 99, 1, 2) // a kind of the future
	wire = frame.AppendAck(wire, id, event.Outcome{Detail: "not for others"})
	r := frame.NewReader(iotest.HalfReader(bytes.NewReader(wire)), 64)
	expect := func(want frame.Kind, size int) []byte {
		t.Helper()
		kind, body, err := r.Next()
		if err != nil || kind != want || len(body) != size {
			t.Fatalf("got kind %d, %d bytes, %v; want kind %d, %d bytes", kind, len(body), err, want, size)
		}
		return body
	}
	if b := expect(frame.KindEvent, 8); string(b) != "envelope" {
		t.Errorf("got %q", b)
	}
	gotID, o, err := frame.ParseAck(expect(frame.KindAck, 27))
	if err != nil || gotID != id || o.Status != event.Rejected || o.Detail != "BAD_LIMITS" {
		t.Errorf("got %v %v %v", gotID, o, err)
	}
	expect(frame.KindEvent, event.MaxSize)
	expect(99, 2)
	if _, o, err := frame.ParseAck(expect(frame.KindAck, 17+len("UNSPECIFIED"))); err != nil || o.Detail != "UNSPECIFIED" {
		t.Errorf("got %v %v", o, err)
	}
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestMalformed(t *testing.T) {
	big := binary.BigEndian.AppendUint32(nil, frame.MaxBody+2)
	for name, wire := range map[string][]byte{"zero length": {0, 0, 0, 0, 1}, "too long": append(big, 1), "text": []byte("GET / HTTP/1.1\r\n\r\n")} {
		if _, _, err := frame.NewReader(bytes.NewReader(wire), 64).Next(); !errors.Is(err, frame.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, wire := range map[string][]byte{"half a header": {0, 0}, "half a body": {0, 0, 0, 9, 1, 2}} {
		if _, _, err := frame.NewReader(bytes.NewReader(wire), 64).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, body := range map[string][]byte{"empty": {}, "short": make([]byte, 16), "long": make([]byte, 17+65), "detail": append(make([]byte, 17), "no spaces"...)} {
		if _, _, err := frame.ParseAck(body); !errors.Is(err, frame.ErrMalformed) {
			t.Errorf("ack, %s: %v", name, err)
		}
	}
}

// A body that is late is announced, so that its reader can set a deadline; one that is there already costs nothing.
func TestBegun(t *testing.T) {
	wire := frame.AppendEvent(nil, []byte(strings.Repeat("x", 40)))
	for _, late := range []bool{false, true} {
		var in io.Reader = bytes.NewReader(wire)
		if late {
			in = io.MultiReader(bytes.NewReader(wire[:10]), bytes.NewReader(wire[10:]))
		}
		begun, ended := 0, 0
		r := frame.NewReader(in, 64)
		r.Begun, r.Ended = func() { begun++ }, func() { ended++ }
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		want := 0
		if late {
			want = 1
		}
		if begun != want || ended != want {
			t.Errorf("late %v: begun %d times, ended %d", late, begun, ended)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(frame.AppendEvent(nil, []byte("envelope")))
	f.Add(frame.AppendAck(nil, event.ID{1}, event.Outcome{Status: event.Invalid, Detail: "BAD_ID"}))
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := frame.NewReader(bytes.NewReader(wire), 32)
		total := 0
		for {
			kind, body, err := r.Next()
			if err != nil {
				return
			}
			total += 5 + len(body)
			if total > len(wire) || len(body) > frame.MaxBody {
				t.Fatalf("%d bytes made of %d", total, len(wire))
			}
			if kind != frame.KindAck {
				continue
			}
			if id, o, err := frame.ParseAck(body); err == nil {
				if again := frame.AppendAck(nil, id, o); !bytes.Equal(again[5:], body) {
					t.Fatalf("an acknowledgement changed: %x to %x", body, again[5:])
				}
			}
		}
	})
}

// TestPadded: a padded frame is what it was, whatever its size; and Size tells what it cost.
func TestPadded(t *testing.T) {
	id := event.ID{1, 2, 3}
	for _, size := range []int{0, 1, 900, 1010, 5000, event.MaxSize, frame.MaxBody} {
		envelope := bytes.Repeat([]byte{7}, size)
		wire := frame.AppendEvent(nil, []byte("before"))
		start := len(wire)
		wire = frame.AppendEvent(wire, envelope)
		total := max(1<<10, len(wire)-start+frame.PadOverhead+size/10)
		wire = frame.Pad(wire, start, total)
		if len(wire)-start != total {
			t.Fatalf("%d bytes became %d, want %d", size, len(wire)-start, total)
		}
		wire = frame.AppendAck(wire, id, event.Outcome{Status: event.Rejected, Detail: "BAD_LIMITS"})
		start = len(wire)
		wire = frame.Pad(frame.AppendAck(wire, id, event.Outcome{}), start, 1<<10)
		r := frame.NewReader(iotest.HalfReader(bytes.NewReader(wire)), 64)
		for i, want := range []struct {
			kind       frame.Kind
			body, size int
		}{{frame.KindEvent, 6, 6}, {frame.KindEvent, size, total - frame.Overhead}, {frame.KindAck, 27, 27}, {frame.KindAck, 17, 1<<10 - frame.Overhead}} {
			kind, body, err := r.Next()
			if err != nil || kind != want.kind || len(body) != want.body || r.Size() != want.size {
				t.Fatalf("frame %d: kind %d, %d bytes of %d, %v; want %+v", i, kind, len(body), r.Size(), err, want)
			}
			if i == 1 && !bytes.Equal(body, envelope) {
				t.Fatal("the envelope is another")
			}
		}
	}
}

func TestPaddingThatLies(t *testing.T) {
	good := func() []byte { return frame.Pad(frame.AppendEvent(nil, []byte("envelope")), 0, 1<<10) }
	change := func(f func(b []byte) []byte) []byte { return f(good()) }
	huge := binary.BigEndian.AppendUint32(nil, frame.MaxBody/8*9+6)
	for name, wire := range map[string][]byte{
		"a body longer than its frame": change(func(b []byte) []byte { binary.BigEndian.PutUint32(b[5:], 1<<10); return b }),
		"a body of 4 GiB":              change(func(b []byte) []byte { binary.BigEndian.PutUint32(b[5:], 1<<32-1); return b }),
		"no room for a length":         {0, 0, 0, 4, 0x81, 0, 0, 0},
		"something in the padding":     change(func(b []byte) []byte { b[len(b)-1] = 1; return b }),
		"far too much of it":           frame.Pad(frame.AppendEvent(nil, []byte("envelope")), 0, 100<<10),
		"a frame beyond all":           append(huge, 0x81, 0, 0, 0, 0),
		"an event beyond all":          frame.Pad(frame.AppendEvent(nil, make([]byte, frame.MaxBody+1)), 0, frame.MaxBody+100),
	} {
		if _, _, err := frame.NewReader(bytes.NewReader(wire), 64).Next(); !errors.Is(err, frame.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := frame.NewReader(bytes.NewReader(good()), 64).Next(); err != nil {
		t.Fatal(err)
	}
}
