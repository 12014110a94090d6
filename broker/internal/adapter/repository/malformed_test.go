package repository

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/grpc/codes"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
)

func addNode(t *testing.T, s *Store, n ipld.Node) string {
	t.Helper()
	if err := s.blocks.Commit(app.Change{Blocks: []app.Block{{Key: keyOf(n.Cid()), Data: n.RawData()}}}); err != nil {
		t.Fatal(err)
	}
	return canonical(n.Cid()).String()
}

func protoNode(t *testing.T, data []byte, links ...cid.Cid) *merkledag.ProtoNode {
	t.Helper()
	n := merkledag.NodeWithData(data)
	if err := n.SetCidBuilder(builder); err != nil {
		t.Fatal(err)
	}
	for i, c := range links {
		if err := n.AddRawLink(fmt.Sprint(i), &ipld.Link{Size: 1, Cid: c}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func fileNode(t *testing.T, sizes []uint64, links ...cid.Cid) *merkledag.ProtoNode {
	t.Helper()
	fs := unixfs.NewFSNode(unixfs.TFile)
	for _, n := range sizes {
		fs.AddBlockSize(n)
	}
	b, err := fs.GetBytes()
	if err != nil {
		t.Fatal(err)
	}
	return protoNode(t, b, links...)
}

// Whoever makes blocks may lie in them.
func TestMalformed(t *testing.T) {
	s := newStore(t)
	leaf := mustParse(t, put(t, s, randomBytes(1, 1000), ""))
	long, short := fileNode(t, []uint64{10}, leaf), fileNode(t, []uint64{5000}, leaf)
	garbage := protoNode(t, []byte{0xff, 0xff, 0xff}, leaf)
	dir := protoNode(t, unixfs.FolderPBData(), leaf)
	cbor := cid.NewCidV1(cid.DagCBOR, leaf.Hash())
	for name, c := range map[string]struct {
		cid    string
		code   codes.Code
		reason string
	}{
		"longer than it says":  {addNode(t, s, long), codes.InvalidArgument, ReasonMalformed},
		"shorter than it says": {addNode(t, s, short), codes.InvalidArgument, ReasonMalformed},
		"no UnixFS":            {addNode(t, s, garbage), codes.InvalidArgument, ReasonMalformed},
		"not dag-pb":           {cid.NewCidV1(cid.DagProtobuf, leaf.Hash()).String(), codes.InvalidArgument, ReasonMalformed},
		"directory":            {addNode(t, s, dir), codes.FailedPrecondition, ReasonIsDirectory},
		"link to dag-cbor":     {addNode(t, s, fileNode(t, []uint64{1000}, cbor)), codes.InvalidArgument, "CID_UNSUPPORTED"},
		"dag-cbor":             {cbor.String(), codes.InvalidArgument, "CID_UNSUPPORTED"},
		"no CID":               {"hello", codes.InvalidArgument, "CID_INVALID"},
		"empty":                {"", codes.InvalidArgument, "CID_INVALID"},
		"endless":              {strings.Repeat("b", 10_000), codes.InvalidArgument, "CID_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := get(s, c.cid, Source{Local: true})
			wantFault(t, err, c.code, c.reason)
		})
	}
	if st, err := s.Stat(t.Context(), canonical(dir.Cid()).String(), Source{Local: true}); err != nil || st.Kind != kindDirectory {
		t.Errorf("stat of a directory: %+v, %v", st, err)
	}
}
