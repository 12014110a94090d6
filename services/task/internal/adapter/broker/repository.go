// Package broker is the task service's view of its broker: the repository.
package broker

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc/mux"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// Repository implements app.Repository.
type Repository struct {
	client brokerv1.RepositoryServiceClient
	small  *mux.Caller[*brokerv1.PutManyRequest, *brokerv1.PutManyResponse]
	stall  time.Duration
}

var _ app.Repository = (*Repository)(nil)

// How long a fetch may give nothing: longer than the broker takes to dial somebody and to wait for a block, which says more of why it ended.
const (
	Stall          = 30 * time.Second
	StallAnonymous = 4 * time.Minute
)

// NewRepository keeps one PutMany stream open until Close. onState hears whether there is one, and must not block. stall is the mode's.
func NewRepository(cc grpc.ClientConnInterface, stall time.Duration, onState func(up bool)) *Repository {
	r := &Repository{client: brokerv1.NewRepositoryServiceClient(cc), stall: stall}
	r.small = mux.NewCaller(
		func(ctx context.Context) (mux.Stream[*brokerv1.PutManyRequest, *brokerv1.PutManyResponse], error) {
			return r.client.PutMany(ctx)
		},
		func(m *brokerv1.PutManyRequest, seq uint64) { m.Seq = seq }, (*brokerv1.PutManyResponse).GetSeq, nil,
		mux.WithOnState(func(up bool, _ error) { onState(up) }))
	return r
}

// Close ends the stream.
func (r *Repository) Close() { r.small.Close() }

func pinOptions(p app.Pin) *brokerv1.PinOptions {
	o := &brokerv1.PinOptions{Owner: p.Owner, Readers: p.Readers}
	if p.Keep > 0 {
		o.Keep = durationpb.New(p.Keep)
	}
	return o
}

// PutSmall implements app.Repository.
func (r *Repository) PutSmall(ctx context.Context, persona string, data []byte, pin app.Pin) (string, error) {
	m, err := r.small.Call(ctx, &brokerv1.PutManyRequest{Persona: persona, Data: data, Pin: pinOptions(pin)})
	if err != nil {
		return "", err
	}
	if f := m.GetFault(); f != nil {
		return "", &fault.Error{Code: codes.Code(f.GetCode()), Reason: f.GetReason(), Message: f.GetMessage(), Meta: f.GetMeta()}
	}
	return m.GetCid(), nil
}

// chunk is how much one message carries, in bytes.
const chunk = 256 << 10

// Put implements app.Repository.
func (r *Repository) Put(ctx context.Context, persona string, src io.Reader, pin app.Pin) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.client.Put(ctx)
	if err != nil {
		return "", err
	}
	err = stream.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Options{Options: &brokerv1.PutOptions{Persona: persona, Pin: pinOptions(pin)}}})
	for err == nil {
		b := make([]byte, chunk) // its own for each message: gRPC may still read it
		n, readErr := io.ReadFull(src, b)
		if n > 0 {
			err = stream.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Data{Data: b[:n]}})
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		}
		if readErr != nil {
			return "", readErr // cancelling the stream drops what was put
		}
	}
	m, closeErr := stream.CloseAndRecv()
	if closeErr != nil { // it says more than a Send that failed
		return "", closeErr
	}
	if err != nil {
		return "", err
	}
	return m.GetCid(), nil
}

// Get implements app.Repository.
func (r *Repository) Get(ctx context.Context, persona, cid string, from []string, maxSize int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(r.stall, func() {
		cancel(fault.Unavailable("CONTENT_STALLED", "the content did not come: nothing was received for %s", r.stall))
	})
	stream, err := r.client.Get(ctx, &brokerv1.GetRequest{Persona: persona, Cid: cid, FromPeers: from, MaxSize: uint64(maxSize)})
	if err != nil {
		timer.Stop()
		cancel(nil)
		return nil, err
	}
	g := &getter{stream: stream, ctx: ctx, cancel: cancel, timer: timer, stall: r.stall, left: maxSize}
	m, err := stream.Recv() // the size
	if err != nil {
		err = g.why(err)
		_ = g.Close()
		return nil, err
	}
	if size := m.GetSize(); int64(size) > maxSize || size > 1<<60 {
		_ = g.Close()
		return nil, fault.ResourceExhausted("CONTENT_TOO_LARGE", "the content has %d bytes, and %d were announced", size, maxSize)
	}
	return g, nil
}

type getter struct {
	stream grpc.ServerStreamingClient[brokerv1.GetResponse]
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	rest   []byte
	left   int64
}

func (g *getter) why(err error) error {
	if cause := context.Cause(g.ctx); cause != nil {
		return cause
	}
	return err
}

func (g *getter) Read(b []byte) (int, error) {
	for len(g.rest) == 0 {
		g.timer.Reset(g.stall)
		m, err := g.stream.Recv()
		g.timer.Stop() // whoever reads slowly is no reason to end
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, g.why(err)
		}
		g.rest = m.GetData()
		if g.left -= int64(len(g.rest)); g.left < 0 {
			return 0, fault.ResourceExhausted("CONTENT_TOO_LARGE", "the content has more bytes than were announced")
		}
	}
	n := copy(b, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

func (g *getter) Close() error {
	g.timer.Stop()
	g.cancel(nil)
	return nil
}

// Renew implements app.Repository.
func (r *Repository) Renew(ctx context.Context, persona, cid string, pin app.Pin) error {
	m, err := r.client.Stat(ctx, &brokerv1.StatRequest{Persona: persona, Cid: cid, Local: true})
	switch {
	case err != nil && fault.From(err).Code == codes.NotFound, err == nil && !m.GetLocal():
		return app.ErrNotFound
	case err != nil:
		return err
	}
	_, err = r.client.Pin(ctx, &brokerv1.PinRequest{Persona: persona, Cid: cid, Pin: pinOptions(pin)})
	return err
}

// Unpin implements app.Repository.
func (r *Repository) Unpin(ctx context.Context, pins ...app.Pinned) error {
	req := &brokerv1.UnpinRequest{Pins: make([]*brokerv1.PinName, len(pins))}
	for i, p := range pins {
		req.Pins[i] = &brokerv1.PinName{Cid: p.CID, Owner: p.Owner}
	}
	_, err := r.client.Unpin(ctx, req)
	return err
}

// pinsPage is how many pins are asked for at once.
const pinsPage = 1000

// Pinned implements app.Repository.
func (r *Repository) Pinned(ctx context.Context, kind string, most int) ([]app.Pinned, error) {
	var out []app.Pinned
	req := &brokerv1.ListPinsRequest{Owner: kind, PageSize: pinsPage}
	for {
		m, err := r.client.ListPins(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, p := range m.GetPins() {
			if strings.HasPrefix(p.GetOwner(), kind) {
				out = append(out, app.Pinned{CID: p.GetCid(), Owner: p.GetOwner()})
			}
		}
		if req.PageToken = m.GetNextPageToken(); req.PageToken == "" || len(out) >= most {
			return out[:min(len(out), most)], nil
		}
	}
}
