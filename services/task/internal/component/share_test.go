package component_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/crypt"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func (r *repository) fetched() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gets
}

// shared is content that several tasks use.
func shared(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b)
	return b
}

func withInput(st step, name string, data, stdin []byte) *taskv1.TaskSpec {
	blob := func(b []byte) *taskv1.Blob { return &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: b}} }
	return scriptSpec(st, &taskv1.InputFile{Path: "stdin", Content: blob(stdin)}, &taskv1.InputFile{Path: name, Content: blob(data)})
}

// TestSharedPartTravelsOnce: however many tasks have it, also side by side, and after both sides have restarted.
func TestSharedPartTravelsOnce(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 2)), n.addConsumer(nil)
	data := shared(300_000)
	var ids []string
	for _, in := range []string{"a", "b", "c", "d", "e"} {
		ids = append(ids, c.submit(withInput(step{Name: in, Show: true}, "input:data", data, []byte(in)), p))
	}
	for i, id := range ids {
		c.await(id, "COMPLETED")
		if got := c.result(id, ""); got != string(rune('a'+i))+string(data) {
			t.Fatalf("task %d read %d bytes that are not what it was given", i, len(got))
		}
	}
	// One fetch of the content; the results, which are large, were fetched by the consumer.
	if got := n.repo.fetched() - len(ids); got != 1 {
		t.Fatalf("the shared part was fetched %d times", got)
	}
	before := n.repo.fetched()
	c.restart()
	p.restart()
	task := c.await(c.submit(withInput(step{Name: "again"}, "input:data", data, nil), p), "COMPLETED")
	if got := n.repo.fetched(); got != before || c.result(task.GetId(), "") != "2 parts, 300000 bytes" {
		t.Fatalf("after a restart it was fetched %d times", got-before)
	}
}

// TestStdinThatComesAgainTravelsOnceMore: it goes with its first task, once more as content of its own with the second, and then no more.
func TestStdinThatComesAgainTravelsOnceMore(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 2)), n.addConsumer(nil)
	data := shared(300_000)
	for i, want := range []int{1, 2, 2, 2} {
		id := c.submit(withInput(step{Name: strconv.Itoa(i), Show: true}, "input:small", []byte("!"), data), p)
		c.await(id, "COMPLETED")
		if got := c.result(id, ""); got != string(data)+"!" {
			t.Fatalf("task %d read %d bytes that are not what it was given", i, len(got))
		}
		if got := n.repo.fetched() - i - 1; got != want { // the results, which are large, were fetched by the consumer
			t.Fatalf("after task %d its stdin was fetched %d times, want %d", i, got, want)
		}
	}
}

// TestTornPartIsFetchedAgain: what a crash or a disk has done to a kept part harms no task.
func TestTornPartIsFetchedAgain(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	data := shared(100_000)
	c.await(c.submit(withInput(step{Name: "1"}, "module", data, nil), p), "COMPLETED")
	p.stop()
	kept, err := filepath.Glob(filepath.Join(p.dir, "parts", strings.Repeat("?", 64)))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept: %v, %v", kept, err)
	}
	if err := os.Chmod(kept[0], 0o600); err != nil {
		t.Fatal(err)
	}
	torn := append(bytes.Clone(data[:50_000]), make([]byte, 50_000)...)
	if err := os.WriteFile(kept[0], torn, 0o400); err != nil {
		t.Fatal(err)
	}
	p.start()
	id := c.submit(withInput(step{Name: "2", Show: true}, "module", data, nil), p)
	c.await(id, "COMPLETED")
	if got := c.result(id, ""); got != string(data) {
		t.Fatal("a program got bytes that nobody had sent")
	}
}

// TestLostShareIsMadeAgain: a repository that has lost what was shared costs a task, not all that follow.
func TestLostShareIsMadeAgain(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	other := n.addProvider(withScript(s, 1))
	data := shared(100_000)
	c.await(c.submit(withInput(step{Name: "1"}, "module", data, nil), p), "COMPLETED")
	n.repo.mu.Lock()
	clear(n.repo.content)
	n.repo.mu.Unlock()
	c.restart() // it looks again at what it has when it first uses it
	id := c.submit(withInput(step{Name: "2", Show: true}, "module", data, nil), other)
	c.await(id, "COMPLETED")
	if got := c.result(id, ""); got != string(data) {
		t.Fatal("the program got something else")
	}
}

