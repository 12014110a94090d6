package repository

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/grpc/codes"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
)

// imported stores a file laid out in another way than ours, as other implementations do.
func imported(t *testing.T, s *Store, data []byte, size int64, links int, raw bool, b cid.Builder, layout func(*helpers.DagBuilderHelper) (ipld.Node, error)) string {
	t.Helper()
	w := newSink(t.Context(), s.blocks)
	defer w.stop()
	p := helpers.DagBuilderParams{Maxlinks: links, RawLeaves: raw, CidBuilder: b, Dagserv: w}
	db, err := p.New(split(data, size))
	if err != nil {
		t.Fatal(err)
	}
	root, err := layout(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.finish(app.Change{}); err != nil {
		t.Fatal(err)
	}
	return root.Cid().String()
}

func split(data []byte, n int64) chunk.Splitter {
	return chunk.NewSizeSplitter(bytes.NewReader(data), n)
}

func TestForeignLayouts(t *testing.T) {
	a, b, from := pair(t)
	data := randomBytes(5, 1<<20+12345)
	for _, c := range []struct {
		chunk  int64
		links  int
		raw    bool
		b      cid.Builder
		layout func(*helpers.DagBuilderHelper) (ipld.Node, error)
	}{
		{256 << 10, 174, false, cid.V0Builder{}, balanced.Layout}, // Kubo's oldest
		{256 << 10, 174, true, builder, balanced.Layout},
		{4096, 3, true, builder, balanced.Layout}, // six levels
		{4096, 5, false, builder, balanced.Layout},
		{10_000, 8, true, builder, trickle.Layout},
		{10_000, 8, false, cid.V0Builder{}, trickle.Layout},
	} {
		t.Run(fmt.Sprint(c.chunk, " ", c.links, " ", c.raw), func(t *testing.T) {
			text := imported(t, a, data, c.chunk, c.links, c.raw, c.b, c.layout)
			mustGet(t, a, text, Source{Local: true}, data)
			for range 5 {
				at := rand.Uint64N(uint64(len(data)) + 1)
				f, err := a.Open(t.Context(), text, Source{Local: true}, at, 0)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(f)
				_ = f.Close()
				if err != nil || !bytes.Equal(got, data[at:]) {
					t.Fatalf("from %d: %d bytes, %v", at, len(got), err)
				}
			}
			mustGet(t, b, text, from, data)
			if _, err := b.Pin(t.Context(), text, PinFor{Owner: "user"}, Source{}); err != nil {
				t.Fatal(err)
			}
			if st, err := b.Stat(t.Context(), text, Source{Local: true}); err != nil || !st.Local || st.Size != uint64(len(data)) {
				t.Fatalf("%+v, %v", st, err)
			}
		})
	}
}

// Blocks that say one thing and hold another end the file with an error, soon.
func TestHostileFiles(t *testing.T) {
	s := newStore(t)
	leaf := mustParse(t, put(t, s, randomBytes(1, 1000), ""))
	deep := leaf
	for range 200 {
		deep = mustParse(t, addNode(t, s, fileNode(t, []uint64{1000}, deep)))
	}
	empty := mustParse(t, put(t, s, nil, ""))
	wide, none := leaf, empty
	size := uint64(1000)
	for range 50 { // 2^50 paths
		wide = mustParse(t, addNode(t, s, fileNode(t, []uint64{size, size}, wide, wide)))
		none = mustParse(t, addNode(t, s, fileNode(t, []uint64{0, 0}, none, none)))
		size *= 2
	}
	for name, c := range map[string]string{
		"too deep":       deep.String(),
		"overflow":       addNode(t, s, fileNode(t, []uint64{1 << 63, 1 << 63}, leaf, leaf)),
		"too few sizes":  addNode(t, s, fileNode(t, []uint64{1000}, leaf, leaf)),
		"a directory in": addNode(t, s, fileNode(t, []uint64{4}, mustParse(t, addNode(t, s, protoNode(t, []byte{8, 1}))))),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := get(s, c, Source{Local: true})
			wantFault(t, err, codes.InvalidArgument, ReasonMalformed)
		})
	}
	if got, err := get(s, none.String(), Source{Local: true}); err != nil || len(got) != 0 {
		t.Errorf("a file of nothing, in 2^50 ways: %d bytes, %v", len(got), err)
	}
	_, err := s.Open(t.Context(), wide.String(), Source{Local: true}, 0, 1<<20)
	wantFault(t, err, codes.ResourceExhausted, ReasonTooLarge)
	f, err := s.Open(t.Context(), wide.String(), Source{Local: true}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := io.CopyN(io.Discard, f, 1<<20); err != nil { // what is asked for is delivered, and no more
		t.Fatal(n, err)
	}
}

// A reader who leaves takes everything along that was fetched for him.
func TestReaderLeaves(t *testing.T) {
	a, b, from := pair(t)
	c := put(t, a, randomBytes(1, 40<<20), "")
	mustGetSome := func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f, err := b.Open(ctx, c, from, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(f, make([]byte, 3<<20)); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	mustGetSome()
	for range 5 {
		mustGetSome()
	}
	waitFor(t, func() bool {
		buf := make([]byte, 1<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		return !strings.Contains(stacks, "repository.(*frame)") && !strings.Contains(stacks, "repository.(*fetcher)")
	})
	if n := len(b.gets); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}
