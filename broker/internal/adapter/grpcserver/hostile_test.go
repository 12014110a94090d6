package grpcserver_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/broker/internal/adapter/libp2p"
	"github.com/shallot-net/shallot/broker/internal/adapter/metrics"
	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/broker/internal/domain/frame"
	"github.com/shallot-net/shallot/broker/internal/testbroker"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// hostile is a peer that speaks libp2p properly and nothing else.
type hostile struct {
	t    *testing.T
	host app.Host
	to   *testbroker.Broker
}

func newHostile(t *testing.T, to *testbroker.Broker) *hostile {
	t.Helper()
	network, err := libp2p.NewNetwork(libp2p.Config{})
	if err != nil {
		t.Fatal(err)
	}
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed)
	h := &hostile{t: t, to: to}
	h.host, err = network.Open("", seed, app.Handlers{
		Stream:   func(_ string, s app.Stream) { _ = s.Reset() },
		Validate: func(string, string, []byte) (app.Verdict, *event.Event) { return app.VerdictIgnore, nil },
		Gossip:   func(string, string, *event.Event) {},
		Lost:     func(string, string) {},
		Changed:  func(string, bool) {},
		Reached:  func(string, []string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.host.Close() })
	if _, err := h.host.Connect(t.Context(), app.Target{Addresses: to.Addrs}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hostile) stream() app.Stream {
	h.t.Helper()
	s, err := h.host.OpenStream(h.t.Context(), h.to.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = s.SetReadDeadline(time.Now().Add(testbroker.Patience))
	return s
}

// write sends bytes and returns the next acknowledgement.
func (h *hostile) write(s app.Stream, b []byte) (event.Outcome, error) {
	if _, err := s.Write(b); err != nil {
		return event.Outcome{}, err
	}
	_, body, err := frame.NewReader(s, 1024).Next()
	if err != nil {
		return event.Outcome{}, err
	}
	_, o, err := frame.ParseAck(body)
	return o, err
}

func encode(t *testing.T, e *eventv1.Event) []byte {
	t.Helper()
	b, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return frame.AppendEvent(nil, b)
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	to := testbroker.Start(t, testbroker.Options{})
	h := newHostile(t, to)
	for i, wire := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: there\r\n\r\n"),
		frame.AppendEvent(nil, []byte("no protobuf at all")),
		{0xff, 0xff, 0xff, 0xff, 1},
		encode(t, &eventv1.Event{Id: "nothing that could be answered", Type: log}),
	} {
		s := h.stream()
		if _, err := h.write(s, wire); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("garbage %d: the stream was not reset: %v", i, err)
		}
		_ = s.Reset()
	}
	testbroker.Eventually(t, "it is counted", func() bool {
		return to.Metric(metrics.StreamResets, "garbage") == 4 && to.Metric(metrics.Offences, "garbage") == 4
	})
	if !h.host.Connected(to.ID) {
		t.Fatal("four mistakes are no attack")
	}
	// The fifth is one too many.
	_, _ = h.write(h.stream(), []byte{0, 0, 0, 0, 0})
	testbroker.Eventually(t, "the connection is closed", func() bool { return !h.host.Connected(to.ID) })
	if to.Metric(metrics.Offences, "cut_off") != 1 {
		t.Error("it is not counted")
	}
	if s, err := h.host.OpenStream(t.Context(), to.ID); err == nil {
		_ = s.SetReadDeadline(time.Now().Add(testbroker.Patience))
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Error("it may come back at once")
		}
	}
}

func TestForeignEvents(t *testing.T) {
	t.Parallel()
	to := testbroker.Start(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log, eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION))
	for name, c := range map[string]struct {
		change func(*eventv1.Event)
		want   event.Outcome
	}{
		"unsigned":    {func(e *eventv1.Event) { e.Type = eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION }, event.Outcome{Status: event.Invalid, Detail: "UNSIGNED"}},
		"forged":      {func(e *eventv1.Event) { e.Author, e.Signature = to.ID, make([]byte, 64) }, event.Outcome{Status: event.Invalid, Detail: "BAD_SIGNATURE"}},
		"oversized":   {func(e *eventv1.Event) { e.Attachment = make([]byte, event.MaxSize) }, event.Outcome{Status: event.Invalid, Detail: "OVERSIZED"}},
		"bad payload": {func(e *eventv1.Event) { e.Payload = []byte{0xff} }, event.Outcome{Status: event.Invalid, Detail: "BAD_PAYLOAD"}},
		"of later on": {func(e *eventv1.Event) { e.Type = 4711 }, event.Outcome{Status: event.Acknowledged}},
		"RSA for once": {func(e *eventv1.Event) {
			e.Author, e.Signature = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", make([]byte, 64)
		}, event.Outcome{Status: event.Invalid, Detail: "BAD_AUTHOR"}},
	} {
		h := newHostile(t, to)
		e := testbroker.Event(t, log)
		c.change(e)
		got, err := h.write(h.stream(), encode(t, e))
		if err != nil || got != c.want {
			t.Errorf("%s: got %v %v, want %v", name, got, err, c.want)
		}
	}
	if len(m.C) > 0 {
		t.Errorf("one of them was delivered: %v", <-m.C)
	}
	for offence, want := range map[string]float64{"forged": 3, "malformed": 2, "unknown_type": 1} {
		if got := to.Metric(metrics.Offences, offence); got != want {
			t.Errorf("%v offences %s are counted, want %v", got, offence, want)
		}
	}
}

