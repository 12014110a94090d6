package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// fake is a broker's repository in memory.
type fake struct {
	brokerv1.UnimplementedRepositoryServiceServer
	mu      sync.Mutex
	content map[string][]byte
	owner   string
	keep    time.Duration
	persona string
	readers []string
	whole   bool // the last Put came to its end
	lie     uint64
}

func (f *fake) PutMany(s grpc.BidiStreamingServer[brokerv1.PutManyRequest, brokerv1.PutManyResponse]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		f.mu.Lock()
		f.persona, f.readers = m.GetPersona(), m.GetPin().GetReaders()
		f.mu.Unlock()
		r := &brokerv1.PutManyResponse{Seq: m.GetSeq(), Cid: app.SmallCID(sha256.Sum256(m.GetData()))}
		if len(m.GetData()) == 0 {
			r.Cid, r.Fault = "", &eventv1.Fault{Code: 8, Reason: "QUOTA", Message: "full"}
		}
		if err := s.Send(r); err != nil {
			return err
		}
	}
}

func (f *fake) Put(s grpc.ClientStreamingServer[brokerv1.PutRequest, brokerv1.PutResponse]) error {
	var b []byte
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		f.mu.Lock()
		if o := m.GetOptions(); o != nil {
			f.owner, f.keep, f.readers, f.persona = o.GetPin().GetOwner(), o.GetPin().GetKeep().AsDuration(), o.GetPin().GetReaders(), o.GetPersona()
		}
		f.mu.Unlock()
		b = append(b, m.GetData()...)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.content["cid"], f.whole = b, true
	return s.SendAndClose(&brokerv1.PutResponse{Cid: "cid", Size: uint64(len(b))})
}

