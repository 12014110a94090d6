package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/kit/fault"
)

func TestPutGetSizes(t *testing.T) {
	s := newStore(t)
	for _, n := range []int{0, 1, 1000, 64 << 10, 64<<10 + 1, chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 17, 20 * chunkSize} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			data := randomBytes(uint64(n), n)
			c := put(t, s, data, "user")
			mustGet(t, s, c, Source{Local: true}, data)
			if again := put(t, s, data, ""); again != c {
				t.Fatalf("the same bytes are %s and %s", c, again)
			}
		})
	}
}

// The names that Kubo gives the same bytes with its profile unixfs-v1-2025.
func TestKnownCIDs(t *testing.T) {
	s := newStore(t)
	for text, want := range map[string]string{
		"":              "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
		"hello world\n": "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4",
	} {
		if got := put(t, s, []byte(text), ""); got != want {
			t.Errorf("%q is %s and should be %s", text, got, want)
		}
	}
}

func wantFault(t *testing.T, err error, code codes.Code, reason string, mentions ...string) {
	t.Helper()
	f := fault.From(err)
	if f == nil || f.Code != code || f.Reason != reason {
		t.Fatalf("want %s %s, got %v", code, reason, err)
	}
	for _, m := range mentions {
		if !strings.Contains(f.Message, m) {
			t.Errorf("%q does not mention %q", f.Message, m)
		}
	}
}

func pair(t testing.TB, edit ...func(*Config)) (a, b *Store, from Source) {
	t.Helper()
	a, b = newStore(t, edit...), newStore(t, edit...)
	ha, hb := attach(t, a), attach(t, b)
	know(hb, ha)
	return a, b, Source{Peers: []string{ha.ID().String()}}
}

func fetched(s *Store) int {
	return int(testutil.ToFloat64(s.metrics.blocks.WithLabelValues("fetched")))
}

func TestFetchFromPeer(t *testing.T) {
	a, b, from := pair(t)
	data := randomBytes(1, 32<<20)
	c := put(t, a, data, "user")
	mustGet(t, b, c, from, data)
	mustGet(t, b, c, Source{Local: true}, data)
	if n := fetched(b); n != 33 {
		t.Errorf("%d blocks were fetched, and the file has 33", n)
	}
	size, err := b.Pin(t.Context(), c, PinFor{Owner: "user"}, from)
	if err != nil || size != 32<<20 || fetched(b) != 33 {
		t.Fatalf("pin: %d bytes, %v; %d blocks fetched", size, err, fetched(b))
	}
}

func TestFetchResumes(t *testing.T) {
	a, b, from := pair(t)
	data := randomBytes(1, 32<<20)
	c := put(t, a, data, "user")
	f, err := b.Open(t.Context(), c, from, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(f, make([]byte, 12<<20)); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	part := fetched(b)
	if part < 12 || part >= 33 {
		t.Fatalf("%d blocks of 33 were fetched for 12 MiB", part)
	}
	if _, err := b.Pin(t.Context(), c, PinFor{Owner: "user"}, from); err != nil {
		t.Fatal(err)
	}
	// A block may be on its way when the first fetch ends, and come again.
	if n := fetched(b); n > 33+window {
		t.Errorf("%d blocks were fetched in all, and the file has 33", n)
	}
	mustGet(t, b, c, Source{Local: true}, data)
}

func TestFetchAtOffset(t *testing.T) {
	a, b, from := pair(t)
	data := randomBytes(1, 24<<20)
	c := put(t, a, data, "user")
	f, err := b.Open(t.Context(), c, from, 23<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || string(got) != string(data[23<<20:]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if n := fetched(b); n > 3 {
		t.Errorf("%d blocks were fetched for the last MiB", n)
	}
}

// A peer may ask for what is put a moment later.
func TestWantedBeforeItIsThere(t *testing.T) {
	a, b, from := pair(t)
	data := randomBytes(1, 1000)
	probe := newStore(t)
	c := put(t, probe, data, "")
	var asked atomic.Bool
	got := make(chan error, 1)
	f, stop, err := b.newFetcher(t.Context(), mustParse(t, c), from)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	go func() {
		asked.Store(true)
		_, err := f.bytes(mustParse(t, c))
		got <- err
	}()
	p, err := a.persona("")
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { // until a knows what b wants
		for _, id := range p.host.Network().Peers() {
			if len(p.bitswap.WantlistForPeer(id)) > 0 {
				return true
			}
		}
		return false
	})
	if _, err := a.PutMany([]Small{{Data: data}}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it did not come")
	}
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it did not happen within 10 s")
		}
	}
}

