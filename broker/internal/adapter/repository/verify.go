package repository

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"
	"google.golang.org/grpc"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// nameOf is the CID of a block whose codec is not known. Blocks are found by their hash, so it serves as well as any other.
func nameOf(key string) string { return cid.NewCidV1(cid.Raw, []byte(key)).String() }

// Verify reads everything; see app.Verifier. With repair, what is damaged or missing is fetched from wherever src says.
func (s *Store) Verify(ctx context.Context, repair bool, src Source, to app.Reporter) (done app.Checked, err error) {
	defer func() { s.metrics.done("verify", err) }()
	cfg := app.VerifierConfig{Store: s.blocks, Links: linksOf, NameOf: nameOf}
	if repair {
		cfg.Repair = func(ctx context.Context, cids []string) (map[string]bool, error) { return s.repair(ctx, cids, src) }
	}
	done, err = app.NewVerifier(cfg).Verify(ctx, to)
	return done, toFault(err, cid.Undef)
}

// repair fetches blocks and puts them in the place of those that are damaged or missing.
func (s *Store) repair(ctx context.Context, cids []string, src Source) (brought map[string]bool, err error) {
	brought = make(map[string]bool, len(cids))
	asked := make([]cid.Cid, 0, len(cids))
	for _, text := range cids {
		c, err := cid.Decode(text)
		if err != nil || checkCID(c) != nil {
			continue
		}
		asked = append(asked, c)
	}
	if len(asked) == 0 {
		return brought, nil
	}
	f, stop, err := s.newFetcher(ctx, asked[0], src)
	if err != nil {
		return brought, err
	}
	defer stop()
	err = f.remote(f.ctx, asked, func(c cid.Cid, _ []byte) error {
		brought[c.String()] = true
		return nil
	})
	if len(brought) > 0 {
		err = nil // somebody has some: the next ones are worth asking for
	}
	return brought, err
}

// Collect implements RepositoryService.
func (s *Server) Collect(ctx context.Context, _ *brokerv1.CollectRequest) (*brokerv1.CollectResponse, error) {
	swept, err := s.store.CollectAll(ctx)
	if err != nil {
		return nil, toFault(err, noCID)
	}
	used, quota := s.store.Usage()
	return &brokerv1.CollectResponse{Blocks: uint64(swept.Blocks), Bytes: uint64(swept.Bytes), Used: uint64(used), Quota: uint64(quota)}, nil
}

// progressEvery bounds how often a caller hears how far a verification is.
const progressEvery = 200 * time.Millisecond

// Verify implements RepositoryService.
func (s *Server) Verify(req *brokerv1.VerifyRequest, stream grpc.ServerStreamingServer[brokerv1.VerifyResponse]) error {
	to := &verifyStream{stream: stream, store: s.store}
	done, err := s.store.Verify(stream.Context(), req.GetRepair(), Source{Persona: req.GetPersona(), Peers: req.GetFromPeers()}, to)
	if err != nil {
		return err
	}
	return to.send(done, true)
}

// verifyStream is an app.Reporter.
type verifyStream struct {
	stream grpc.ServerStreamingServer[brokerv1.VerifyResponse]
	store  *Store
	last   time.Time
}

// Progress implements app.Reporter.
func (v *verifyStream) Progress(c app.Checked) error {
	if err := v.stream.Context().Err(); err != nil {
		return err
	}
	if err := v.store.ctx.Err(); err != nil {
		return context.Cause(v.store.ctx)
	}
	if time.Since(v.last) < progressEvery {
		return nil
	}
	v.last = time.Now()
	return v.send(c, false)
}

func (v *verifyStream) send(c app.Checked, done bool) error {
	used, _ := v.store.Usage()
	return v.stream.Send(&brokerv1.VerifyResponse{Response: &brokerv1.VerifyResponse_Progress{Progress: &brokerv1.VerifyProgress{
		Blocks: uint64(c.Blocks), Bytes: uint64(c.Bytes), TotalBytes: uint64(used), Bad: uint64(c.Bad), Repaired: uint64(c.Repaired), Done: done,
	}}})
}

// Found implements app.Reporter.
func (v *verifyStream) Found(f app.Finding) error {
	problem := "missing"
	if f.Damaged {
		problem = "damaged"
	}
	return v.stream.Send(&brokerv1.VerifyResponse{Response: &brokerv1.VerifyResponse_Finding{Finding: &brokerv1.VerifyFinding{
		Cid: f.CID, Problem: problem, Repaired: f.Repaired,
	}}})
}
