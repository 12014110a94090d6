package repository

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// found is an app.Reporter that remembers.
type found []app.Finding

func (f *found) Progress(app.Checked) error      { return nil }
func (f *found) Found(finding app.Finding) error { *f = append(*f, finding); return nil }

// Bytes that were flipped on disk are found, and fetched again from whoever has them.
func TestVerify(t *testing.T) {
	a, b, from := pair(t)
	data := randomBytes(1, 5<<20)
	c := put(t, a, data, "user")
	put(t, b, data, "user")
	leaf := data[2<<20 : 3<<20]
	leafCID := put(t, newStore(t), leaf, "")
	check := func(what string, repair bool, want app.Checked, findings ...app.Finding) {
		t.Helper()
		var got found
		done, err := b.Verify(t.Context(), repair, from, &got)
		if err != nil || done != want {
			t.Errorf("%s: %+v, %v, want %+v", what, done, err, want)
		}
		if len(got) != len(findings) {
			t.Fatalf("%s: found %+v, want %+v", what, got, findings)
		}
		for i := range got {
			if got[i] != findings[i] {
				t.Errorf("%s: found %+v, want %+v", what, got[i], findings[i])
			}
		}
	}
	root, err := b.blocks.Get(keyOf(mustParse(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	all := app.Checked{Blocks: 6, Bytes: int64(5<<20 + len(root))}
	check("whole", true, all)
	damageFile(t, b.cfg.Dir, leaf)
	hurt := all
	hurt.Bad = 1
	check("only looked at", false, hurt, app.Finding{CID: leafCID, Damaged: true})
	hurt.Repaired = 1
	check("a leaf", true, hurt, app.Finding{CID: leafCID, Damaged: true, Repaired: true})
	check("mended", false, all)
	mustGet(t, b, c, Source{Local: true}, data)
	damageFile(t, b.cfg.Dir, root)
	check("the root", true, hurt, app.Finding{CID: nameOf(keyOf(mustParse(t, c))), Damaged: true, Repaired: true})
	check("mended", false, all)
	mustGet(t, b, c, Source{Local: true}, data)
}

// What a pin needs and is not there is found by walking it, and brought.
func TestVerifyFindsWhatIsMissing(t *testing.T) {
	a, b, from := pair(t)
	data := randomBytes(1, 3<<20)
	c := put(t, a, data, "user")
	commit(t, b, app.Change{Pins: pinsOf(c)})
	var got found
	done, err := b.Verify(t.Context(), false, from, &got)
	if err != nil || done.Bad != 1 || len(got) != 1 || got[0].Damaged || got[0].CID != c {
		t.Errorf("%+v, found %+v, %v", done, got, err)
	}
	got = nil
	done, err = b.Verify(t.Context(), true, from, &got)
	if err != nil || done.Bad != 4 || done.Repaired != 4 || len(got) != 4 {
		t.Errorf("%+v, found %+v, %v", done, got, err)
	}
	mustGet(t, b, c, Source{Local: true}, data)
}

// Nobody else has it: it is said, and what is whole stays readable.
func TestVerifyAlone(t *testing.T) {
	s := newStore(t)
	attach(t, s)
	data, whole := randomBytes(1, 1<<20), randomBytes(2, 1000)
	c, wholeCID := put(t, s, data, "user"), put(t, s, whole, "user")
	damageFile(t, s.cfg.Dir, data[:1<<20])
	var got found
	done, err := s.Verify(t.Context(), true, Source{}, &got)
	if err != nil || done.Bad != 1 || done.Repaired != 0 || len(got) != 1 {
		t.Errorf("%+v, found %+v, %v", done, got, err)
	}
	_, err = get(s, c, Source{Local: true})
	wantFault(t, err, codes.DataLoss, ReasonCorrupted)
	mustGet(t, s, wholeCID, Source{Local: true}, whole)
}

func TestServerVerifyAndCollect(t *testing.T) {
	s := newStore(t, func(c *Config) { c.Quota = 64 << 20 })
	client := serve(t, s)
	kept := rpcPut(t, client, randomBytes(1, 3<<20), &brokerv1.PinOptions{Owner: "user"})
	loose := rpcPut(t, client, randomBytes(2, 3<<20), nil)
	stream, err := client.Verify(t.Context(), &brokerv1.VerifyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var last *brokerv1.VerifyProgress
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || m.GetFinding() != nil {
			t.Fatal(m, err)
		}
		last = m.GetProgress()
	}
	if !last.GetDone() || last.GetBlocks() != 8 || last.GetBad() != 0 || last.GetTotalBytes() < 6<<20 {
		t.Errorf("at the end %v", last)
	}
	r, err := client.Collect(t.Context(), &brokerv1.CollectRequest{})
	if err != nil || r.GetBlocks() != 4 || r.GetQuota() != 64<<20 || r.GetUsed() > 4<<20 {
		t.Errorf("collected %v, %v", r, err)
	}
	if _, _, err := rpcGet(t.Context(), client, &brokerv1.GetRequest{Cid: loose.GetCid(), Local: true}); err == nil {
		t.Error("what nobody pins is still there")
	}
	if _, data, err := rpcGet(t.Context(), client, &brokerv1.GetRequest{Cid: kept.GetCid(), Local: true}); err != nil || len(data) != 3<<20 {
		t.Errorf("what is pinned: %d bytes, %v", len(data), err)
	}
}

// Beyond the quota a put is refused with what would mend it, and that does.
func TestQuota(t *testing.T) {
	s := newStore(t, func(c *Config) { c.Quota = 10 << 20 })
	first := put(t, s, randomBytes(1, 6<<20), "user")
	_, _, err := s.Put(t.Context(), &endless{left: 6 << 20, seed: 2}, PinFor{Owner: "user"})
	wantFault(t, err, codes.ResourceExhausted, ReasonQuota, "10.0 MiB", "unpin", "content.quota")
	_, err = s.CollectAll(t.Context()) // what the refused one had written goes
	if err != nil {
		t.Fatal(err)
	}
	mustGet(t, s, first, Source{Local: true}, randomBytes(1, 6<<20))
	put(t, s, randomBytes(3, 2<<20), "user")
	if err := s.Unpin([]content.Pin{{CID: first, Owner: "user"}}); err != nil {
		t.Fatal(err)
	}
	if swept, err := s.CollectAll(t.Context()); err != nil || swept.Blocks != 7 {
		t.Errorf("collected %+v, %v", swept, err)
	}
	put(t, s, randomBytes(4, 6<<20), "user")
	// What others have may not push it beyond either.
	other := newStore(t)
	h := attach(t, other)
	c := put(t, other, randomBytes(5, 6<<20), "")
	know(attach(t, s), h)
	_, err = s.Pin(t.Context(), c, PinFor{Owner: "user"}, Source{Peers: []string{h.ID().String()}})
	wantFault(t, err, codes.ResourceExhausted, ReasonQuota)
}

// While a file is being put, a collection of everything leaves what is there of it.
func TestCollectAllSparesWhatIsBeingPut(t *testing.T) {
	s := newStore(t)
	r, w := io.Pipe()
	type outcome struct {
		c   string
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		c, _, err := s.Put(t.Context(), r, PinFor{Owner: "user"})
		ended <- outcome{c.String(), err}
	}()
	data := randomBytes(1, 12<<20)
	for at := 0; at < len(data); at += 1 << 20 {
		if _, err := w.Write(data[at : at+1<<20]); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CollectAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	got := <-ended
	if got.err != nil {
		t.Fatal(got.err)
	}
	mustGet(t, s, got.c, Source{Local: true}, data)
}
