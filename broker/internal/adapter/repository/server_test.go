package repository

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

func serve(t testing.TB, s *Store) brokerv1.RepositoryServiceClient {
	t.Helper()
	return brokerv1.NewRepositoryServiceClient(grpctest.Start(t, func(r *rpc.Server) { NewServer(s).Register(r) }))
}

func rpcPut(t testing.TB, c brokerv1.RepositoryServiceClient, data []byte, pin *brokerv1.PinOptions) *brokerv1.PutResponse {
	t.Helper()
	stream, err := c.Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Options{Options: &brokerv1.PutOptions{Pin: pin}}}); err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		n := min(len(data), 300<<10)
		if err := stream.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Data{Data: data[:n]}}); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func rpcGet(ctx context.Context, c brokerv1.RepositoryServiceClient, req *brokerv1.GetRequest) (size uint64, data []byte, err error) {
	stream, err := c.Get(ctx, req)
	if err != nil {
		return 0, nil, err
	}
	for first := true; ; first = false {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, data, nil
		}
		if err != nil {
			return size, data, err
		}
		if first {
			size = m.GetSize()
		}
		data = append(data, m.GetData()...)
	}
}

func TestServerRoundTrip(t *testing.T) {
	c := serve(t, newStore(t))
	data := randomBytes(7, 3<<20+5)
	resp := rpcPut(t, c, data, &brokerv1.PinOptions{Owner: "task:1", Keep: durationpb.New(time.Hour)})
	if resp.GetSize() != uint64(len(data)) {
		t.Fatalf("size %d", resp.GetSize())
	}
	for _, offset := range []uint64{0, 1, 1 << 20, 2<<20 + 3, uint64(len(data))} {
		size, got, err := rpcGet(t.Context(), c, &brokerv1.GetRequest{Cid: resp.GetCid(), Offset: offset, Local: true})
		if err != nil || size != uint64(len(data)) || string(got) != string(data[offset:]) {
			t.Fatalf("offset %d: %v, size %d, %d bytes", offset, err, size, len(got))
		}
	}
	st, err := c.Stat(t.Context(), &brokerv1.StatRequest{Cid: resp.GetCid()})
	if err != nil || st.GetKind() != "file" || st.GetSize() != uint64(len(data)) || st.GetBlocks() != 5 || !st.GetLocal() || len(st.GetPins()) != 1 {
		t.Fatalf("stat %v %v", st, err)
	}
	if _, err := c.Unpin(t.Context(), &brokerv1.UnpinRequest{Owner: "task:1", Cids: []string{resp.GetCid()}}); err != nil {
		t.Fatal(err)
	}
	pins, err := c.ListPins(t.Context(), &brokerv1.ListPinsRequest{})
	if err != nil || len(pins.GetPins()) != 0 {
		t.Fatalf("pins %v %v", pins, err)
	}
	_, _, err = rpcGet(t.Context(), c, &brokerv1.GetRequest{Cid: resp.GetCid(), MaxSize: 1000})
	if f := fault.From(err); f.Code != codes.ResourceExhausted || f.Reason != ReasonTooLarge {
		t.Fatalf("max_size: %v", err)
	}
}

func TestUnpinTakesPinsOfManyOwners(t *testing.T) {
	c := serve(t, newStore(t))
	a := rpcPut(t, c, randomBytes(1, 1000), &brokerv1.PinOptions{Owner: "task:1"}).GetCid()
	b := rpcPut(t, c, randomBytes(2, 1000), &brokerv1.PinOptions{Owner: "task:2"}).GetCid()
	u := rpcPut(t, c, randomBytes(3, 1000), &brokerv1.PinOptions{Owner: "user"}).GetCid()
	left := func(want int) {
		t.Helper()
		pins, err := c.ListPins(t.Context(), &brokerv1.ListPinsRequest{})
		if err != nil || len(pins.GetPins()) != want {
			t.Fatalf("pins %v, %v; want %d", pins, err, want)
		}
	}
	one, two := &brokerv1.PinName{Cid: a, Owner: "task:1"}, &brokerv1.PinName{Cid: b, Owner: "task:2"}
	for _, bad := range []*brokerv1.UnpinRequest{
		{Pins: []*brokerv1.PinName{one, {Cid: b}}},
		{Pins: []*brokerv1.PinName{one, {Cid: "nonsense", Owner: "task:2"}}},
		{Pins: []*brokerv1.PinName{one, nil}},
		{Pins: []*brokerv1.PinName{one}, Cids: []string{b}},
		{Pins: slices.Repeat([]*brokerv1.PinName{one}, maxUnpins), Owner: "user", Cids: []string{u}},
	} {
		if _, err := c.Unpin(t.Context(), bad); fault.From(err).Code != codes.InvalidArgument {
			t.Fatalf("%d pins, %d CIDs: %v", len(bad.GetPins()), len(bad.GetCids()), err)
		}
		left(3) // all or none
	}
	other := &brokerv1.PinName{Cid: a, Owner: "task:2"} // no such pin
	if _, err := c.Unpin(t.Context(), &brokerv1.UnpinRequest{Pins: []*brokerv1.PinName{one, two, other}}); err != nil {
		t.Fatal(err)
	}
	left(1)
	if _, err := c.Unpin(t.Context(), &brokerv1.UnpinRequest{Pins: []*brokerv1.PinName{one}, Owner: "user", Cids: []string{u}}); err != nil {
		t.Fatal(err)
	}
	left(0)
}

func TestPutManyStream(t *testing.T) {
	c := serve(t, newStore(t))
	stream, err := c.PutMany(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	go func() {
		for i := range n {
			data := randomBytes(uint64(i), 500+i)
			if i == 100 {
				data = make([]byte, 300<<10)
			}
			_ = stream.Send(&brokerv1.PutManyRequest{Seq: uint64(i + 1), Data: data, Pin: &brokerv1.PinOptions{Owner: "task:x"}})
		}
		_ = stream.CloseSend()
	}()
	cids := make(map[uint64]string)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.GetSeq() == 101 {
			if m.GetFault().GetReason() != "INVALID_ARGUMENT" {
				t.Fatalf("too large: %v", m)
			}
			continue
		}
		if m.GetFault() != nil {
			t.Fatal(m.GetFault())
		}
		cids[m.GetSeq()] = m.GetCid()
	}
	if len(cids) != n-1 {
		t.Fatalf("%d answers", len(cids))
	}
	for i := range n {
		if i == 100 {
			continue
		}
		_, got, err := rpcGet(t.Context(), c, &brokerv1.GetRequest{Cid: cids[uint64(i+1)], Local: true})
		if err != nil || string(got) != string(randomBytes(uint64(i), 500+i)) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	seen := 0
	for token := ""; ; {
		page, err := c.ListPins(t.Context(), &brokerv1.ListPinsRequest{Owner: "task:x", PageSize: 30, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		seen += len(page.GetPins())
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if seen != n-1 {
		t.Fatalf("%d pins", seen)
	}
}
