package api

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// PutContent stores a file or a directory, pinned for the user.
func (s *Service) PutContent(in grpc.ClientStreamingServer[nodev1.PutContentRequest, nodev1.PutContentResponse]) error {
	first, err := in.Recv()
	empty := errors.Is(err, io.EOF) // a file without bytes
	if err != nil && !empty {
		return err
	}
	ahead := first
	next := func() (m *nodev1.PutContentRequest, err error) {
		if m, ahead = ahead, nil; m != nil {
			return m, nil
		}
		if empty {
			return nil, io.EOF
		}
		return in.Recv()
	}
	options := &brokerv1.PutOptions{Pin: &brokerv1.PinOptions{Owner: userOwner}, Directory: first.GetDirectory()}
	r, err := s.cfg.Putter.Put(in.Context(), options, func() (*brokerv1.PutRequest, error) {
		m, err := next()
		if err != nil {
			return nil, err
		}
		if m.GetEntry() == nil {
			return &brokerv1.PutRequest{Request: &brokerv1.PutRequest_Data{Data: m.GetData()}}, checkPiece(m.GetData())
		}
		if !first.GetDirectory() {
			return nil, fault.InvalidArgument("NOT_A_DIRECTORY", "an entry has come, and the first message did not say that a directory is stored")
		}
		if len(m.GetData()) > 0 {
			ahead = &nodev1.PutContentRequest{Data: m.GetData()}
		}
		return &brokerv1.PutRequest{Request: &brokerv1.PutRequest_Entry{Entry: m.GetEntry()}}, nil
	})
	if err != nil {
		return err
	}
	return in.SendAndClose(&nodev1.PutContentResponse{Cid: r.GetCid(), Size: r.GetSize()})
}

