package repository

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/ipfs/go-cid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Server answers shallot.broker.v1.RepositoryService.
type Server struct {
	brokerv1.UnimplementedRepositoryServiceServer
	store *Store
}

// NewServer serves a store.
func NewServer(store *Store) *Server { return &Server{store: store} }

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { brokerv1.RegisterRepositoryServiceServer(r, s) }

const (
	maxData   = 1 << 20   // bytes of one message of a Put
	getData   = 256 << 10 // bytes of one message of a Get
	manyBatch = 64        // files of a PutMany that are written together
	manyBytes = 2 << 20
	maxUnpins = 10_000
	pageSize  = 100
)

func pinFor(persona string, p *brokerv1.PinOptions) PinFor {
	if p == nil {
		return PinFor{}
	}
	return PinFor{Owner: p.GetOwner(), Keep: p.GetKeep().AsDuration(), Persona: persona, Readers: p.GetReaders()}
}

// Put implements RepositoryService.
func (s *Server) Put(stream grpc.ClientStreamingServer[brokerv1.PutRequest, brokerv1.PutResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return endOfInput(err)
	}
	options := first.GetOptions()
	if options == nil {
		return fault.InvalidArgument("OPTIONS_MISSING", "the first message of a Put must be its options")
	}
	r := &putReader{stream: stream}
	put := func() (cid.Cid, uint64, error) {
		return s.store.Put(stream.Context(), r, pinFor(options.GetPersona(), options.GetPin()))
	}
	if options.GetDirectory() {
		r.directory = true
		put = func() (cid.Cid, uint64, error) {
			return s.store.PutDirectory(stream.Context(), r.next, pinFor(options.GetPersona(), options.GetPin()))
		}
	}
	c, size, err := put()
	if err != nil {
		return err
	}
	return stream.SendAndClose(&brokerv1.PutResponse{Cid: c.String(), Size: size})
}

func endOfInput(err error) error {
	if errors.Is(err, io.EOF) {
		return fault.InvalidArgument("OPTIONS_MISSING", "the stream ended before its first message, which must be the options")
	}
	return err
}

// putReader is the bytes of a Put. Only the sender's own end of the stream ends the file: a broken stream is an error, never a
// shorter file.
type putReader struct {
	stream    grpc.ClientStreamingServer[brokerv1.PutRequest, brokerv1.PutResponse]
	rest      []byte
	directory bool
	entry     *brokerv1.PutEntry // that has come, and ended the file before it
	ended     bool
}

// next is the entry that follows, or io.EOF. Files are read to their ends before.
func (r *putReader) next() (Entry, error) {
	if r.entry == nil && !r.ended {
		if _, err := r.Read(make([]byte, 1)); err == nil {
			return Entry{}, fault.InvalidArgument("INVALID_ARGUMENT", "the data of a directory's file come after its entry, and those of a directory without files never")
		} else if !errors.Is(err, io.EOF) {
			return Entry{}, err
		}
	}
	e := r.entry
	if e == nil {
		return Entry{}, io.EOF
	}
	r.entry = nil
	return Entry{Path: e.GetPath(), Directory: e.GetDirectory(), Data: r}, nil
}

