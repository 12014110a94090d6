package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// Repository is content in memory; a CID is "bafk" and a hash.
type Repository struct {
	brokerv1.UnimplementedRepositoryServiceServer
	mu   sync.Mutex
	From []string // that the last Get named
	data map[string][]byte
	pins map[string]string // cid to owner
}

// NewRepository makes an empty one.
func NewRepository() *Repository {
	return &Repository{data: map[string][]byte{}, pins: map[string]string{}}
}

// Register serves it.
func (r *Repository) Register(s grpc.ServiceRegistrar) {
	brokerv1.RegisterRepositoryServiceServer(s, r)
}

// Len is how many files there are.
func (r *Repository) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.data)
}

// Put is of the contract.
func (r *Repository) Put(in grpc.ClientStreamingServer[brokerv1.PutRequest, brokerv1.PutResponse]) error {
	m, err := in.Recv()
	if err != nil {
		return err
	}
	if m.GetOptions() == nil {
		return fault.InvalidArgument("OPTIONS_MISSING", "the first request must be the options")
	}
	owner := m.GetOptions().GetPin().GetOwner()
	var b []byte
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		b = append(b, m.GetData()...)
	}
	sum := sha256.Sum256(b)
	cid := "bafk" + hex.EncodeToString(sum[:])
	r.mu.Lock()
	r.data[cid] = b
	if owner != "" {
		r.pins[cid] = owner
	}
	r.mu.Unlock()
	return in.SendAndClose(&brokerv1.PutResponse{Cid: cid, Size: uint64(len(b))})
}

func (r *Repository) find(cid string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.data[cid]
	if !ok {
		return nil, fault.NotFound("CONTENT_NOT_FOUND", "nobody has it")
	}
	return b, nil
}

// Get is of the contract.
func (r *Repository) Get(q *brokerv1.GetRequest, out grpc.ServerStreamingServer[brokerv1.GetResponse]) error {
	r.mu.Lock()
	r.From = q.GetFromPeers()
	r.mu.Unlock()
	b, err := r.find(q.GetCid())
	if err != nil {
		return err
	}
	if err := out.Send(&brokerv1.GetResponse{Response: &brokerv1.GetResponse_Size{Size: uint64(len(b))}}); err != nil {
		return err
	}
	b = b[min(q.GetOffset(), uint64(len(b))):]
	for len(b) > 0 {
		n := min(len(b), 64<<10)
		if err := out.Send(&brokerv1.GetResponse{Response: &brokerv1.GetResponse_Data{Data: b[:n]}}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Stat is of the contract.
func (r *Repository) Stat(_ context.Context, q *brokerv1.StatRequest) (*brokerv1.StatResponse, error) {
	b, err := r.find(q.GetCid())
	if err != nil {
		return nil, err
	}
	return &brokerv1.StatResponse{Cid: q.GetCid(), Kind: "raw", Size: uint64(len(b)), Local: true}, nil
}

// Pin is of the contract.
func (r *Repository) Pin(_ context.Context, q *brokerv1.PinRequest) (*brokerv1.PinResponse, error) {
	b, err := r.find(q.GetCid())
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pins[q.GetCid()] = q.GetPin().GetOwner()
	return &brokerv1.PinResponse{Size: uint64(len(b))}, nil
}

// Unpin is of the contract.
func (r *Repository) Unpin(_ context.Context, q *brokerv1.UnpinRequest) (*brokerv1.UnpinResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range q.GetCids() {
		if r.pins[c] == q.GetOwner() {
			delete(r.pins, c)
		}
	}
	for _, p := range q.GetPins() {
		if r.pins[p.GetCid()] == p.GetOwner() {
			delete(r.pins, p.GetCid())
		}
	}
	return &brokerv1.UnpinResponse{}, nil
}

// ListPins is of the contract, without pages.
func (r *Repository) ListPins(_ context.Context, q *brokerv1.ListPinsRequest) (*brokerv1.ListPinsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &brokerv1.ListPinsResponse{}
	for c, owner := range r.pins {
		if q.GetOwner() == "" || owner == q.GetOwner() {
			out.Pins = append(out.Pins, &brokerv1.Pin{Cid: c, Owner: owner})
		}
	}
	return out, nil
}

// Collect is of the contract: what nobody pins goes.
func (r *Repository) Collect(context.Context, *brokerv1.CollectRequest) (*brokerv1.CollectResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &brokerv1.CollectResponse{}
	for c, b := range r.data {
		if _, ok := r.pins[c]; ok {
			out.Used += uint64(len(b))
			continue
		}
		out.Blocks, out.Bytes = out.Blocks+1, out.Bytes+uint64(len(b))
		delete(r.data, c)
	}
	return out, nil
}

// Damage makes a file's bytes others.
func (r *Repository) Damage(cid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data[cid] = []byte("others")
}

// Verify is of the contract; what is damaged is never repaired.
func (r *Repository) Verify(_ *brokerv1.VerifyRequest, out grpc.ServerStreamingServer[brokerv1.VerifyResponse]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &brokerv1.VerifyProgress{Done: true}
	for c, b := range r.data {
		p.Blocks++
		sum := sha256.Sum256(b)
		if "bafk"+hex.EncodeToString(sum[:]) == c {
			continue
		}
		p.Bad++
		f := &brokerv1.VerifyFinding{Cid: c, Problem: "damaged"}
		if err := out.Send(&brokerv1.VerifyResponse{Response: &brokerv1.VerifyResponse_Finding{Finding: f}}); err != nil {
			return err
		}
	}
	return out.Send(&brokerv1.VerifyResponse{Response: &brokerv1.VerifyResponse_Progress{Progress: p}})
}