func (f *fake) Get(r *brokerv1.GetRequest, s grpc.ServerStreamingServer[brokerv1.GetResponse]) error {
	f.mu.Lock()
	b, ok := f.content[r.GetCid()]
	lie := f.lie
	f.mu.Unlock()
	if !ok {
		return fault.NotFound("CONTENT_NOT_FOUND", "no such content")
	}
	if err := s.Send(&brokerv1.GetResponse{Response: &brokerv1.GetResponse_Size{Size: uint64(len(b)) - lie}}); err != nil {
		return err
	}
	for len(b) > 0 {
		n := min(len(b), 100_000)
		if err := s.Send(&brokerv1.GetResponse{Response: &brokerv1.GetResponse_Data{Data: b[:n]}}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func start(t *testing.T) (*fake, *Repository) {
	f := &fake{content: make(map[string][]byte)}
	cc := grpctest.Start(t, func(s *rpc.Server) { brokerv1.RegisterRepositoryServiceServer(s, f) })
	r := NewRepository(cc, Stall, func(bool) {})
	t.Cleanup(r.Close)
	return f, r
}

func TestSmallContentHasItsCID(t *testing.T) {
	t.Parallel()
	f, r := start(t)
	cid, err := r.PutSmall(context.Background(), "p", []byte("hello"), app.Pin{Owner: "task:1", Readers: []string{"a"}})
	if err != nil || cid != "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq" {
		t.Fatalf("%s, %v", cid, err)
	}
	if f.persona != "p" || !slices.Equal(f.readers, []string{"a"}) {
		t.Fatalf("for %v of %q", f.readers, f.persona)
	}
	if _, err := r.PutSmall(context.Background(), "p", nil, app.Pin{}); fault.From(err).Reason != "QUOTA" {
		t.Fatalf("a fault: %v", err)
	}
}

func TestLargeContentStreams(t *testing.T) {
	t.Parallel()
	f, r := start(t)
	want := bytes.Repeat([]byte("x1"), 700_000)
	cid, err := r.Put(context.Background(), "p", bytes.NewReader(want), app.Pin{Owner: "task:1", Keep: time.Hour, Readers: []string{"a", "b"}})
	if err != nil || f.owner != "task:1" || f.keep != time.Hour || f.persona != "p" || !slices.Equal(f.readers, []string{"a", "b"}) {
		t.Fatalf("%v, %s, %s, %s, %v", err, f.owner, f.keep, f.persona, f.readers)
	}
	get, err := r.Get(context.Background(), "", cid, nil, int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	defer get.Close()
	if got, err := io.ReadAll(get); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := r.Get(context.Background(), "", cid, nil, 10); fault.From(err).Reason != "CONTENT_TOO_LARGE" {
		t.Fatalf("more than was announced: %v", err)
	}
	f.mu.Lock()
	f.lie = 1000
	f.mu.Unlock()
	short, err := r.Get(context.Background(), "", cid, nil, int64(len(want))-1000)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if _, err := io.ReadAll(short); fault.From(err).Reason != "CONTENT_TOO_LARGE" {
		t.Fatalf("more than the broker said: %v", err)
	}
	if _, err := r.Get(context.Background(), "", "nothing", nil, 10); fault.From(err).Reason != "CONTENT_NOT_FOUND" {
		t.Fatalf("nothing: %v", err)
	}
}

func TestPutThatBreaksOffIsNotKept(t *testing.T) {
	t.Parallel()
	f, r := start(t)
	bad := errors.New("the source broke")
	_, err := r.Put(context.Background(), "", io.MultiReader(bytes.NewReader(make([]byte, 600_000)), broken{bad}), app.Pin{})
	f.mu.Lock()
	defer f.mu.Unlock()
	if !errors.Is(err, bad) || f.whole {
		t.Fatalf("%v, whole: %v", err, f.whole)
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func (f *fake) Stat(_ context.Context, r *brokerv1.StatRequest) (*brokerv1.StatResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.content[r.GetCid()]; !ok {
		return nil, fault.NotFound("CONTENT_NOT_FOUND", "nobody has it")
	}
	return &brokerv1.StatResponse{Local: r.GetCid() != "elsewhere"}, nil
}

func (f *fake) Pin(_ context.Context, r *brokerv1.PinRequest) (*brokerv1.PinResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owner, f.keep, f.readers, f.persona = r.GetPin().GetOwner(), r.GetPin().GetKeep().AsDuration(), r.GetPin().GetReaders(), r.GetPersona()
	return &brokerv1.PinResponse{}, nil
}

func TestRenewKeepsWhatIsHere(t *testing.T) {
	t.Parallel()
	f := &fake{content: map[string][]byte{"here": nil, "elsewhere": nil}}
	r := NewRepository(grpctest.Start(t, func(s *rpc.Server) { brokerv1.RegisterRepositoryServiceServer(s, f) }), Stall, func(bool) {})
	defer r.Close()
	if err := r.Renew(t.Context(), "p", "here", app.Pin{Owner: "o", Keep: time.Hour, Readers: []string{"a"}}); err != nil || f.owner != "o" || f.keep != time.Hour || f.persona != "p" ||
		!slices.Equal(f.readers, []string{"a"}) {
		t.Fatalf("pinned for %q, %s, %q, %v: %v", f.owner, f.keep, f.persona, f.readers, err)
	}
	for _, cid := range []string{"elsewhere", "nowhere"} {
		if err := r.Renew(t.Context(), "", cid, app.Pin{Owner: "o"}); !errors.Is(err, app.ErrNotFound) {
			t.Fatalf("%s: %v", cid, err)
		}
	}
}

func (f *fake) ListPins(_ context.Context, r *brokerv1.ListPinsRequest) (*brokerv1.ListPinsResponse, error) {
	out := &brokerv1.ListPinsResponse{}
	switch r.GetPageToken() {
	case "": // a page may have none of the kind
		out.NextPageToken = "2"
	case "2":
		out.Pins, out.NextPageToken = []*brokerv1.Pin{{Cid: "a", Owner: r.GetOwner() + "1"}, {Cid: "b", Owner: r.GetOwner() + "2"}}, "3"
	case "3":
		out.Pins = []*brokerv1.Pin{{Cid: "c", Owner: r.GetOwner() + "3"}}
	}
	return out, nil
}

func TestPinnedListsAllPages(t *testing.T) {
	_, r := start(t)
	for most, want := range map[int]string{10: "[{a task:1} {b task:2} {c task:3}]", 1: "[{a task:1}]"} {
		got, err := r.Pinned(t.Context(), "task:", most)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("at most %d: %v, %v", most, got, err)
		}
	}
}
