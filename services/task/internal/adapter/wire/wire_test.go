package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/signature"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

const (
	id   = "0123456789abcdef0123456789abcdef"
	peer = "12D3KooWabcdefgh"
)

var usage = domain.Usage{Wall: time.Second, CPU: 2 * time.Second, PeakMemory: 3, Output: 4}

// bodies has one of each event that this service reads.
func bodies() []domain.Body {
	hash := domain.Hash{1, 2, 3}
	limits := domain.Limits{Time: time.Minute, Memory: 1 << 20, Output: 5}
	signed := domain.Event{ID: id, Type: domain.TypeSubmission, Payload: []byte{1}, Author: peer, Signature: bytes.Repeat([]byte{2}, signature.MaxSize)}
	announced := signed
	announced.Type = domain.TypeAnnouncement
	requested := signed
	requested.Type = domain.TypeReplicaRequest
	return []domain.Body{
		&domain.Submission{TaskID: id, Attempt: 1, Type: "wasm", Limits: limits, Recipient: "age1pq", PayloadHash: hash, PayloadSize: 7, PayloadCID: "bafk", Redirect: true, Keep: time.Hour},
		&domain.ForceSubmission{Submission: signed, Path: []string{peer}},
		&domain.AcceptedEvent{TaskID: id, Attempt: 1, QueuePosition: 3, Replicas: []string{peer}},
		&domain.RedirectedEvent{TaskID: id, Attempt: 1, Announcement: announced, Reason: "busy"},
		&domain.Announcement{PeerID: peer, SealingKey: "age1pq", Addresses: []string{"/memory/1"}},
		&domain.RefusedEvent{TaskID: id, Attempt: 1, Reason: "QUEUE_FULL", Message: "later", RetryAfter: time.Second},
		&domain.RefusedEvent{TaskID: id, Attempt: 1, Reason: "PUZZLE_REQUIRED", Puzzle: &domain.Puzzle{Nonce: domain.Nonce{1, 2}, Effort: 64}},
		&domain.Submission{TaskID: id, Attempt: 1, Type: "sum", Recipient: "age1pq", PayloadHash: hash, Paid: domain.Payment{Effort: 64, Nonce: domain.Nonce{3}}.Bytes()},
		&domain.ProgressEvent{Tasks: []domain.ProgressEntry{{TaskID: id, Attempt: 2, State: domain.Running, QueuePosition: 1},
			{TaskID: id, Attempt: 3, State: domain.Running, Progress: &domain.Progress{Fraction: 0.5, Text: "half"}}}},
		&domain.LogEvent{TaskID: id, Attempt: 1, Offset: 9, Data: []byte("x")},
		&domain.ResultEvent{TaskID: id, Attempt: 1, Type: "sum", ProgramHash: hash, PayloadHash: hash, ResultHash: hash, ResultSize: 8, ResultCID: "bafk", ExitCode: -3, Limits: limits, Usage: usage},
		&domain.FailureEvent{TaskID: id, Attempt: 1, Type: "sum", Cause: domain.CauseLimit, Reason: "TIME_LIMIT", Message: "m", Usage: usage, PayloadHash: hash},
		&domain.FailureEvent{TaskID: id, Attempt: 1, Type: "sum", Cause: domain.CauseProvider, Reason: "DIED", ResultHash: hash, ResultSize: 1, PayloadHash: hash},
		&domain.CancelEvent{TaskID: id, Attempt: 0},
		&domain.QueryEvent{Tasks: []domain.Ref{{TaskID: id, Attempt: 1}}},
		&domain.CollectedEvent{Tasks: []domain.Ref{{TaskID: id, Attempt: 1}, {TaskID: id, Attempt: 2}}},
		&domain.StatusEvent{TaskID: id, Attempt: 1, State: domain.Accepted},
		&domain.StatusEvent{TaskID: id, Attempt: 1},
		&domain.Submission{TaskID: id, Attempt: 1, Type: "wasm", Recipient: "age1pq", PayloadHash: hash, Copies: 2, Named: []string{peer, peer + "2"}},
		&domain.ReplicaRequestEvent{TaskID: id, Attempt: 1, Submission: signed, Keep: time.Hour,
			Result: &domain.ResultEvent{TaskID: id, Attempt: 1, Type: "sum", ProgramHash: hash, PayloadHash: hash, ResultHash: hash, ResultSize: 8, ResultCID: "bafk", Usage: usage}},
		&domain.ReplicaRequestEvent{TaskID: id, Attempt: 1, Submission: signed, Keep: time.Hour,
			Failure: &domain.FailureEvent{TaskID: id, Attempt: 1, Type: "sum", Cause: domain.CauseProgram, Reason: "TRAP", PayloadHash: hash}},
		&domain.ReplicaAnswerEvent{TaskID: id, Attempt: 1, Consumer: peer, Kept: true},
		&domain.ReplicaAnswerEvent{TaskID: id, Attempt: 1, Consumer: peer, Reason: "REPLICA_QUOTA"},
		&domain.ReplicasEvent{TaskID: id, Attempt: 1, Replicas: []domain.Replica{{Peer: peer, State: domain.ReplicaKept}, {Peer: peer + "2", State: domain.ReplicaRefused, Reason: "PEER_QUOTA"},
			{Peer: peer + "3", State: domain.ReplicaSilent}}},
		&domain.ReplicaResultEvent{TaskID: id, Attempt: 1, Request: requested},
	}
}