func (r *putReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.entry != nil || r.ended {
			return 0, io.EOF
		}
		m, err := r.stream.Recv()
		if err != nil {
			r.ended = errors.Is(err, io.EOF)
			return 0, err
		}
		if e := m.GetEntry(); e != nil && r.directory {
			r.entry = e
			continue
		}
		data, ok := m.GetRequest().(*brokerv1.PutRequest_Data)
		if !ok {
			return 0, fault.InvalidArgument("INVALID_ARGUMENT", "every message of a Put after the first must be data, or of a directory an entry")
		}
		if len(data.Data) > maxData {
			return 0, fault.InvalidArgument("INVALID_ARGUMENT", "a message has %d bytes of data and may have %d", len(data.Data), maxData)
		}
		r.rest = data.Data
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// PutMany implements RepositoryService. Whatever has arrived while a batch was written is the next batch.
func (s *Server) PutMany(stream grpc.BidiStreamingServer[brokerv1.PutManyRequest, brokerv1.PutManyResponse]) error {
	incoming := make(chan *brokerv1.PutManyRequest, manyBatch)
	ended := make(chan error, 1)
	go func() {
		defer close(incoming)
		for {
			m, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case incoming <- m:
			case <-stream.Context().Done():
				ended <- stream.Context().Err()
				return
			}
		}
	}()
	for {
		batch, open := gather(incoming)
		if err := s.putBatch(stream, batch); err != nil {
			return err
		}
		if !open {
			if err := <-ended; !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
	}
}

// gather waits for one request and takes what else is there.
func gather(incoming <-chan *brokerv1.PutManyRequest) (batch []*brokerv1.PutManyRequest, open bool) {
	m, open := <-incoming
	if !open {
		return nil, false
	}
	batch = append(batch, m)
	for size := len(m.GetData()); len(batch) < manyBatch && size < manyBytes; size += len(m.GetData()) {
		select {
		case m, open = <-incoming:
			if !open {
				return batch, false
			}
			batch = append(batch, m)
		default:
			return batch, true
		}
	}
	return batch, true
}

func (s *Server) putBatch(stream grpc.BidiStreamingServer[brokerv1.PutManyRequest, brokerv1.PutManyResponse], batch []*brokerv1.PutManyRequest) error {
	files := make([]Small, 0, len(batch))
	var good []*brokerv1.PutManyRequest
	for _, m := range batch {
		f := Small{Data: m.GetData(), Pin: pinFor(m.GetPersona(), m.GetPin())}
		if err := s.store.check(f); err != nil { // it fails alone
			if err := stream.Send(&brokerv1.PutManyResponse{Seq: m.GetSeq(), Fault: toProto(toFault(err, noCID))}); err != nil {
				return err
			}
			continue
		}
		files, good = append(files, f), append(good, m)
	}
	if len(files) == 0 {
		return nil
	}
	cids, err := s.store.PutMany(files)
	for i, m := range good {
		resp := &brokerv1.PutManyResponse{Seq: m.GetSeq()}
		if err != nil {
			resp.Fault = toProto(err)
		} else {
			resp.Cid = cids[i].String()
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	return nil
}

func toProto(err error) *eventv1.Fault {
	f := fault.From(err)
	return &eventv1.Fault{Code: uint32(f.Code), Reason: f.Reason, Message: f.Message, Meta: f.Meta}
}

// Get implements RepositoryService.
func (s *Server) Get(req *brokerv1.GetRequest, stream grpc.ServerStreamingServer[brokerv1.GetResponse]) error {
	src := Source{Persona: req.GetPersona(), Peers: req.GetFromPeers(), Local: req.GetLocal()}
	file, err := s.store.OpenPath(stream.Context(), req.GetCid(), req.GetPath(), src, req.GetOffset(), req.GetMaxSize())
	if err != nil {
		return err
	}
	defer file.Close()
	if err := stream.Send(&brokerv1.GetResponse{Response: &brokerv1.GetResponse_Size{Size: file.Size}}); err != nil {
		return err
	}
	for {
		data, err := file.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for piece := range slices.Chunk(data, getData) {
			if err := stream.Send(&brokerv1.GetResponse{Response: &brokerv1.GetResponse_Data{Data: piece}}); err != nil {
				return err
			}
		}
	}
}

// listBatch is how many entries one message has: with paths of the greatest length it is still far below what a message may have.
const listBatch = 500

// List implements RepositoryService.
func (s *Server) List(req *brokerv1.ListRequest, stream grpc.ServerStreamingServer[brokerv1.ListResponse]) error {
	src := Source{Persona: req.GetPersona(), Peers: req.GetFromPeers(), Local: req.GetLocal()}
	var batch []*brokerv1.DirectoryEntry
	send := func() error {
		err := stream.Send(&brokerv1.ListResponse{Entries: batch})
		batch = nil
		return err
	}
	err := s.store.List(stream.Context(), req.GetCid(), req.GetPath(), req.GetRecursive(), src, func(e Listed) error {
		if batch = append(batch, &brokerv1.DirectoryEntry{Path: e.Path, Cid: e.CID.String(), Kind: e.Kind, Size: e.Size}); len(batch) < listBatch {
			return nil
		}
		return send()
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return send()
}

// Stat implements RepositoryService.
func (s *Server) Stat(ctx context.Context, req *brokerv1.StatRequest) (*brokerv1.StatResponse, error) {
	st, err := s.store.StatPath(ctx, req.GetCid(), req.GetPath(), Source{Persona: req.GetPersona(), Local: req.GetLocal()})
	if err != nil {
		return nil, err
	}
	return &brokerv1.StatResponse{Cid: st.CID, Kind: st.Kind, Size: st.Size, Blocks: st.Blocks, Local: st.Local, Pins: pinsToProto(st.Pins)}, nil
}

// Pin implements RepositoryService.
func (s *Server) Pin(ctx context.Context, req *brokerv1.PinRequest) (*brokerv1.PinResponse, error) {
	size, err := s.store.Pin(ctx, req.GetCid(), pinFor(req.GetPersona(), req.GetPin()), Source{Persona: req.GetPersona(), Peers: req.GetFromPeers()})
	if err != nil {
		return nil, err
	}
	return &brokerv1.PinResponse{Size: size}, nil
}

// Unpin implements RepositoryService.
func (s *Server) Unpin(_ context.Context, req *brokerv1.UnpinRequest) (*brokerv1.UnpinResponse, error) {
	n := len(req.GetCids()) + len(req.GetPins())
	if n > maxUnpins {
		return nil, fault.InvalidArgument("INVALID_ARGUMENT", "%d pins are named and %d may be: call again with the rest", n, maxUnpins)
	}
	pins := make([]content.Pin, 0, n)
	for _, c := range req.GetCids() {
		pins = append(pins, content.Pin{CID: c, Owner: req.GetOwner()})
	}
	for _, p := range req.GetPins() {
		pins = append(pins, content.Pin{CID: p.GetCid(), Owner: p.GetOwner()})
	}
	if err := s.store.Unpin(pins); err != nil {
		return nil, err
	}
	return &brokerv1.UnpinResponse{}, nil
}

// ListPins implements RepositoryService.
func (s *Server) ListPins(_ context.Context, req *brokerv1.ListPinsRequest) (*brokerv1.ListPinsResponse, error) {
	limit := int(min(req.GetPageSize(), content.MaxPage))
	if limit == 0 {
		limit = pageSize
	}
	pins, next, err := s.store.Pins(req.GetOwner(), req.GetPageToken(), limit)
	if err != nil {
		return nil, err
	}
	out := pinsToProto(pins)
	for i := range out {
		if req.GetSizes() {
			out[i].Size = s.store.RootSize(pins[i].CID)
		}
	}
	return &brokerv1.ListPinsResponse{Pins: out, NextPageToken: next}, nil
}

func pinsToProto(pins []content.Pin) []*brokerv1.Pin {
	out := make([]*brokerv1.Pin, 0, len(pins))
	for _, p := range pins {
		pb := &brokerv1.Pin{Cid: p.CID, Owner: p.Owner}
		if !p.ExpiresAt.IsZero() {
			pb.ExpiresAt = timestamppb.New(p.ExpiresAt)
		}
		out = append(out, pb)
	}
	return out
}