func mustParse(t testing.TB, s string) cid.Cid {
	t.Helper()
	c, err := parseCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNobodyHasIt(t *testing.T) {
	s := newStore(t, func(c *Config) { c.StallTimeout = 100 * time.Millisecond })
	h := attach(t, s)
	c := put(t, newStore(t), randomBytes(1, 100), "")
	_, err := get(s, c, Source{})
	wantFault(t, err, codes.NotFound, ReasonNotFound, c)
	_, err = get(s, c, Source{Local: true})
	wantFault(t, err, codes.NotFound, ReasonNotFound, c)
	_, err = get(s, c, Source{Persona: "other"})
	wantFault(t, err, codes.NotFound, ReasonPersona, "other")
	away := newHost(t)
	_, err = get(s, c, Source{Peers: []string{away.ID().String()}})
	wantFault(t, err, codes.Unavailable, ReasonUnreachable, c)
	if strings.Contains(err.Error(), away.ID().String()) {
		t.Error("the error tells a peer id")
	}
	_, err = get(s, c, Source{Peers: []string{"nonsense"}})
	wantFault(t, err, codes.InvalidArgument, "PEER_INVALID", "nonsense")
	// A peer that is there and does not have it.
	other := newStore(t)
	connect(t, h, attach(t, other))
	_, err = get(s, c, Source{})
	wantFault(t, err, codes.Unavailable, ReasonUnreachable, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Open(ctx, c, Source{}, 0, 0)
	wantFault(t, err, codes.Canceled, fault.ReasonCancelled)
}

func TestAllow(t *testing.T) {
	data, secret := randomBytes(1, 1000), randomBytes(2, 1000)
	var hidden atomic.Value
	a := newStore(t, func(c *Config) {
		c.Allow = func(persona string, _ peer.ID, c cid.Cid) bool { return persona == "" && c.String() != hidden.Load() }
	})
	b := newStore(t, func(c *Config) { c.StallTimeout = 300 * time.Millisecond })
	ha, hb := attach(t, a), attach(t, b)
	know(hb, ha)
	from := Source{Peers: []string{ha.ID().String()}}
	hidden.Store(put(t, a, secret, ""))
	mustGet(t, b, put(t, a, data, ""), from, data)
	_, err := get(b, hidden.Load().(string), from)
	wantFault(t, err, codes.Unavailable, ReasonUnreachable)
}

func TestAttachDetach(t *testing.T) {
	a, b, from := pair(t, func(c *Config) { c.StallTimeout = 300 * time.Millisecond })
	h := newHost(t)
	wantFault(t, a.Attach("", h), codes.AlreadyExists, "PERSONA_ATTACHED")
	if err := a.Detach("unknown"); err != nil {
		t.Error(err)
	}
	if err := a.Detach(""); err != nil {
		t.Fatal(err)
	}
	c := put(t, a, randomBytes(1, 100), "")
	if _, err := get(b, c, from); err == nil {
		t.Fatal("a persona that was detached serves")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := get(b, c, from)
	wantFault(t, err, codes.Unavailable, fault.ReasonShuttingDown)
	wantFault(t, b.Attach("", h), codes.Unavailable, fault.ReasonShuttingDown)
}

// damageFile changes the byte in the middle of what is given, wherever it lies in a pack.
func damageFile(t *testing.T, dir string, part []byte) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(b), string(part)); i >= 0 {
			b[i+len(part)/2] ^= 1
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(b[i:i+len(part)], int64(i)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("those bytes are in no pack")
}

func TestCorruptedBlock(t *testing.T) {
	a, b, from := pair(t)
	data, other := randomBytes(1, 5<<20), randomBytes(2, 3<<20)
	c, otherCID := put(t, a, data, "user"), put(t, a, other, "user")
	leaf := data[2<<20 : 3<<20]
	leafCID := put(t, newStore(t), leaf, "")
	for _, s := range []*Store{a, b} {
		put(t, s, data, "user")
	}
	damageFile(t, b.cfg.Dir, leaf)
	_, err := get(b, c, Source{Local: true})
	wantFault(t, err, codes.DataLoss, ReasonCorrupted, leafCID, b.cfg.Dir)
	put(t, b, other, "user")
	mustGet(t, b, otherCID, Source{Local: true}, other)
	// Who may ask others gets it from them, and it is whole here afterwards.
	mustGet(t, b, c, from, data)
	mustGet(t, b, c, Source{Local: true}, data)
	// And putting it again mends it too.
	damageFile(t, a.cfg.Dir, leaf)
	_, err = get(a, c, Source{Local: true})
	wantFault(t, err, codes.DataLoss, ReasonCorrupted, leafCID)
	put(t, a, data, "user")
	mustGet(t, a, c, Source{Local: true}, data)
	if n := testutil.ToFloat64(b.metrics.faults.WithLabelValues("corrupted")); n == 0 {
		t.Error("it is not counted")
	}
}

func collect(t *testing.T, s *Store, times int) (total app.Swept) {
	t.Helper()
	for range times {
		swept, err := s.Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total.Blocks += swept.Blocks
		total.Expired += swept.Expired
	}
	return total
}

func TestPinsAndCollections(t *testing.T) {
	now := time.Now()
	s := newStore(t, func(c *Config) { c.Now = func() time.Time { return now } })
	kept, dropped, timed := randomBytes(1, 3<<20), randomBytes(2, 3<<20), randomBytes(3, 1000)
	keptCID, droppedCID := put(t, s, kept, "user"), put(t, s, dropped, "task:1")
	cids, err := s.PutMany([]Small{{Data: timed, Pin: PinFor{Owner: "task:2", Keep: time.Hour}}})
	if err != nil {
		t.Fatal(err)
	}
	timedCID := cids[0].String()
	for range 2 { // idempotent
		if size, err := s.Pin(t.Context(), droppedCID, PinFor{Owner: "user"}, Source{}); err != nil || size != uint64(len(dropped)) {
			t.Fatal(size, err)
		}
	}
	collect(t, s, 3)
	for c, d := range map[string][]byte{keptCID: kept, droppedCID: dropped, timedCID: timed} {
		mustGet(t, s, c, Source{Local: true}, d)
	}
	if err := s.Unpin("user", []string{droppedCID}); err != nil {
		t.Fatal(err)
	}
	collect(t, s, 3)
	mustGet(t, s, droppedCID, Source{Local: true}, dropped) // the task still has it
	if err := s.Unpin("task:1", []string{droppedCID, keptCID}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	if pins, _, err := s.Pins("", "", 10); err != nil || len(pins) != 1 {
		t.Errorf("pins %v, %v", pins, err)
	}
	if total := collect(t, s, 3); total.Blocks != 5 || total.Expired != 1 {
		t.Errorf("collected %+v", total)
	}
	mustGet(t, s, keptCID, Source{Local: true}, kept)
	for _, c := range []string{droppedCID, timedCID} {
		_, err := get(s, c, Source{Local: true})
		wantFault(t, err, codes.NotFound, ReasonNotFound)
	}
}

// Content lives for one interval at least, so that a Put without a pin and the Pin that follows it are safe.
func TestYoungContentStays(t *testing.T) {
	s := newStore(t)
	data := randomBytes(1, 2<<20)
	collect(t, s, 2)
	c := put(t, s, data, "")
	collect(t, s, 1)
	mustGet(t, s, c, Source{Local: true}, data)
	if _, err := s.Pin(t.Context(), c, PinFor{Owner: "user"}, Source{}); err != nil {
		t.Fatal(err)
	}
	collect(t, s, 4)
	mustGet(t, s, c, Source{Local: true}, data)
}

// When what is pinned cannot be walked, nothing is removed: what hangs on it cannot be known.
func TestCollectStopsAtDamage(t *testing.T) {
	s := newStore(t)
	data, loose := randomBytes(1, 3<<20), randomBytes(2, 1000)
	c, looseCID := put(t, s, data, "user"), put(t, s, loose, "")
	root, err := s.blocks.Get(keyOf(mustParse(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	damageFile(t, s.cfg.Dir, root)
	for range 4 {
		if _, err := s.Collect(t.Context()); err == nil || !strings.Contains(err.Error(), c) {
			t.Fatalf("it goes on: %v", err)
		}
	}
	mustGet(t, s, looseCID, Source{Local: true}, loose)
}

func TestCollectLoop(t *testing.T) {
	s := newStore(t, func(c *Config) { c.CollectEvery = 20 * time.Millisecond })
	c := put(t, s, randomBytes(1, 1000), "")
	waitFor(t, func() bool {
		_, err := get(s, c, Source{Local: true})
		return fault.From(err) != nil && fault.From(err).Reason == ReasonNotFound
	})
}

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

// A small DAG whose paths are without number is walked node by node.
func TestManyPaths(t *testing.T) {
	s := newStore(t)
	c := mustParse(t, put(t, s, randomBytes(1, 100), ""))
	for range 200 {
		c = mustParse(t, addNode(t, s, protoNode(t, unixfs.FolderPBData(), c, c)))
	}
	if _, err := s.Pin(t.Context(), c.String(), PinFor{Owner: "user"}, Source{}); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stat(t.Context(), c.String(), Source{Local: true})
	if err != nil || st.Blocks != 202 || !st.Local {
		t.Fatalf("%+v, %v", st, err)
	}
	collect(t, s, 3)
}

func TestStat(t *testing.T) {
	a, b, from := pair(t)
	data := randomBytes(1, 4<<20)
	c := put(t, a, data, "user")
	st, err := a.Stat(t.Context(), c, Source{Local: true})
	if err != nil || st.Kind != kindFile || st.Size != uint64(len(data)) || st.Blocks != 5 || !st.Local || len(st.Pins) != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	_, err = b.Stat(t.Context(), c, Source{Local: true})
	wantFault(t, err, codes.NotFound, ReasonNotFound)
	st, err = b.Stat(t.Context(), c, from)
	if err != nil || st.Size != uint64(len(data)) || st.Local || fetched(b) != 1 {
		t.Fatalf("%+v, %v, %d blocks fetched", st, err, fetched(b))
	}
	raw := put(t, a, []byte("x"), "")
	if st, err = a.Stat(t.Context(), raw, Source{Local: true}); err != nil || st.Kind != kindRaw || st.Size != 1 || st.Blocks != 1 || !st.Local {
		t.Fatalf("%+v, %v", st, err)
	}
}

type failing struct {
	n   int
	err error
}

func (f *failing) Read(b []byte) (int, error) {
	if f.n -= len(b); f.n < 0 {
		return 0, f.err
	}
	return len(b), nil
}

// A stream that breaks is not the end of a file.
func TestPutBreaks(t *testing.T) {
	s := newStore(t)
	broken := errors.New("broken")
	if _, _, err := s.Put(t.Context(), &failing{10 << 20, broken}, PinFor{Owner: "user"}); !errors.Is(err, broken) {
		t.Fatalf("a broken stream: %v", err)
	}
	if pins, _, _ := s.Pins("", "", 10); len(pins) != 0 {
		t.Errorf("something is pinned: %v", pins)
	}
	if _, _, err := s.Put(t.Context(), &failing{}, PinFor{Owner: strings.Repeat("x", 1000)}); fault.From(err).Code != codes.InvalidArgument {
		t.Errorf("a long owner: %v", err)
	}
	if collect(t, s, 3).Blocks == 0 {
		t.Error("what was half put is not collected")
	}
}

// Memory does not grow with the file.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves 256 MiB")
	}
	a, b, from := pair(t)
	const size = 128 << 20
	var peak atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapInuse))
			}
		}
	}()
	runtime.GC()
	c, _, err := a.Put(ctx, &endless{left: size}, PinFor{Owner: "user"})
	if err != nil {
		t.Fatal(err)
	}
	putPeak := peak.Swap(0)
	drain(t, b, c.String(), from)
	getPeak := peak.Load()
	cancel()
	<-done
	t.Logf("heap in use at most: %d MiB putting, %d MiB fetching (both sides)", putPeak>>20, getPeak>>20)
	if putPeak > 64<<20 || getPeak > 128<<20 {
		t.Errorf("heap in use: %d MiB putting, %d MiB fetching", putPeak>>20, getPeak>>20)
	}
}