// A peer that sends an event again without having lost anything is answered, and charged when it does so without end.
func TestRepeats(t *testing.T) {
	t.Parallel()
	to := testbroker.Start(t, testbroker.Options{Config: func(c *app.Config) { c.Limits.InEvents = 4 }})
	m := to.Subscribe(testbroker.Open("node", log))
	h := newHostile(t, to)
	s := h.stream()
	wire := encode(t, testbroker.Event(t, log))
	go func() { m.Ack(m.Next(), ok, "") }()
	for range 10 {
		if o, err := h.write(s, wire); err != nil || o.Status != event.Acknowledged {
			t.Fatalf("got %v %v", o, err)
		}
	}
	if len(m.C) > 0 {
		t.Error("it was delivered again")
	}
	if got := to.Metric(metrics.Offences, "repeated"); got != 5 {
		t.Errorf("%v repeats are held against it, want 5", got)
	}
}

// What services have no use for is held against its sender, unless it sends more that is of use.
func TestUselessEvents(t *testing.T) {
	t.Parallel()
	to := testbroker.Start(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	h := newHostile(t, to)
	s := h.stream()
	send := func(n int, v brokerv1.Verdict) {
		t.Helper()
		for range n {
			go func() { m.Ack(m.Next(), v, "") }()
			if o, err := h.write(s, encode(t, testbroker.Event(t, log))); err != nil || o.Status != event.Acknowledged {
				t.Fatalf("got %v %v", o, err)
			}
		}
	}
	send(10, ok)
	send(10, brokerv1.Verdict_VERDICT_IGNORED)
	if got := to.Metric(metrics.Offences, "useless"); got > 1 {
		t.Errorf("%v are held against a peer of which half is of use", got)
	}
	send(10, brokerv1.Verdict_VERDICT_IGNORED)
	testbroker.Eventually(t, "they are held against it", func() bool { return to.Metric(metrics.Offences, "useless") >= 10 })
}

// A frame that was begun and not ended costs its stream, also when not even its length is there; one that goes on so is cut off.
func TestStalls(t *testing.T) {
	t.Parallel()
	to := testbroker.Start(t, testbroker.Options{Config: func(c *app.Config) { c.Limits.Patience = 100 * time.Millisecond }})
	h := newHostile(t, to)
	for _, begun := range [][]byte{{0, 0}, {0, 0, 1, 0, 1, 'x'}} {
		s := h.stream()
		if _, err := h.write(s, begun); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("after %x the stream goes on: %v", begun, err)
		}
	}
	testbroker.Eventually(t, "it is counted", func() bool {
		return to.Metric(metrics.StreamResets, "stalled") == 2 && to.Metric(metrics.Offences, "stalled") == 2
	})
	_, _ = h.write(h.stream(), []byte{0})
	testbroker.Eventually(t, "it is cut off", func() bool { return !h.host.Connected(to.ID) })
}