func TestEventsComeBack(t *testing.T) {
	for _, b := range bodies() {
		got, err := Codec{}.Decode(b.EventType(), Codec{}.Encode(b))
		if err != nil {
			t.Errorf("%T: %v", b, err)
			continue
		}
		if !reflect.DeepEqual(got, b) {
			t.Errorf("got  %+v\nwant %+v", got, b)
		}
	}
}

// What a later version says in fields of its own is passed over: the rest means what it did.
func TestFieldsOfALaterVersionArePassedOver(t *testing.T) {
	t.Parallel()
	// Field 1000 with text, 1001 with a number, and 1002 with a message that has one.
	later := protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), []byte("of tomorrow"))
	later = protowire.AppendVarint(protowire.AppendTag(later, 1001, protowire.VarintType), 7)
	later = protowire.AppendBytes(protowire.AppendTag(later, 1002, protowire.BytesType), later)
	for _, want := range bodies() {
		var c Codec
		got, err := c.Decode(want.EventType(), append(c.Encode(want), later...))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%T is %+v, %v", want, got, err)
		}
	}
}

func TestBadEventsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		typ  domain.EventType
		m    proto.Message
		want string
	}{
		"no id":            {domain.TypeAccepted, &eventv1.TaskAccepted{Attempt: 1}, "task_id"},
		"upper case id":    {domain.TypeAccepted, &eventv1.TaskAccepted{TaskId: strings.ToUpper(id), Attempt: 1}, "task_id"},
		"attempt 0":        {domain.TypeAccepted, &eventv1.TaskAccepted{TaskId: id}, "attempt"},
		"huge attempt":     {domain.TypeAccepted, &eventv1.TaskAccepted{TaskId: id, Attempt: 1 << 31}, "attempt"},
		"short hash":       {domain.TypeSubmission, &eventv1.TaskSubmission{TaskId: id, Attempt: 1, Type: "t", ResultRecipient: "r", PayloadHash: []byte{1}}, "payload_hash"},
		"huge size":        {domain.TypeSubmission, &eventv1.TaskSubmission{TaskId: id, Attempt: 1, Type: "t", ResultRecipient: "r", PayloadHash: make([]byte, 32), PayloadSize: 1 << 63}, "payload_size"},
		"long type":        {domain.TypeSubmission, &eventv1.TaskSubmission{TaskId: id, Attempt: 1, Type: strings.Repeat("t", 65), ResultRecipient: "r", PayloadHash: make([]byte, 32)}, "type"},
		"no type":          {domain.TypeSubmission, &eventv1.TaskSubmission{TaskId: id, Attempt: 1, ResultRecipient: "r", PayloadHash: make([]byte, 32)}, "type"},
		"handed on, open":  {domain.TypeSubmission, &eventv1.TaskSubmission{TaskId: id, Attempt: 1, Type: "t", PayloadHash: make([]byte, 32), Redirect: true}, "result_recipient"},
		"huge memory":      {domain.TypeSubmission, &eventv1.TaskSubmission{TaskId: id, Attempt: 1, Type: "t", ResultRecipient: "r", PayloadHash: make([]byte, 32), Limits: &eventv1.Limits{Memory: 1 << 63}}, "limits.memory"},
		"unsigned":         {domain.TypeForceSubmission, &eventv1.TaskForceSubmission{Submission: &eventv1.Event{Type: 30}, Path: []string{peer}}, "signed"},
		"no path":          {domain.TypeForceSubmission, &eventv1.TaskForceSubmission{Submission: &eventv1.Event{Type: 30, Author: peer}}, "path"},
		"long path":        {domain.TypeForceSubmission, &eventv1.TaskForceSubmission{Submission: &eventv1.Event{Type: 30, Author: peer}, Path: []string{peer, peer, peer, peer, peer}}, "path"},
		"no announcement":  {domain.TypeRedirected, &eventv1.TaskRedirected{TaskId: id, Attempt: 1}, "announcement"},
		"many addresses":   {domain.TypeAnnouncement, &eventv1.Announcement{PeerId: peer, Addresses: make([]string, 17)}, "addresses"},
		"a path as a peer": {domain.TypeAnnouncement, &eventv1.Announcement{PeerId: "../../../etc"}, "peer_id"},
		"reason in words":  {domain.TypeRefused, &eventv1.TaskRefused{TaskId: id, Attempt: 1, Reason: "no, thanks"}, "reason"},
		"many copies":      {domain.TypeSubmission, &eventv1.TaskSubmission{TaskId: id, Attempt: 1, Type: "t", ResultRecipient: "r", PayloadHash: make([]byte, 32), Copies: 8}, "copies"},
		"many replicas":    {domain.TypeSubmission, &eventv1.TaskSubmission{TaskId: id, Attempt: 1, Type: "t", ResultRecipient: "r", PayloadHash: make([]byte, 32), ReplicaPeers: make([]string, 17)}, "replica_peers"},
		"nobody's wish":    {domain.TypeReplicaRequest, &eventv1.TaskReplicaRequest{TaskId: id, Attempt: 1}, "submission"},
		"no outcome":       {domain.TypeReplicaRequest, &eventv1.TaskReplicaRequest{TaskId: id, Attempt: 1, Submission: &eventv1.Event{Type: 30, Author: peer}}, "neither"},
		"another's outcome": {domain.TypeReplicaRequest, &eventv1.TaskReplicaRequest{TaskId: id, Attempt: 1, Submission: &eventv1.Event{Type: 30, Author: peer},
			Outcome: &eventv1.TaskReplicaRequest_Result{Result: &eventv1.TaskResult{TaskId: id, Attempt: 2, ProgramHash: make([]byte, 32), PayloadHash: make([]byte, 32), ResultHash: make([]byte, 32)}}}, "another attempt"},
		"a heavy wish":    {domain.TypeReplicaRequest, &eventv1.TaskReplicaRequest{TaskId: id, Attempt: 1, Submission: &eventv1.Event{Type: 30, Author: peer, Attachment: []byte{1}}}, "attachment"},
		"nobody's answer": {domain.TypeReplicaAnswer, &eventv1.TaskReplicaAnswer{TaskId: id, Attempt: 1, Kept: true}, "consumer"},
		"many keepers":    {domain.TypeReplicas, &eventv1.TaskReplicas{TaskId: id, Attempt: 1, Replicas: make([]*eventv1.TaskReplica, 17)}, "replicas"},
		"a nil keeper":    {domain.TypeReplicas, &eventv1.TaskReplicas{TaskId: id, Attempt: 1, Replicas: make([]*eventv1.TaskReplica, 1)}, "peer_id"},
		"no request":      {domain.TypeReplicaResult, &eventv1.TaskReplicaResult{TaskId: id, Attempt: 1}, "request"},
		"no tasks":        {domain.TypeQuery, &eventv1.TaskQuery{}, "tasks"},
		"many tasks":      {domain.TypeCollected, &eventv1.TaskCollected{Tasks: make([]*eventv1.TaskRef, maxRefs+1)}, "tasks"},
		"a nil task":      {domain.TypeCollected, &eventv1.TaskCollected{Tasks: make([]*eventv1.TaskRef, 1)}, "attempt"},
		"no fraction":     {domain.TypeProgress, &eventv1.TaskProgress{Tasks: []*eventv1.TaskProgressEntry{{TaskId: id, Attempt: 1, Fraction: proto.Float64(math.NaN())}}}, "fraction"},
		"a long word":     {domain.TypeProgress, &eventv1.TaskProgress{Tasks: []*eventv1.TaskProgressEntry{{TaskId: id, Attempt: 1, Fraction: proto.Float64(1), Text: strings.Repeat("x", 201)}}}, "text"},
	} {
		b, err := proto.Marshal(c.m)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (Codec{}).Decode(c.typ, b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := (Codec{}).Decode(domain.TypeAccepted, []byte{0xff}); err == nil {
		t.Error("bytes that are no message")
	}
	if _, err := (Codec{}).Decode(999, nil); err == nil {
		t.Error("a type that is none")
	}
}

func TestUnknownCauseIsTheProviders(t *testing.T) {
	b := encode(&eventv1.TaskFailure{TaskId: id, Attempt: 1, Cause: 77, PayloadHash: make([]byte, 32)})
	got, err := Codec{}.Decode(domain.TypeFailure, b)
	if f, ok := got.(*domain.FailureEvent); err != nil || !ok || f.Cause != domain.CauseProvider || f.Reason == "" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestHeadersComeBack(t *testing.T) {
	parts := []domain.Part{{Name: "module", Size: 3, SHA256: domain.Hash{1}}, {Name: "input:a/b", Size: 0, SHA256: domain.Hash{2}}}
	p := &app.PayloadHeader{TaskID: id, Type: "wasm", Options: []byte("o"), Parts: append([]domain.Part{{Name: "stdin", Size: 9, SHA256: domain.Hash{3},
		Ref: &domain.Reference{CID: "bafkrei", Key: make([]byte, contentKey), Size: 300}}}, parts...)}
	if got, err := (Codec{}).DecodePayloadHeader(Codec{}.EncodePayloadHeader(p)); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v, %v", got, err)
	}
	r := &app.ResultHeader{TaskID: id, ExitCode: -1, Reason: "TRAP", Message: "m", Usage: usage, Parts: []domain.Part{{Name: "stdout", Size: 3, SHA256: domain.Hash{1}}, {Name: "stderr", SHA256: domain.Hash{2}},
		{Name: "output:a/b", SHA256: domain.Hash{3}}, {Name: "output:a/.c", SHA256: domain.Hash{4}}}}
	if got, err := (Codec{}).DecodeResultHeader(Codec{}.EncodeResultHeader(r)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	many := make([]*taskv1.PartInfo, maxParts+1)
	for i := range many {
		many[i] = &taskv1.PartInfo{Name: fmt.Sprint(i), Sha256: make([]byte, 32)}
	}
	for name, h := range map[string]*taskv1.PayloadHeader{
		"two alike":     {TaskId: id, Parts: []*taskv1.PartInfo{{Name: "a", Sha256: make([]byte, 32)}, {Name: "a", Sha256: make([]byte, 32)}}},
		"no name":       {TaskId: id, Parts: []*taskv1.PartInfo{{Sha256: make([]byte, 32)}}},
		"many":          {TaskId: id, Parts: many},
		"huge":          {TaskId: id, Parts: []*taskv1.PartInfo{{Name: "a", Size: 1 << 60, Sha256: make([]byte, 32)}}},
		"huge sum":      {TaskId: id, Parts: []*taskv1.PartInfo{{Name: "a", Size: maxSize, Sha256: make([]byte, 32)}, {Name: "b", Size: maxSize, Sha256: make([]byte, 32)}}},
		"no hash":       {TaskId: id, Parts: []*taskv1.PartInfo{{Name: "a"}}},
		"no cid":        {TaskId: id, Parts: []*taskv1.PartInfo{{Name: "a", Sha256: make([]byte, 32), Reference: &taskv1.Reference{Key: make([]byte, contentKey)}}}},
		"short key":     {TaskId: id, Parts: []*taskv1.PartInfo{{Name: "a", Sha256: make([]byte, 32), Reference: &taskv1.Reference{Cid: "b", Key: make([]byte, 15)}}}},
		"long cid":      {TaskId: id, Parts: []*taskv1.PartInfo{{Name: "a", Sha256: make([]byte, 32), Reference: &taskv1.Reference{Cid: strings.Repeat("b", maxCID+1), Key: make([]byte, contentKey)}}}},
		"a nil part":    {TaskId: id, Parts: make([]*taskv1.PartInfo, 1)},
		"part of a key": {TaskId: id, ResultKey: make([]byte, 15)},
	} {
		b, err := proto.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (Codec{}).DecodePayloadHeader(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Somebody makes files of the names in a result: no provider says where.
func TestHostileNamesOfAResult(t *testing.T) {
	for name, bodies := range map[string][]string{
		"no body of a result": {"module"}, "of an input": {"input:a"}, "empty": {"output:"}, "absolute": {"output:/etc/passwd"}, "up": {"output:../a"}, "up inside": {"output:a/../../b"},
		"itself": {"output:."}, "a slash at the end": {"output:a/"}, "two slashes": {"output:a//b"}, "a NUL": {"output:a\x00b"}, "an escape": {"output:a\x1b[2Jb"}, "a line end": {"output:a\nb"},
		"a long name": {"output:" + strings.Repeat("n", 256)}, "a long path": {"output:" + strings.Repeat("n/", 600) + "n"}, "deep": {"output:" + strings.Repeat("d/", 64) + "f"},
		"a file and a directory": {"output:a/b", "output:a"},
	} {
		h := &app.ResultHeader{TaskID: id}
		for _, b := range bodies {
			h.Parts = append(h.Parts, domain.Part{Name: b})
		}
		if got, err := (Codec{}).DecodeResultHeader(Codec{}.EncodeResultHeader(h)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestSealed(t *testing.T) {
	key, text, err := Codec{}.DecodeSealed(Codec{}.EncodeSealed([]byte("key"), []byte("text")))
	if err != nil || string(key) != "key" || string(text) != "text" {
		t.Fatal(key, text, err)
	}
	for _, b := range [][]byte{nil, {0xff}, Codec{}.EncodeSealed(nil, []byte("x")), Codec{}.EncodeSealed(make([]byte, 9000), nil)} {
		if _, _, err := (Codec{}).DecodeSealed(b); err == nil {
			t.Errorf("%d bytes are accepted", len(b))
		}
	}
}

// FuzzEvent: whatever decodes is encoded and decoded to the same again, and nothing panics.
func FuzzEvent(f *testing.F) {
	for _, b := range bodies() {
		f.Add(uint32(b.EventType()), Codec{}.Encode(b))
	}
	f.Fuzz(func(t *testing.T, typ uint32, payload []byte) {
		b, err := Codec{}.Decode(domain.EventType(typ), payload)
		if err != nil {
			return
		}
		again, err := Codec{}.Decode(b.EventType(), Codec{}.Encode(b))
		if err != nil {
			t.Fatalf("%+v does not come back: %v", b, err)
		}
		if words(again) != words(b) {
			t.Fatalf("got %+v, want %+v", again, b)
		}
	})
}

// words has all that a body says, whether what is empty is nil or not.
func words(b domain.Body) string {
	if r, ok := b.(*domain.ReplicaRequestEvent); ok {
		outer := *r
		outer.Result, outer.Failure = nil, nil
		if r.Result != nil {
			return fmt.Sprintf("%+v %+v", outer, *r.Result)
		}
		return fmt.Sprintf("%+v %+v", outer, *r.Failure)
	}
	if r, ok := b.(*domain.RefusedEvent); ok && r.Puzzle != nil {
		outer := *r
		outer.Puzzle = nil
		return fmt.Sprintf("%+v %+v", outer, *r.Puzzle)
	}
	return fmt.Sprintf("%+v", b)
}

func FuzzSealed(f *testing.F) {
	f.Add(Codec{}.EncodeSealed([]byte("key"), []byte("text")))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, text, err := Codec{}.DecodeSealed(b)
		if err != nil {
			return
		}
		k, x, err := Codec{}.DecodeSealed(Codec{}.EncodeSealed(key, text))
		if err != nil || !bytes.Equal(k, key) || !bytes.Equal(x, text) {
			t.Fatalf("%v", err)
		}
	})
}

// framed is a plaintext as it comes out of a cipher.
func framed(header []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(header))), header...)
}

func FuzzPayloadHeader(f *testing.F) {
	f.Add(framed(Codec{}.EncodePayloadHeader(&app.PayloadHeader{TaskID: id, Type: "sum", Options: []byte{1}, Parts: []domain.Part{{Name: "module", Size: 1}}})))
	f.Add(framed(Codec{}.EncodePayloadHeader(&app.PayloadHeader{TaskID: id, Type: "wasm", Parts: []domain.Part{{Name: "module", Size: 1,
		Ref: &domain.Reference{CID: "bafkrei", Key: make([]byte, contentKey), Size: 300}}}})))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := app.ReadHeader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		p, err := Codec{}.DecodePayloadHeader(h)
		if err != nil {
			return
		}
		shorter := Codec{}.EncodePayloadHeader(p)
		if len(shorter) < len(h) && p.Padding > 0 { // what is not known was left out, and less padding fits
			return
		}
		if again, err := (Codec{}).DecodePayloadHeader(shorter); err != nil || !reflect.DeepEqual(normal(again), normal(p)) {
			t.Fatalf("got %+v, %v", again, err)
		}
	})
}

// normal makes what is empty alike.
func normal(h *app.PayloadHeader) *app.PayloadHeader {
	if len(h.Options) == 0 {
		h.Options = nil
	}
	return h
}

func FuzzResultHeader(f *testing.F) {
	f.Add(framed(Codec{}.EncodeResultHeader(&app.ResultHeader{TaskID: id, Reason: "TRAP", Usage: usage, Parts: []domain.Part{{Name: "stdout", Size: 1}}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := app.ReadHeader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		r, err := Codec{}.DecodeResultHeader(h)
		if err != nil {
			return
		}
		shorter := Codec{}.EncodeResultHeader(r)
		if len(shorter) < len(h) && r.Padding > 0 {
			return
		}
		if again, err := (Codec{}).DecodeResultHeader(shorter); err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", r) {
			t.Fatalf("got %+v, %v", again, err)
		}
	})
}
