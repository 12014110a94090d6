package component_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/padding"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/crypt"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// submitted and resulted decode what a node was sent.
func (nd *node) submitted() (out []*eventv1.TaskSubmission) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	for _, ev := range nd.seen {
		var m eventv1.TaskSubmission
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION && proto.Unmarshal(ev.GetPayload(), &m) == nil {
			out = append(out, &m)
		}
	}
	return out
}

func (nd *node) resulted() (out []*eventv1.TaskResult) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	for _, ev := range nd.seen {
		var m eventv1.TaskResult
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_RESULT && proto.Unmarshal(ev.GetPayload(), &m) == nil {
			out = append(out, &m)
		}
	}
	return out
}

// TestSizesOfAnAnonymousNode: what travels has few lengths, whatever is in it, also about the limit of what goes inline; and it comes out as it went in.
func TestSizesOfAnAnonymousNode(t *testing.T) {
	t.Parallel()
	n, s := anonymousNetwork(t), newScript()
	p, c := n.addProvider(anonymously(withScript(s, 4))), n.addConsumer(anonymousConsumer)
	sizes := []int{0, 1, 50, 300, 1_000, 5_000, 5_100, 20_000, 59_000, 60_000, 61_000, 62_000, 63_000, 63_500, 64_000, 64_500, 65_000, 65_536, 66_000, 70_000, 70_100, 200_000}
	for _, size := range sizes {
		data := strings.Repeat("x", size)
		id := c.submit(withInput(step{Name: "a", Show: true}, "input:small", nil, []byte(data)), p)
		c.await(id, "COMPLETED")
		if got := c.result(id, ""); got != data {
			t.Fatalf("%d bytes came back of %d", len(got), size)
		}
	}
	payloads, results := map[uint64]int{}, map[uint64]int{}
	for _, m := range p.submitted() {
		payloads[m.GetPayloadSize()]++
		if m.GetPayloadCid() == "" && m.GetPayloadSize() > app.SmallLimit {
			t.Errorf("a payload of %d bytes travels inline", m.GetPayloadSize())
		}
	}
	for _, m := range c.resulted() {
		results[m.GetResultSize()]++
	}
	// Of 22: those up to a kibibyte are one, and of the others those that are near each other. 5,000 and 5,100; 59,000 and 60,000 and 61,000; 62,000 to 65,000; 65,536 and 66,000; 70,000 and 70,100.
	if len(payloads) > 14 || len(results) > 14 {
		t.Errorf("%d sizes have %d of payloads and %d of results: %v, %v", len(sizes), len(payloads), len(results), payloads, results)
	}
	for _, m := range c.resulted() {
		if u := m.GetUsage(); u.GetOutput() != 0 && padding.Size(int64(u.GetOutput())) != int64(u.GetOutput()) || u.GetWall().GetNanos() != 0 {
			t.Errorf("a receipt says %v", u)
		}
	}
}

// TestPaddedPartsAreShared: content of its own is padded, found again after a restart of both sides, and read by a provider in either mode.
func TestPaddedPartsAreShared(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"anonymous", "open"} {
		n, s := anonymousNetwork(t), newScript()
		with := withScript(s, 2)
		if mode == "anonymous" {
			with = anonymously(with)
		}
		p, c := n.addProvider(with), n.addConsumer(anonymousConsumer)
		data := shared(100_000)
		for i := range 3 {
			id := c.submit(withInput(step{Name: "a", Show: true}, "module", data, nil), p)
			c.await(id, "COMPLETED")
			if got := c.result(id, ""); got != string(data) {
				t.Fatalf("%s: %d bytes came back", mode, len(got))
			}
			if i == 1 {
				c.restart()
				p.restart()
			}
		}
		for _, m := range p.submitted() {
			if least := uint64(padding.Size(int64(len(data)))); m.GetReferenceSize() < least || m.GetReferenceSize() > least+1<<10 {
				t.Errorf("%s: a part of %d bytes travels as %d", mode, len(data), m.GetReferenceSize())
			}
		}
	}
}

// pad makes a result of a provider's, with something else in the place of its padding.
func (nd *node) pad(ev *eventv1.Event, recipient string, said int64, is []byte) {
	var m eventv1.TaskResult
	if err := proto.Unmarshal(ev.GetPayload(), &m); err != nil {
		nd.t.Error(err)
	}
	body := []byte("42\n")
	header := wire.Codec{}.EncodeResultHeader(&app.ResultHeader{TaskID: m.GetTaskId(), Padding: said,
		Parts: []domain.Part{{Name: "stdout", Size: int64(len(body)), SHA256: sha256.Sum256(body)}, {Name: "stderr", SHA256: sha256.Sum256(nil)}}})
	var out bytes.Buffer
	w, err := crypt.NewCipher().EncryptResult(recipient, nil, &out)
	if err == nil {
		_, err = w.Write(bytes.Join([][]byte{binary.BigEndian.AppendUint32(nil, uint32(len(header))), header, body, is}, nil))
	}
	if err != nil || w.Close() != nil {
		nd.t.Errorf("encrypt a result: %v", err)
	}
	ev.Attachment = out.Bytes()
	sum := sha256.Sum256(ev.Attachment)
	m.ResultHash, m.ResultSize = sum[:], uint64(len(ev.Attachment))
	ev.Payload, _ = proto.Marshal(&m)
	nd.sign(ev)
}

// TestPaddingThatLies: a result whose padding is not what its header says is no result, and another provider is asked.
func TestPaddingThatLies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		said int64
		is   []byte
		ok   bool
	}{
		"true":           {500, make([]byte, 500), true},
		"too short":      {500, make([]byte, 499), false},
		"absent":         {500, nil, false},
		"too long":       {500, make([]byte, 501), false},
		"not told of":    {0, make([]byte, 1), false},
		"not of zeros":   {500, append(make([]byte, 499), 1), false},
		"more than any":  {5000, make([]byte, 5000), false},
		"beyond all":     {1 << 62, nil, false},
		"less than none": {-1, nil, false},
	} {
		n := newNetwork(t)
		bad, good, user := n.addProvider(nil), n.addProvider(nil), n.addConsumer(func(c *consumer.Config) { c.Anonymous, c.Redirect = true, true }) // so that the submission names a recipient
		user.useProviders(bad, good)
		var lies atomic.Int32
		n.setRoute(func(from, _ string, ev *eventv1.Event) action {
			if from == bad.peer && ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_RESULT {
				bad.pad(ev, bad.submitted()[0].GetResultRecipient(), c.said, c.is)
				lies.Add(1)
			}
			return pass
		})
		task := user.await(user.submit(sumSpec("20", "22"), bad), "COMPLETED")
		want := good
		if c.ok {
			want = bad
		}
		if lies.Load() == 0 || task.GetProvider() != want.peer || user.result(task.GetId(), "") != "42\n" {
			t.Errorf("%s: the task is %v: %v", name, task, details(task))
		}
	}
}
