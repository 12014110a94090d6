package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/services/node/internal/fake"
)

type nobody struct{ View }

func (nobody) ListPeers(context.Context, PeerQuery) ([]*discoveryv1.Peer, string, error) {
	return nil, "", nil
}

// Who is named for content is asked for it. An anonymous node that does not get it says that it asks nobody else, or that nobody else would help.
func TestContentFromNamedPeers(t *testing.T) {
	t.Parallel()
	repository := fake.NewRepository()
	broker := brokerv1.NewRepositoryServiceClient(grpctest.Start(t, func(s *rpc.Server) { brokerv1.RegisterRepositoryServiceServer(s, repository) }))
	const cid = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	peer := fake.NewKey().ID
	for _, anonymous := range []bool{false, true} {
		node := nodev1.NewNodeServiceClient(grpctest.Start(t, func(s *rpc.Server) { New(Config{Anonymous: anonymous, Content: broker, View: nobody{}}).Register(s) }))
		get := func(from ...string) *fault.Error {
			stream, err := node.GetContent(t.Context(), &nodev1.GetContentRequest{Cid: cid, FromPeers: from})
			if err == nil {
				_, err = stream.Recv()
			}
			return fault.From(err)
		}
		for says, from := range map[string][]string{"--from PEER": nil, "those it was made for": {peer}} {
			f := get(from...)
			if f == nil || f.Code != codes.NotFound || f.Reason != "CONTENT_NOT_FOUND" || strings.Contains(f.Message, says) != anonymous || !strings.Contains(f.Message, cid) {
				t.Errorf("anonymous %v, from %v: %v", anonymous, from, f)
			}
			if got := strings.Join(repository.From, " "); got != strings.Join(from, " ") {
				t.Errorf("asked are %q", got)
			}
		}
		if f := get("somebody"); f == nil || f.Reason != "PEER_ID_INVALID" {
			t.Errorf("who is no peer: %v", f)
		}
		if f := get(make([]string, 17)...); f == nil || f.Reason != "FROM_PEERS_INVALID" {
			t.Errorf("too many: %v", f)
		}
		stream, err := node.ListContent(t.Context(), &nodev1.ListContentRequest{Cid: cid, FromPeers: []string{"somebody"}})
		if err == nil {
			_, err = stream.Recv()
		}
		if f := fault.From(err); errors.Is(err, io.EOF) || f == nil || f.Reason != "PEER_ID_INVALID" {
			t.Errorf("a list from who is no peer: %v", err)
		}
	}
}