// A peer that never reads its acknowledgements costs it its stream, and nobody else anything.
func TestPeerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	to := testbroker.Start(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	go func() {
		for d := range m.C {
			m.Ack(d, ok, "")
		}
	}()
	h := newHostile(t, to)
	s := h.stream()
	wire := encode(t, testbroker.Event(t, log))
	var batch []byte
	for range 500 {
		batch = append(batch, wire...)
	}
	written := make(chan error, 1)
	go func() {
		for range 200 {
			if _, err := s.Write(batch); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	from := testbroker.Start(t, testbroker.Options{})
	from.Connect(to)
	sender := from.Sender()
	for range 50 {
		wantReason(t, testbroker.Answer(t, sender.Go(to.ID, testbroker.Event(t, log), false, 0)), "")
	}
	select {
	case err := <-written:
		if err == nil {
			t.Error("it may go on for ever")
		}
	case <-time.After(testbroker.Patience):
		t.Error("its stream is still open")
	}
}

// A second stream takes the first one's place, and one peer cannot have many.
func TestStreamsOfOnePeer(t *testing.T) {
	t.Parallel()
	to := testbroker.Start(t, testbroker.Options{})
	m := to.Subscribe(testbroker.Open("node", log))
	h := newHostile(t, to)
	first := h.stream()
	if _, err := first.Write(encode(t, testbroker.Event(t, log))); err != nil {
		t.Fatal(err)
	}
	d := m.Next()
	second := h.stream()
	e := testbroker.Event(t, log)
	if _, err := second.Write(encode(t, e)); err != nil {
		t.Fatal(err)
	}
	later := m.Next()
	if later.GetEvent().GetId() != e.GetId() {
		t.Error("got another event")
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the first stream is still open: %v", err)
	}
	m.Ack(later, ok, "")
	m.Ack(d, ok, "") // the answer to what came on the first goes to the second
	r := frame.NewReader(second, 1024)
	for range 2 {
		if _, body, err := r.Next(); err != nil {
			t.Fatal(err)
		} else if _, o, err := frame.ParseAck(body); err != nil || o.Status != event.Acknowledged {
			t.Errorf("got %v %v", o, err)
		}
	}
	var open []app.Stream
	refused := false
	for range 64 {
		s, err := h.host.OpenStream(t.Context(), to.ID)
		if err != nil {
			refused = true
			break
		}
		open = append(open, s)
		if _, err := s.Write([]byte{0, 0}); err != nil {
			refused = true
			break
		}
	}
	testbroker.Eventually(t, "one stream is left", func() bool { return refused || to.Metric(metrics.Streams, "in") <= 1 })
	for _, s := range open {
		_ = s.Reset()
	}
}

func TestForeignGossip(t *testing.T) {
	t.Parallel()
	to := testbroker.Start(t, testbroker.Options{})
	open := testbroker.Open("metric")
	open.Topics = []string{"metrics"}
	m := to.Subscribe(open)
	author := testbroker.Start(t, testbroker.Options{})
	sign := func(e *eventv1.Event) {
		r, err := author.Events.Sign(t.Context(), &brokerv1.SignRequest{Event: e})
		if err != nil {
			t.Fatal(err)
		}
		proto.Reset(e)
		proto.Merge(e, r.GetEvent())
	}
	for name, c := range map[string]struct {
		change  func(*eventv1.Event)
		offence string
	}{
		"unsigned": {func(*eventv1.Event) {}, "forged"},
		"forged": {func(e *eventv1.Event) {
			e.Author, e.Signature = to.ID, make([]byte, 64)
			e.Id = event.GossipID(e.Signature)
		}, "forged"},
		"another id":  {sign, "malformed"},
		"attached":    {func(e *eventv1.Event) { sign(e); e.Id, e.Attachment = event.GossipID(e.Signature), []byte{1} }, "malformed"},
		"wrong topic": {func(e *eventv1.Event) { e.Type = log }, "malformed"},
		"oversized":   {func(e *eventv1.Event) { e.Attachment = make([]byte, event.MaxGossipSize) }, "malformed"},
		"of later on": {func(e *eventv1.Event) { e.Type = 4711 }, "unknown_type"},
		"no event":    {nil, "malformed"},
		"strange id":  {func(e *eventv1.Event) { e.Id = "x" }, "malformed"},
	} {
		h := newHostile(t, to)
		before := to.Metric(metrics.Offences, c.offence)
		// Gossip flows once both know of the other's topics: until then every try is another message.
		testbroker.Eventually(t, name+" is held against the peer", func() bool {
			data := []byte(rand.Text())
			if c.change != nil {
				e := testbroker.EventOf(t, metricType, &eventv1.MetricAvailable{InReplyTo: rand.Text()})
				c.change(e)
				var err error
				if data, err = proto.Marshal(e); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.host.Publish(t.Context(), "metrics", data); err != nil {
				t.Fatal(err)
			}
			return to.Metric(metrics.Offences, c.offence) > before
		})
		_ = h.host.Close()
	}
	if len(m.C) > 0 {
		t.Errorf("one of them was delivered: %v", <-m.C)
	}
}
