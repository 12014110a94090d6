package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"

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
	case <-time.After(time.Minute):
		t.Fatal("it did not come")
	}
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it did not happen within a minute")
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
	wantFault(t, err, codes.NotFound, ReasonNotFound, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Open(ctx, c, Source{}, 0, 0)
	wantFault(t, err, codes.Canceled, fault.ReasonCancelled)
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

// No bytes are the same everywhere, so nobody is asked for them; and whoever asks gets them.
func TestEmptyBlock(t *testing.T) {
	for name, c := range map[string]string{
		"a file": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", "a node": "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
	} {
		if !empty(mustParse(t, c)) {
			t.Errorf("%s: %s is empty", name, c)
		}
	}
	s := newStore(t)
	attach(t, s)
	const c = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	if _, err := get(s, c, Source{Local: true}); fault.From(err).Reason != ReasonNotFound {
		t.Errorf("on disk: %v", err)
	}
	mustGet(t, s, c, Source{}, nil)
	if size, err := s.Pin(t.Context(), c, PinFor{Owner: "user"}, Source{}); err != nil || size != 0 {
		t.Error(size, err)
	}
	if n, err := (&blockstore{s, ""}).GetSize(t.Context(), mustParse(t, c)); err != nil || n != 1 {
		t.Errorf("bitswap plans with %d, %v", n, err)
	}
}