// GetContent streams a file.
func (s *Service) GetContent(in *nodev1.GetContentRequest, out grpc.ServerStreamingServer[nodev1.GetContentResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	if err := s.checkWanted(ctx, in.GetCid(), in.GetFromPeers()); err != nil {
		return err
	}
	from, err := s.cfg.Content.Get(ctx, &brokerv1.GetRequest{Cid: in.GetCid(), Path: in.GetPath(), Offset: in.GetOffset(), MaxSize: in.GetMaxSize(), FromPeers: in.GetFromPeers()})
	if err == nil {
		err = forward(from, func(m *brokerv1.GetResponse) error {
			r := &nodev1.GetContentResponse{}
			switch x := m.GetResponse().(type) {
			case *brokerv1.GetResponse_Size:
				r.Response = &nodev1.GetContentResponse_Size{Size: x.Size}
			case *brokerv1.GetResponse_Data:
				r.Response = &nodev1.GetContentResponse_Data{Data: x.Data}
			}
			return out.Send(r)
		})
	}
	return s.contentError(ctx, in.GetCid(), s.notGiven(in.GetCid(), in.GetFromPeers(), err))
}

// maxFrom is how many peers may be named for content.
const maxFrom = 16

func (s *Service) checkWanted(ctx context.Context, cid string, peers []string) error {
	if err := s.checkCID(ctx, cid); err != nil {
		return err
	}
	if len(peers) > maxFrom {
		return fault.InvalidArgument("FROM_PEERS_INVALID", "from_peers names %d peers: at most %d are asked", len(peers), maxFrom)
	}
	for _, id := range peers {
		if !domain.ValidPeerID(id) {
			return fault.InvalidArgument("PEER_ID_INVALID", "from_peers has %q, which is no peer id%s", shown(id), near(id, peerIDs(ctx, s.cfg.View)))
		}
	}
	return nil
}

// notGiven says of content that is not had in anonymous mode why, and what would help: nobody is asked there who was not named, and a refusal looks like an
// absence.
func (s *Service) notGiven(cid string, named []string, err error) error {
	f := fault.From(err)
	if f == nil || !s.cfg.Anonymous || f.Reason != "CONTENT_NOT_FOUND" && f.Reason != "CONTENT_UNREACHABLE" {
		return err
	}
	if len(named) == 0 {
		return fault.New(f.Code, f.Reason, "content %s is not on this node, and an anonymous one asks only peers that are named: name one that has it (from_peers; --from PEER)", shown(cid)).Because(err)
	}
	return fault.New(f.Code, f.Reason, "content %s is not given to this node by the %d that were asked: a peer that is anonymous gives it only to those it was made for", shown(cid), len(named)).Because(err)
}

// ListContent says what is in a directory.
func (s *Service) ListContent(in *nodev1.ListContentRequest, out grpc.ServerStreamingServer[nodev1.ListContentResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	if err := s.checkWanted(ctx, in.GetCid(), in.GetFromPeers()); err != nil {
		return err
	}
	from, err := s.cfg.Content.List(ctx, &brokerv1.ListRequest{Cid: in.GetCid(), Path: in.GetPath(), Recursive: in.GetRecursive(), FromPeers: in.GetFromPeers()})
	if err == nil {
		err = forward(from, func(m *brokerv1.ListResponse) error {
			return out.Send(&nodev1.ListContentResponse{Entries: m.GetEntries()})
		})
	}
	return s.contentError(ctx, in.GetCid(), s.notGiven(in.GetCid(), in.GetFromPeers(), err))
}

// StatContent says what is known of a CID.
func (s *Service) StatContent(ctx context.Context, in *nodev1.StatContentRequest) (*nodev1.StatContentResponse, error) {
	if err := s.checkCID(ctx, in.GetCid()); err != nil {
		return nil, err
	}
	r, err := s.cfg.Content.Stat(ctx, &brokerv1.StatRequest{Cid: in.GetCid(), Path: in.GetPath()})
	if err != nil {
		return nil, s.contentError(ctx, in.GetCid(), err)
	}
	return &nodev1.StatContentResponse{Content: r}, nil
}

// PinContent keeps content for the user.
func (s *Service) PinContent(ctx context.Context, in *nodev1.PinContentRequest) (*nodev1.PinContentResponse, error) {
	if err := s.checkCID(ctx, in.GetCid()); err != nil {
		return nil, err
	}
	r, err := s.cfg.Content.Pin(ctx, &brokerv1.PinRequest{Cid: in.GetCid(), Pin: &brokerv1.PinOptions{Owner: userOwner, Keep: in.GetKeep()}})
	if err != nil {
		return nil, s.contentError(ctx, in.GetCid(), err)
	}
	return &nodev1.PinContentResponse{Size: r.GetSize()}, nil
}

// UnpinContent lets content go. What is not pinned is no error.
func (s *Service) UnpinContent(ctx context.Context, in *nodev1.UnpinContentRequest) (*nodev1.UnpinContentResponse, error) {
	if err := s.checkCID(ctx, in.GetCid()); err != nil {
		return nil, err
	}
	if _, err := s.cfg.Content.Unpin(ctx, &brokerv1.UnpinRequest{Cids: []string{in.GetCid()}, Owner: userOwner}); err != nil {
		return nil, s.contentError(ctx, in.GetCid(), err)
	}
	return &nodev1.UnpinContentResponse{}, nil
}

// ListPins lists what is pinned for the user, for another owner, or at all.
func (s *Service) ListPins(ctx context.Context, in *nodev1.ListPinsRequest) (*nodev1.ListPinsResponse, error) {
	if err := checkPage(in.GetPageSize()); err != nil {
		return nil, err
	}
	owner := in.GetOwner()
	switch {
	case in.GetAllOwners() && owner != "":
		return nil, fault.InvalidArgument("OWNER_AMBIGUOUS", "owner is %q, and all_owners is set: leave one of them out", shown(owner))
	case !in.GetAllOwners() && owner == "":
		owner = userOwner
	}
	r, err := s.cfg.Content.ListPins(ctx, &brokerv1.ListPinsRequest{Owner: owner, PageSize: in.GetPageSize(), PageToken: in.GetPageToken(), Sizes: true})
	if err != nil {
		return nil, err
	}
	return &nodev1.ListPinsResponse{Pins: r.GetPins(), NextPageToken: r.GetNextPageToken()}, nil
}

// CollectContent removes what nobody keeps.
func (s *Service) CollectContent(ctx context.Context, _ *nodev1.CollectContentRequest) (*nodev1.CollectContentResponse, error) {
	r, err := s.cfg.Content.Collect(ctx, &brokerv1.CollectRequest{})
	if err != nil {
		return nil, err
	}
	return &nodev1.CollectContentResponse{Blocks: r.GetBlocks(), Bytes: r.GetBytes(), Used: r.GetUsed(), Quota: r.GetQuota()}, nil
}

// VerifyContent reads everything, and mends what it can.
func (s *Service) VerifyContent(in *nodev1.VerifyContentRequest, out grpc.ServerStreamingServer[nodev1.VerifyContentResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	from, err := s.cfg.Content.Verify(ctx, &brokerv1.VerifyRequest{Repair: !in.GetNoRepair()})
	if err != nil {
		return err
	}
	return forward(from, func(m *brokerv1.VerifyResponse) error {
		r := &nodev1.VerifyContentResponse{}
		switch x := m.GetResponse().(type) {
		case *brokerv1.VerifyResponse_Progress:
			r.Response = &nodev1.VerifyContentResponse_Progress{Progress: x.Progress}
		case *brokerv1.VerifyResponse_Finding:
			r.Response = &nodev1.VerifyContentResponse_Finding{Finding: x.Finding}
		}
		return out.Send(r)
	})
}