// TestHashIsNotEnough: a stranger who knows the hash of what a provider keeps for another gets a task that fails, not the bytes.
func TestHashIsNotEnough(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p := n.addProvider(withScript(s, 1))
	owner, thief := n.addConsumer(nil), n.addNode("consumer")
	data := shared(100_000)
	owner.await(owner.submit(withInput(step{Name: "1"}, "input:secret", data, nil), p), "COMPLETED")

	n.repo.mu.Lock()
	var cid string // of the ciphertext: bitswap shows that to peers
	for p := range n.repo.pins {
		if len(n.repo.content[p.CID]) > 100_000 {
			cid = p.CID
		}
	}
	size := int64(len(n.repo.content[cid]))
	n.repo.mu.Unlock()
	if cid == "" {
		t.Fatal("the shared part is not in the repository")
	}
	before := s.ran("theft")
	ev := thief.forge(t, p, domain.Part{Name: "input:secret", Size: 100_000, SHA256: sha256.Sum256(data),
		Ref: &domain.Reference{CID: cid, Key: make([]byte, 16), Size: size}}, size, `{"Name":"theft","Show":true}`)
	heard := make(chan *eventv1.Event, 16)
	n.setRoute(func(_, to string, e *eventv1.Event) action {
		if to == thief.peer {
			heard <- e
			return lose
		}
		return pass
	})
	if _, err := p.deliver(thief.peer, ev); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-heard:
			switch e.GetType() {
			case eventv1.EventType_EVENT_TYPE_TASK_FAILURE:
				if s.ran("theft") != before {
					t.Fatal("the program ran")
				}
				return
			case eventv1.EventType_EVENT_TYPE_TASK_RESULT:
				t.Fatal("the thief has a result")
			}
		case <-time.After(time.Minute):
			t.Fatal("nothing was heard of the task")
		}
	}
}

// forge makes a signed submission with one part that refers to content.
func (nd *node) forge(t *testing.T, to *node, part domain.Part, refSize int64, options string) *eventv1.Event {
	t.Helper()
	c := crypt.NewCipher()
	id := app.NewID()
	header := wire.Codec{}.EncodePayloadHeader(&app.PayloadHeader{TaskID: id, Type: "script", Options: []byte(options), Parts: []domain.Part{part}})
	var out bytes.Buffer
	w, key, err := c.EncryptPayload(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.WriteHeader(w, header); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	sealed, _, err := c.SealKey(key, to.sealing, "")
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := crypt.NewKeys(0).Take()
	if err != nil {
		t.Fatal(err)
	}
	sub := &domain.Submission{TaskID: id, Attempt: 1, Type: "script", Recipient: recipient.Recipient(), PayloadHash: sha256.Sum256(out.Bytes()),
		PayloadSize: int64(out.Len()), RefSize: refSize, Keep: time.Hour}
	ev := &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, Payload: wire.Codec{}.Encode(sub),
		Attachment: wire.Codec{}.EncodeSealed(sealed, out.Bytes())}
	nd.sign(ev)
	return ev
}

// TestPayloadThatRefersToMoreThanItSays is refused before anything is fetched.
func TestPayloadThatRefersToMoreThanItSays(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, liar := n.addProvider(withScript(s, 1)), n.addNode("consumer")
	heard := make(chan *eventv1.Event, 16)
	n.setRoute(func(_, to string, e *eventv1.Event) action {
		if to == liar.peer {
			heard <- e
			return lose
		}
		return pass
	})
	part := domain.Part{Name: "input:x", Size: 10, SHA256: sha256.Sum256(nil), Ref: &domain.Reference{CID: "bafkreia", Key: make([]byte, 16), Size: 1 << 40}}
	for _, said := range []int64{0, 1000} {
		ev := liar.forge(t, p, part, said, `{"Name":"lie"}`)
		if _, err := p.deliver(liar.peer, ev); err != nil {
			t.Fatal(err)
		}
		for failed := false; !failed; {
			select {
			case e := <-heard:
				failed = e.GetType() == eventv1.EventType_EVENT_TYPE_TASK_FAILURE
			case <-time.After(time.Minute):
				t.Fatal("nothing was heard of the task")
			}
		}
	}
	if got := n.repo.fetched(); got != 0 || s.ran("lie") != 0 {
		t.Fatalf("%d fetches, %d runs", got, s.ran("lie"))
	}
}

// TestFailedTaskKeepsNothing: a payload that was content is let go with the last attempt, too.
func TestFailedTaskKeepsNothing(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	spec := scriptSpec(step{Name: "dies", Die: 99}, &taskv1.InputFile{Path: "stdin", Content: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: shared(200_000)}}})
	spec.Placement = &taskv1.PlacementPolicy{MaxAttempts: 1}
	task := c.await(c.submit(spec, p), "FAILED")
	if task.GetError().GetReason() != "ATTEMPTS_EXHAUSTED" {
		t.Fatalf("the task ended as %v", task.GetError())
	}
	until(t, "the payload is let go", func() bool { return n.repo.pinned() == 0 })
}
